"""Backbones: stages, folded norms, frozen layers and errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from bench.detector.backbones import Backbone
from bench.detector.folded_convolution import FoldedConvolution
from bench.detector.folding import with_folded_norms
from bench.detector.ssd import SSD
from bench.detector.weights import weights_fingerprint
from bench.errors import UserError
from tests import tiny
from tests.detector.oracles import relative_error, spread_norms
from variants.unfreezing import Unfreezing


@pytest.mark.parametrize(
    ("name", "remaining"),
    # Depthwise, padded by size; plain; squeeze and excitation; pre-activation, where some norms stay; without norms
    [(tiny.NAME, 0), ("resnet18", 0), ("mobilenetv3_small_100", 0), ("resnetv2_18", 8), ("test_convnext", 0)],
)
def test_folding_does_not_change_maps(name: str, remaining: int) -> None:
    network = timm.create_model(name, features_only=True).eval()
    spread_norms(network)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = network(images)
        network = with_folded_norms(network)
        after = network(images)
    assert max(relative_error(ours, expected) for ours, expected in zip(after, before, strict=True)) < 1e-4
    folded = sum(isinstance(module, FoldedConvolution) for module in network.modules())
    assert folded == norms - remaining
    assert not any(
        parameter.requires_grad
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
        for parameter in module.parameters()
    )


def test_norms_stay_and_are_frozen_if_folding_would_change_a_map() -> None:
    """GhostNet's finest map is the output of a convolution, which a norm reads too."""
    network = timm.create_model("ghostnet_100", features_only=True).eval()
    spread_norms(network)
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = network(images)
        kept = with_folded_norms(network)
        assert all(torch.equal(ours, expected) for ours, expected in zip(kept(images), before, strict=True))
    assert not any(isinstance(module, FoldedConvolution) for module in kept.modules())
    norms = [module for module in kept.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(parameter.requires_grad for module in norms for parameter in module.parameters())


def test_a_folded_convolution_has_the_gradients_of_the_two_layers() -> None:
    """Its gradient equals that of the plain weight before a frozen norm, so an optimiser step is the same."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=True), nn.BatchNorm2d(6)).double().eval()
    spread_norms(plain)
    folded = FoldedConvolution(plain[0], plain[1]).double()  # type: ignore[arg-type]
    images = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    plain(images).square().sum().backward()
    folded(images).square().sum().backward()
    torch.testing.assert_close(folded.weight.grad, plain[0].weight.grad)
    assert [name for name, _ in folded.named_parameters()] == ["weight"]


@pytest.mark.parametrize("size", [(75, 75), (38, 38), (75, 38), (9, 10)])
@pytest.mark.parametrize(("kernel", "stride"), [(5, 2), (3, 2), (3, 1), (2, 2)])
def test_a_folded_convolution_pads_by_the_input_size(size: tuple[int, int], kernel: int, stride: int) -> None:
    """TensorFlow's padding is equal on both sides, or one pixel more at the end."""
    torch.manual_seed(0)
    plain = nn.Sequential(Conv2dSame(4, 4, kernel, stride=stride, groups=4), nn.BatchNorm2d(4)).double().eval()
    spread_norms(plain)
    images = torch.randn(2, 4, *size, dtype=torch.float64)
    torch.testing.assert_close(FoldedConvolution(plain[0], plain[1]).double()(images), plain(images))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        (tiny.NAME, [2, 2, 4, 8, 16, 32]),
        ("resnet18", [2, 4, 8, 16, 32]),
        ("mobilenetv3_small_100", [2, 4, 8, 16, 16, 32, 32]),
    ],
)
def test_stages_are_in_order_and_complete(name: str, strides: list[int]) -> None:
    backbone = Backbone(name, "none")
    stages = backbone.stages()
    assert [stage.stride for stage in stages] == strides
    stage_parameters = [id(p) for stage in stages for module in stage.modules for p in module.parameters()]
    assert len(stage_parameters) == len(set(stage_parameters))
    assert set(stage_parameters) == {id(p) for p in backbone.parameters()}


def test_the_last_module_is_not_taken_for_the_stem() -> None:
    # HRNet's last module ends no map; a stride of 0 would freeze it for good, with the stem
    assert all(stage.stride > 0 for stage in Backbone("hrnet_w18_small", "none").stages())


def test_frozen_stages_have_no_backward_pass(tmp_path: Path) -> None:
    backbone = Backbone(tiny.NAME, str(tiny.weights_file(tmp_path / "tiny.pth")))
    images = torch.rand(1, 3, 300, 300) * 255
    for stage in backbone.stages()[:4]:
        nn.ModuleList(stage.modules).requires_grad_(False)
    finest, *upper = backbone(images)
    assert not finest.requires_grad  # stride 8 is frozen, so no graph was built
    sum(level.sum() for level in upper).backward()
    for place, stage in enumerate(backbone.stages()):
        has_gradient = [p.grad is not None for module in stage.modules for p in module.parameters()]
        assert all(has_gradient) if place >= 4 else not any(has_gradient), place


def test_pretrained_norms_stay_in_evaluation_mode(tmp_path: Path) -> None:
    path = str(tiny.weights_file(tmp_path / "tiny.pth"))
    pretrained, untrained = Backbone(tiny.NAME, path).train(), Backbone(tiny.NAME, "none").train()
    assert pretrained.pretrained
    assert not untrained.pretrained
    assert not any(module.training for module in pretrained.features.modules())
    assert all(module.training for module in untrained.features.modules())


def test_preprocessing_matches_the_weights() -> None:
    backbone = Backbone("efficientnet_lite0", "none")
    assert backbone.mean.flatten().tolist() == backbone.deviation.flatten().tolist() == [127.5] * 3
    imagenet = Backbone("resnet18", "none")
    expected = torch.tensor([0.485, 0.456, 0.406]) * 255
    torch.testing.assert_close(imagenet.mean.flatten(), expected)
    seen: list[Tensor] = []
    imagenet.features.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    imagenet(imagenet.mean.expand(1, 3, 300, 300))
    assert float(seen[0].abs().max()) < 1e-6


def test_the_fingerprint_depends_on_the_content_of_the_file(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (weights_fingerprint(str(tmp_path / name)) for name in "abc")
    assert a == b != c
    assert weights_fingerprint("none") == weights_fingerprint("pretrained") == ""
    with pytest.raises(UserError, match=r"no such file; or give 'pretrained' or 'none'"):
        weights_fingerprint(str(tmp_path / "missing"))


def test_incompatible_weights_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state = torch.load(tiny.weights_file(path), weights_only=True)
    state["conv_stem.weight"] = torch.zeros(1, 3, 3, 3)
    torch.save({"state_dict": state}, path)  # like checkpoints of trainers, with the tensors one level down
    with pytest.raises(UserError, match=r"1 of \d+ tensors are missing or have a different shape: conv_stem.weight"):
        Backbone(tiny.NAME, str(path))
    torch.save([torch.zeros(1)], path)
    with pytest.raises(UserError, match="holds no state dict"):
        Backbone(tiny.NAME, str(path))


def test_the_backbone_loads_from_a_whole_classifier(tmp_path: Path) -> None:
    whole = timm.create_model(tiny.NAME)
    torch.save({"model": whole.state_dict()}, tmp_path / "whole.pth")
    backbone = Backbone(tiny.NAME, str(tmp_path / "whole.pth"))
    stem = backbone.features.get_parameter("conv_stem.weight")
    assert torch.equal(stem, whole.get_parameter("conv_stem.weight"))


def test_a_network_with_a_fixed_input_size_is_an_error() -> None:
    # Swin accepts only 224 pixels; timm raises an AssertionError
    spec = replace(tiny.specification().detector, backbone="swin_tiny_patch4_window7_224")
    with pytest.raises(UserError, match=r"swin_tiny_patch4_window7_224: does not accept 300 x 300 input"):
        SSD(spec, seed=0)


def test_unfreezing_refuses_an_untrained_backbone(tmp_path: Path) -> None:
    assert "--axes fpn,anchors" in (Unfreezing().refusal(tiny.specification("none")) or "")
    assert Unfreezing().refusal(tiny.specification(str(tmp_path / "any.pth"))) is None
