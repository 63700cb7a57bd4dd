"""VGG16 as in the paper, against torchvision's SSD300: sizes, weights of all origins, outputs, detections."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16

from bench.cpu.depthwise import use_compiled_loops
from bench.detector import vgg
from bench.detector.backbones import Backbone
from bench.detector.levels import L2Norm
from bench.detector.postprocess import detect
from bench.detector.priors import preset_shapes
from bench.detector.ssd import SSD, bias_of
from bench.detector.torchvision_names import from_torchvision, our_name, to_torchvision
from bench.errors import UserError
from bench.spec import Specification
from bench.speed.inference import count_flops, count_parameters
from bench.speed.torchvision_peer import torchvision_image
from bench.training.trainer import Trainer
from tests import tiny
from tests.cpu.test_depthwise import needs_bfloat16
from tests.detector.test_backbones import relative_error
from variants.baseline import baseline, initialisation_of, training_of


def specification(classes: int, *, weights: str = "none", profile: str = "smoke") -> Specification:
    return baseline(
        classes=classes,
        backbone=vgg.NAME,
        weights=weights,
        weights_fingerprint="",
        priors=preset_shapes("coco"),
        training=training_of(profile, 1000, scenes=False),
        initialisation=initialisation_of(profile),
    )


def test_size_and_cost_are_the_papers() -> None:
    """26.29 M parameters and 62.7 GFLOP at 21 classes."""
    model = SSD(specification(20).detector, seed=0)
    parameters = count_parameters(model) / 1e6
    flops = count_flops(model, torch.zeros(1, 3, 300, 300)) / 1e9
    print(f"{parameters:.2f} M parameters, {flops:.1f} GFLOP")
    assert parameters == pytest.approx(26.29, rel=0.01)
    assert flops == pytest.approx(62.7, rel=0.01)


@pytest.mark.parametrize(("seed", "outputs"), [(0, 21), (1, 91)])
def test_torchvisions_ssd_computes_the_same(seed: int, outputs: int) -> None:
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


def test_conversion_is_one_to_one_and_goes_back() -> None:
    theirs, ours = _pair(0, 21)
    names = [our_name(name) for name in theirs.state_dict()]
    assert sorted(names) == sorted(ours.state_dict())
    back = to_torchvision(ours.state_dict(), theirs.state_dict())
    assert all(torch.equal(back[name], value) for name, value in theirs.state_dict().items())
    with pytest.raises(KeyError):
        our_name("backbone.body.conv1.weight")


def test_relus_after_pooling_or_with_convolutions_change_no_number_and_no_gradient() -> None:
    torch.manual_seed(0)
    network, images = vgg.VGG16(), torch.randn(2, 3, 100, 100)
    plain = nn.ModuleList(copy.deepcopy(layer) for layer in network.features)
    assert network.order != sorted(network.order)
    assert len(network.order) < len(plain)

    def as_it_is_written(x: Tensor) -> list[Tensor]:
        maps = []
        for place, layer in enumerate(plain):
            x = F.conv2d(x, layer.weight, layer.bias, padding=1) if isinstance(layer, nn.Conv2d) else layer(x)
            maps += [x] if place == 22 else []  # the ReLU of conv4_3
        return [*maps, F.relu(network.fc7(F.relu(network.fc6(x))))]

    found = []
    for maps, learnt in ((network(images), network.features), (as_it_is_written(images), plain)):
        torch.stack([level.square().sum() for level in maps]).sum().backward()
        gradients = [value.grad for value in learnt.parameters()]
        assert None not in gradients
        found.append([level.detach() for level in maps] + [each for each in gradients if each is not None])
    assert len(found[0]) == 2 + 26
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.usefixtures("compiled_loops")
def test_compiled_loops_give_the_same_maps_and_gradients() -> None:
    torch.manual_seed(0)
    network, images = vgg.VGG16(), torch.randn(2, 3, 100, 100)
    found = []
    for wanted in (True, False):
        use_compiled_loops(wanted)
        maps = network(images)
        torch.stack([level.square().mean() for level in maps]).sum().backward()
        gradients = [value.grad.clone() for value in network.parameters() if value.grad is not None]
        network.zero_grad()
        found.append([level.detach() for level in maps] + gradients)
    errors = [relative_error(ours, torchs) for ours, torchs in zip(*found, strict=True)]
    print(f"largest relative difference of maps {max(errors[:2]):.1e}, of gradients {max(errors[2:]):.1e}")
    assert 0 < max(errors[:2]) < 1e-5
    assert max(errors[2:]) < 1e-3  # a few ReLUs beside zero let other gradients through


def test_weights_of_features_alone_leave_fc6_and_fc7_untrained(tmp_path: Path) -> None:
    features = nn.Sequential(*torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], False))
    torch.save({f"features.{name}": value.half() for name, value in features.state_dict().items()}, tmp_path / "a.pth")
    torch.save(features.state_dict(), tmp_path / "b.pth")
    for file in ("a.pth", "b.pth"):
        backbone = Backbone(vgg.NAME, str(tmp_path / file))
        assert list(backbone.fresh) == ["fc6", "fc7"]
        assert backbone.stage_strides == [1, 2, 4, 8, 16]
        assert torch.allclose(backbone.features.features[28].weight, cast(nn.Conv2d, features[28]).weight, atol=1e-3)
        assert backbone.mean.flatten().tolist() == pytest.approx([123, 117, 104], abs=0.01)
        assert backbone.deviation.flatten().tolist() == pytest.approx([1, 1, 1])


def test_untrained_parts_learn_with_the_heads_and_the_trained_ones_may_be_frozen(tmp_path: Path) -> None:
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], False)
    torch.save(features.state_dict(), tmp_path / "vgg.pth")
    base = specification(2, weights=str(tmp_path / "vgg.pth"))
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


def test_a_classifier_is_subsampled_as_caffes_reduced_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fourth output of fc6 and fc7; every third row and column of fc6's 7 x 7."""
    whole = _classifier_state()
    monkeypatch.setattr(vgg, "read_state", lambda path: whole)
    backbone = Backbone(vgg.NAME, "whole.pth")
    spatial = whole["classifier.0.weight"].view(4096, 512, 7, 7)
    assert torch.equal(backbone.features.fc6.weight[5, :, 1, 2], spatial[20, :, 3, 6].float())
    assert backbone.features.fc7.weight[7, 3, 0, 0].item() == float(whole["classifier.3.weight"][28, 12])
    assert not backbone.fresh
    assert backbone.stage_strides == [1, 2, 4, 8, 16, 16]
    assert backbone.deviation.flatten().tolist() == pytest.approx([0.229 * 255, 0.224 * 255, 0.225 * 255])


def test_a_classifier_of_nan_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """So torchvision ships IMAGENET1K_FEATURES, whose inputs are Caffe's."""
    whole = _classifier_state() | {"classifier.0.weight": torch.full((1,), float("nan")).expand(4096, 512 * 49)}
    monkeypatch.setattr(vgg, "read_state", lambda path: whole)
    backbone = Backbone(vgg.NAME, "features.pth")
    assert list(backbone.fresh) == ["fc6", "fc7"]
    assert backbone.deviation.flatten().tolist() == pytest.approx([1, 1, 1])


def test_an_ssd_checkpoint_gives_its_backbone(tmp_path: Path) -> None:
    theirs, _ = _pair(2, 21)
    torch.save(theirs.state_dict(), tmp_path / "ssd.pth")
    backbone = Backbone(vgg.NAME, str(tmp_path / "ssd.pth"))
    assert not backbone.fresh
    assert torch.equal(backbone.features.fc7.weight, theirs.state_dict()["backbone.extra.0.7.3.weight"])
    assert torch.equal(backbone.features.features[24].weight, theirs.state_dict()["backbone.extra.0.1.weight"])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"25 of the 30 tensors .* first features.0.bias"):
        Backbone(vgg.NAME, str(tmp_path / "part.pth"))


def test_caffes_initialisation_is_uniform_by_the_fan_in_with_biases_zero() -> None:
    spec = specification(20, profile="paper").detector
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


@needs_bfloat16
@pytest.mark.usefixtures("compiled_loops", "without_amx")
def test_maps_of_photographs_in_bfloat16_are_nearly_as_near_as_torchs(
    shared_data: Path, shared_weights: Path, given_channels: list[int]
) -> None:
    backbone = Backbone(vgg.NAME, str(shared_weights)).eval()
    files = sorted((shared_data / "bccd" / "JPEGImages").glob("*.jpg"))[:2]
    images = torch.stack([torchvision_image(file)[:, :300, :300] for file in files])
    found = []
    for wanted, half in ((False, False), (True, True), (False, True)):
        use_compiled_loops(wanted)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            found.append([level.double() for level in backbone(images)])
    assert len(given_channels) == 12  # all but the first, of three channels; once
    for expected, ours, torchs in zip(*found, strict=True):
        error, torchs_error = (float((each - expected).norm() / expected.norm()) for each in (ours, torchs))
        print(f"relative error {error:.1e}, of torch's in bfloat16 {torchs_error:.1e}")
        assert error < 1.7 * torchs_error


def _pair(seed: int, outputs: int) -> tuple[Any, SSD]:
    """torchvision's SSD with random weights, the L2Norm's scale too, and ours with the same ones."""
    torch.manual_seed(seed)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=outputs).eval()
    with torch.no_grad():
        theirs.backbone.scale_weight.uniform_(10, 30)
        for name, value in theirs.named_parameters():
            if name.startswith("head."):  # scores neither all alike nor all at 1
                value.mul_(0.05) if name.endswith("weight") else value.normal_()
    ours = SSD(specification(outputs - 1).detector, seed=0).eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()))
    return theirs, ours


def _nearest(box: Tensor, label: Tensor, other: dict[str, Tensor]) -> float:
    """Pixels between a box and the nearest one of its class."""
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
