"""VGG16 as in the paper, compared to torchvision's SSD300: size, weights from every source, outputs, detections."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16

from bench.detector import vgg
from bench.detector.backbones import Backbone
from bench.detector.levels import L2Norm
from bench.detector.postprocess import detect
from bench.detector.ssd import SSD, bias_of
from bench.detector.torchvision_names import from_torchvision, our_name, to_torchvision
from bench.errors import UserError
from bench.speed.cost import count_flops, count_parameters
from bench.training.trainer import Trainer
from tests import tiny
from tests.detector.oracles import vgg16_specification

pytestmark = pytest.mark.usefixtures("either_way")


def test_parameters_and_flops_are_those_of_the_paper() -> None:
    """26.29 M parameters and 62.7 GFLOP at 21 classes."""
    model = SSD(vgg16_specification(20).detector, seed=0)
    parameters = count_parameters(model) / 1e6
    flops = count_flops(model, torch.zeros(1, 3, 300, 300)) / 1e9
    print(f"{parameters:.2f} M parameters, {flops:.1f} GFLOP")
    assert parameters == pytest.approx(26.29, rel=0.01)
    assert flops == pytest.approx(62.7, rel=0.01)


@pytest.mark.parametrize(("seed", "outputs"), [(0, 21), (1, 91)])
def test_outputs_and_detections_equal_torchvision(seed: int, outputs: int) -> None:
    theirs, ours = _pair(seed, outputs)
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (1, 3, 300, 300), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        normalised, _ = theirs.transform([picture / 255 for picture in pictures])
        maps = list(theirs.backbone(normalised.tensors).values())
        heads = theirs.head(maps)
        logits, offsets = ours(pictures)
        for mine, expected in ((logits, heads["cls_logits"]), (offsets, heads["bbox_regression"])):
            difference = float((mine - expected).abs().max() / expected.abs().max())
            print(f"largest relative difference {difference:.1e}")
            assert difference < 1e-4
        anchors = theirs.anchor_generator(normalised, maps)
        (expected_found,) = theirs.postprocess_detections(heads, anchors, normalised.image_sizes)
        found = detect(ours.spec, heads["cls_logits"], heads["bbox_regression"], ours.priors)
    assert len(found.boxes) == len(expected_found["boxes"]) == 200
    assert torch.allclose(found.scores, expected_found["scores"], atol=1e-6)
    distances = [
        _nearest(box, label, expected_found) for box, label in zip(found.boxes * 300, found.labels + 1, strict=True)
    ]
    print(f"largest distance of a box {max(distances):.1e} pixels")
    assert max(distances) < 0.01


def test_torchvision_names_convert_both_ways() -> None:
    theirs, ours = _pair(0, 21)
    names = [our_name(name) for name in theirs.state_dict()]
    assert sorted(names) == sorted(ours.state_dict())
    back = to_torchvision(ours.state_dict(), theirs.state_dict())
    assert all(torch.equal(back[name], value) for name, value in theirs.state_dict().items())
    with pytest.raises(KeyError):
        our_name("backbone.body.conv1.weight")


def test_weights_without_a_classifier_leave_fc6_and_fc7_untrained(tmp_path: Path) -> None:
    features = nn.Sequential(*torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], False))
    torch.save({f"features.{name}": value.half() for name, value in features.state_dict().items()}, tmp_path / "a.pth")
    torch.save(features.state_dict(), tmp_path / "b.pth")
    for file in ("a.pth", "b.pth"):
        backbone = Backbone(vgg.NAME, str(tmp_path / file))
        assert list(backbone.fresh) == ["fc6", "fc7"]
        assert [stage.stride for stage in backbone.stages()] == [1, 2, 4, 8, 16]
        assert torch.allclose(backbone.features.features[28].weight, cast(nn.Conv2d, features[28]).weight, atol=1e-3)
        assert backbone.mean.flatten().tolist() == pytest.approx([123, 117, 104], abs=0.01)
        assert backbone.deviation.flatten().tolist() == pytest.approx([1, 1, 1])


def test_untrained_layers_train_at_the_rate_of_the_heads_and_pretrained_ones_may_be_frozen(tmp_path: Path) -> None:
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], False)
    torch.save(features.state_dict(), tmp_path / "vgg.pth")
    base = vgg16_specification(2, weights=str(tmp_path / "vgg.pth"))
    model = SSD(base.detector, seed=0)
    trainer = Trainer(model, base.training, tiny.NUMERICS)
    trainer.set_step(base.training.steps - 1)
    assert base.training.frozen_stride == 2
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    assert "backbone.features.features.10.weight" in learning  # conv3_1
    assert "backbone.features.features.7.weight" not in learning  # conv2_2
    rates = {id(value): group["lr"] for group in trainer.optimiser.param_groups for value in group["params"]}
    network = model.backbone.features
    assert rates[id(network.fc6.weight)] == rates[id(cast(nn.Conv2d, model.class_heads[0]).weight)]
    assert rates[id(network.features[28].weight)] == pytest.approx(0.2 * rates[id(network.fc6.weight)])


def test_a_classifier_is_subsampled_like_caffes_reduced_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fourth output of fc6 and fc7, and every third row and column of the 7 x 7 kernel of fc6."""
    whole = _classifier_state()
    monkeypatch.setattr(vgg, "read_state", lambda path: whole)
    backbone = Backbone(vgg.NAME, "whole.pth")
    spatial = whole["classifier.0.weight"].view(4096, 512, 7, 7)
    assert torch.equal(backbone.features.fc6.weight[5, :, 1, 2], spatial[20, :, 3, 6].float())
    assert backbone.features.fc7.weight[7, 3, 0, 0].item() == float(whole["classifier.3.weight"][28, 12])
    assert not backbone.fresh
    assert [stage.stride for stage in backbone.stages()] == [1, 2, 4, 8, 16, 16]
    assert backbone.deviation.flatten().tolist() == pytest.approx([0.229 * 255, 0.224 * 255, 0.225 * 255])


def test_a_classifier_of_nan_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision ships IMAGENET1K_FEATURES like this; its preprocessing is Caffe's."""
    whole = _classifier_state() | {"classifier.0.weight": torch.full((1,), float("nan")).expand(4096, 512 * 49)}
    monkeypatch.setattr(vgg, "read_state", lambda path: whole)
    backbone = Backbone(vgg.NAME, "features.pth")
    assert list(backbone.fresh) == ["fc6", "fc7"]
    assert backbone.deviation.flatten().tolist() == pytest.approx([1, 1, 1])


def test_the_backbone_loads_from_an_ssd_checkpoint(tmp_path: Path) -> None:
    theirs, _ = _pair(2, 21)
    torch.save(theirs.state_dict(), tmp_path / "ssd.pth")
    backbone = Backbone(vgg.NAME, str(tmp_path / "ssd.pth"))
    assert not backbone.fresh
    assert torch.equal(backbone.features.fc7.weight, theirs.state_dict()["backbone.extra.0.7.3.weight"])
    assert torch.equal(backbone.features.features[24].weight, theirs.state_dict()["backbone.extra.0.1.weight"])


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"25 of 30 tensors .* features.0.bias"):
        Backbone(vgg.NAME, str(tmp_path / "part.pth"))


def test_caffe_initialisation_is_uniform_by_the_fan_in_with_zero_biases() -> None:
    spec = vgg16_specification(20, profile="paper").detector
    model = SSD(spec, seed=0)
    layer = cast(nn.Conv2d, model.class_heads[1])
    bound = (3 / (1024 * 9)) ** 0.5
    assert float(layer.weight.detach().abs().max()) == pytest.approx(bound, rel=1e-3)
    assert float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.01)
    assert not any(bool(bias_of(head).any()) for head in model.class_heads)
    assert torch.equal(cast(L2Norm, model.norms[0]).scale, torch.full((512,), 20.0))


@pytest.fixture
def shared_weights(shared_data: Path) -> Path:
    path = shared_data.parent / "weights" / "vgg16_features_fp16.pth"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    return path


def test_the_shared_weights_load(shared_weights: Path) -> None:
    backbone = Backbone(vgg.NAME, str(shared_weights)).eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 300, 300))
    assert [tuple(level.shape[1:]) for level in maps] == [(512, 38, 38), (1024, 19, 19)]
    assert all(bool(torch.isfinite(level).all()) for level in maps)


def _pair(seed: int, outputs: int) -> tuple[Any, SSD]:
    """torchvision's SSD with random weights and L2Norm scales, and ours with the same weights."""
    torch.manual_seed(seed)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=outputs).eval()
    with torch.no_grad():
        theirs.backbone.scale_weight.uniform_(10, 30)
        for name, value in theirs.named_parameters():
            if name.startswith("head."):  # so that scores differ and are below 1
                value.mul_(0.05) if name.endswith("weight") else value.normal_()
    ours = SSD(vgg16_specification(outputs - 1).detector, seed=0).eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()))
    return theirs, ours


def _nearest(box: Tensor, label: Tensor, other: dict[str, Tensor]) -> float:
    """The distance in pixels of a box to the nearest box of its class."""
    same = other["boxes"][other["labels"] == label]
    return float((same - box).abs().amax(dim=1).min()) if len(same) else float("inf")


def _classifier_state() -> dict[str, Tensor]:
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], False)
    return {
        **{f"features.{name}": value for name, value in features.state_dict().items()},
        "classifier.0.weight": torch.arange(4096 * 512 * 49, dtype=torch.int32).view(4096, -1),
        "classifier.0.bias": torch.arange(4096),
        "classifier.3.weight": torch.arange(4096 * 4096, dtype=torch.int32).view(4096, -1),
        "classifier.3.bias": torch.arange(4096),
    }
