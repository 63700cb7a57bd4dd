"""torchvision's SSD as --weights: outputs for our classes, layers that stay untrained, and errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16

from bench.detector.ssd import SSD
from bench.detector.torchvision_names import to_torchvision
from bench.detector.transfer import check_taken, class_outputs
from bench.errors import UserError
from bench.spec import DetectorSpec, NeckSpec
from tests.detector.oracles import vgg16_specification
from variants.fpn import FPN

pytestmark = pytest.mark.usefixtures("either_way")

CLASSES = ("stop sign", "no such thing", "person")  # COCO's ids 13 and 1
OUTPUTS = (13, 0, 1)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state dict of torchvision's SSD with 91 outputs and random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "ssd300_vgg16_coco.pth"
    torch.save(ssd300_vgg16(weights=None, weights_backbone=None, num_classes=91).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def detector(published: Path) -> DetectorSpec:
    spec = vgg16_specification(len(CLASSES), weights=str(published)).detector
    return replace(spec, class_outputs=class_outputs(str(published), CLASSES))


@pytest.fixture(scope="module")
def ours(detector: DetectorSpec) -> SSD:
    return SSD(detector, seed=0).eval()


def test_class_outputs_are_found_by_name_or_by_number(published: Path, tmp_path: Path) -> None:
    assert class_outputs(str(published), CLASSES) == OUTPUTS
    assert class_outputs(str(published), [f"shelf {place}" for place in range(90)]) == tuple(range(1, 91))
    assert class_outputs(str(published), ["cell", "leaf", "__background__"]) == (0, 0, 0)
    assert class_outputs("pretrained", CLASSES) == class_outputs("none", CLASSES) == ()
    torch.save({"0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "features.pth")
    assert class_outputs(str(tmp_path / "features.pth"), CLASSES) == ()


def test_logits_of_known_classes_equal_torchvision(published: Path, ours: SSD, detector: DetectorSpec) -> None:
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=91).eval()
    theirs.load_state_dict(torch.load(published, weights_only=True))
    picture = torch.randint(0, 256, (3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        batch, _ = theirs.transform([picture / 255])
        heads = theirs.head(list(theirs.backbone(batch.tensors).values()))
        logits, offsets = ours(picture[None])
    known = [0, 1, 3]  # background, stop sign, person
    expected = heads["cls_logits"][..., [0, 13, 1]]
    for mine, wanted in ((logits[..., known], expected), (offsets, heads["bbox_regression"])):
        difference = float((mine - wanted).abs().max() / wanted.abs().max())
        print(f"largest relative difference {difference:.1e}")
        assert difference < 1e-4
    untrained = SSD(replace(detector, weights="none", class_outputs=()), seed=0)
    head, fresh = ours.state_dict(), untrained.state_dict()
    for level in range(6):
        rows = head[f"class_heads.{level}.weight"].unflatten(0, (-1, 4))[:, 2]
        assert torch.equal(rows, fresh[f"class_heads.{level}.weight"].unflatten(0, (-1, 4))[:, 2])
    check_taken(ours, ours.taken_over, detector.weights)


def test_heads_with_all_classes_convert_back_to_torchvision(published: Path) -> None:
    state: dict[str, Tensor] = torch.load(published, weights_only=True)
    names = tuple(f"shelf {place}" for place in range(90))
    spec = replace(
        vgg16_specification(90, weights=str(published)).detector, class_outputs=class_outputs(str(published), names)
    )
    back = to_torchvision(SSD(spec, seed=5).state_dict(), state)
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_a_pyramid_beside_the_maps_keeps_the_trained_heads(ours: SSD, detector: DetectorSpec) -> None:
    spec = FPN().apply(vgg16_specification(len(CLASSES)), {}).detector
    pyramid = SSD(replace(detector, neck=spec.neck), seed=0)
    assert {name.split(".")[0] for name in ours.taken_over} == {"norms", "extras", "class_heads", "box_heads"}
    assert set(pyramid.taken_over) == set(ours.taken_over)
    state, other = ours.state_dict(), pyramid.state_dict()
    for name in pyramid.taken_over:
        if state[name].dim() < 4:
            assert torch.equal(other[name], state[name]), name
            continue
        read = state[name].shape[1]
        assert torch.equal(other[name][:, :read], state[name]) and not other[name][:, read:].any(), name


def test_behind_a_neck_that_replaces_the_maps_heads_are_not_transferred(ours: SSD, detector: DetectorSpec) -> None:
    replaced = SSD(replace(detector, neck=NeckSpec(kind="fpn", channels=256, levels=3)), seed=0)
    assert {name.split(".")[0] for name in replaced.taken_over} == {"norms", "extras"}
    state, other = ours.state_dict(), replaced.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in replaced.taken_over)


def test_incompatible_tensors_are_named(published: Path, detector: DetectorSpec, tmp_path: Path) -> None:
    one_shape = ((0.1, 0.1),)
    other = SSD(replace(detector, priors=(one_shape, *detector.priors[1:])), seed=0)
    with pytest.raises(UserError, match=r"4 tensors .*class_heads\.0\.weight has shape \(4, 512, 3, 3\), but"):
        check_taken(other, other.taken_over, detector.weights)
    state: dict[str, Tensor] = torch.load(published, weights_only=True)
    torch.save({name: value for name, value in state.items() if "head" not in name}, tmp_path / "headless.pth")
    with pytest.raises(UserError, match="without its heads"):
        class_outputs(str(tmp_path / "headless.pth"), CLASSES)
    torch.save(state | {"roi_heads.weight": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"holds roi_heads\.weight"):
        class_outputs(str(tmp_path / "odd.pth"), CLASSES)
