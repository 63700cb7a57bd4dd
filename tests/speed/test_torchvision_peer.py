"""torchvision's detector is the same detector as ours, so that a difference in time is one of the code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG

from bench.cpu.accelerate import accelerate
from bench.data.targets import Targets
from bench.detector.backbones import DEFAULT_LIGHT
from bench.detector.boxes import to_corners
from bench.detector.folded_convolution import FoldedConvolution
from bench.detector.ssd import SSD
from bench.device import fast_paths
from bench.errors import UserError
from bench.spec import NeckSpec, Numerics
from bench.speed.comparison import TASKS, Work, measure_comparison
from bench.speed.cost import count_flops
from bench.speed.interleaved import Budget
from bench.speed.stages import synthetic_outputs
from bench.speed.torchvision_peer import (
    prior_generator,
    torchvision_boxes,
    torchvision_image,
    torchvision_loss,
    torchvision_ssd,
    torchvision_targets,
)
from tests.tiny import specification
from tests.traps import EPS, ghostscript_trap
from variants.baseline import VGG_EXTRAS, VGG_NORMS

BOXES = torch.tensor([[[0.1, 0.2, 0.5, 0.6], [0.5, 0.5, 0.9, 0.8]], [[0.3, 0.3, 0.4, 0.5], [0.0, 0.0, 0.0, 0.0]]])
TARGETS = Targets(BOXES, torch.tensor([[1, 2], [1, 0]]), torch.zeros(2, 2, dtype=torch.bool))


@pytest.fixture(scope="module")
def ours() -> SSD:
    return SSD(specification().detector, seed=0).eval()


def images(count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, 300, 300), dtype=torch.uint8, generator=generator)


def test_images_are_opened_only_in_the_formats_of_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = ghostscript_trap(tmp_path, monkeypatch)
    drawing, picture = tmp_path / "1.jpg", tmp_path / "2.jpg"
    drawing.write_bytes(EPS)
    with pytest.raises(UnidentifiedImageError):
        torchvision_image(drawing)
    assert not started.exists()
    Image.new("RGB", (16, 8), "white").save(picture, format="PNG")
    assert torch.equal(torchvision_image(picture), torch.full((3, 8, 16), 255, dtype=torch.uint8))


def test_both_detect_the_same_boxes(ours: SSD) -> None:
    theirs = torchvision_ssd(ours)
    with torch.inference_mode():
        found = ours.detect(images())
        expected = theirs.eval()(list(images() / 255))
    assert sum(len(each["scores"]) for each in expected) == len(found.scores) > 50
    for place, each in enumerate(expected):
        own = found.image == place
        torch.testing.assert_close(found.scores[own], each["scores"], atol=1e-5, rtol=1e-4)


def test_both_have_the_same_number_of_operations(ours: SSD) -> None:
    theirs = torchvision_ssd(ours)
    assert count_flops(theirs, images(1) / 255) == count_flops(ours, images(1))


def test_a_light_backbone_is_timms_own_network_with_our_weights() -> None:
    """What is folded, joined and compiled in ours would make theirs faster too."""
    spec = replace(specification().detector, backbone=DEFAULT_LIGHT, weights="pretrained")
    ours = SSD(spec, seed=0).eval()
    with torch.no_grad():  # as after some training
        for parameter in ours.backbone.parameters():
            parameter.mul_(1 + 0.1 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0)))
    theirs = torchvision_ssd(ours).eval()
    assert any(isinstance(module, FoldedConvolution) for module in ours.modules())
    assert not any(isinstance(module, FoldedConvolution) for module in theirs.modules())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in theirs.modules()) == 48
    with torch.inference_mode():
        prepared, _ = theirs.transform(list(images() / 255))  # which normalises
        expected, found = ours.feature_maps(images()), theirs.backbone(prepared.tensors).values()
    largest = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))
    print(f"largest relative difference of a map {largest:.1e}")
    assert largest < 1e-4


@pytest.mark.parametrize("preset", ["coco", "voc"])
def test_both_have_the_same_priors(ours: SSD, preset: str) -> None:
    from torchvision.models.detection.image_list import ImageList  # noqa: PLC0415

    from bench.detector.prior_presets import preset_shapes  # noqa: PLC0415
    from bench.detector.priors import prior_boxes  # noqa: PLC0415

    spec = replace(ours.spec, priors=preset_shapes(preset))
    maps = [torch.zeros(1, 1, side, side) for side in spec.feature_maps]
    (generated,) = prior_generator(spec)(ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)]), maps)
    torch.testing.assert_close(to_corners(prior_boxes(spec)) * 300, generated, atol=1e-3, rtol=0)


def test_fitted_priors_are_refused(ours: SSD) -> None:
    shapes = (((0.123, 0.1),) * 4, *ours.spec.priors[1:])
    with pytest.raises(UserError, match=r"--compare torchvision.*--priors coco"):
        prior_generator(replace(ours.spec, priors=shapes))


def test_vgg16_is_torchvisions_own_network_with_our_weights() -> None:
    spec = replace(specification().detector, backbone="vgg16", extras=VGG_EXTRAS, level_norms=VGG_NORMS)
    own = SSD(spec, seed=0)
    theirs = torchvision_ssd(own)
    assert isinstance(theirs.backbone, SSDFeatureExtractorVGG)
    assert torch.equal(theirs.backbone.extra[0][7][1].weight, own.backbone.features.fc6.weight)
    assert [round(255 * value) for value in theirs.transform.image_mean] == [123, 117, 104]


def test_with_a_neck_torchvisions_contender_runs_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(specification().detector, backbone="vgg16", extras=VGG_EXTRAS, level_norms=VGG_NORMS)
    ours = accelerate(SSD(replace(spec, neck=NeckSpec(kind="fpn", channels=16, levels=3)), seed=0))
    theirs = torchvision_ssd(ours)

    def refused(*_: object, **__: object) -> Tensor:
        raise AssertionError("a kernel")

    monkeypatch.setattr("bench.cpu.winograd.convolve", refused)
    fast_paths.enable(True)
    try:
        theirs.eval()([torch.rand(3, 300, 300)])
        with pytest.raises(AssertionError, match="a kernel"):
            ours.eval().detect(torch.rand(1, 3, 300, 300))
    finally:
        fast_paths.enable(False)


def test_loss_and_boxes_alone_equal_those_of_the_whole_detector(ours: SSD) -> None:
    theirs = torchvision_ssd(ours)
    sources, anchors = list(images() / 255), [to_corners(ours.priors) * 300] * 2
    with torch.no_grad():
        logits, offsets = ours(images())
        outputs = {"cls_logits": logits, "bbox_regression": offsets}
        theirs.train().backbone.eval()  # batch statistics would make other outputs
        whole = theirs(sources, torchvision_targets(TARGETS, 300))
        alone = torchvision_loss(theirs, outputs, anchors, torchvision_targets(TARGETS, 300))
        torch.testing.assert_close(alone, sum(whole.values()), atol=1e-4, rtol=1e-4)
        boxes = torchvision_boxes(theirs, outputs, anchors, 300)
        expected = theirs.eval()(sources)
    assert isinstance(boxes, list)
    for got, wanted in zip(boxes, expected, strict=True):
        torch.testing.assert_close(got["scores"], wanted["scores"], atol=1e-5, rtol=1e-4)


def test_every_contender_does_every_task(ours: SSD) -> None:
    before = [value.clone() for value in ours.parameters()]
    logits, offsets = synthetic_outputs(ours.spec, ours.priors, 2)
    found = measure_comparison(
        ours,
        Work(
            images=images(),
            train_images=images().float(),
            targets=TARGETS,
            outputs=(logits, offsets),
            further=[synthetic_outputs(replace(ours.spec, classes=4), ours.priors, 2)],
        ),
        specification().training,
        numerics=[Numerics(device="cpu", precision="float32", threads=2)],
        batches=(1, 2),
        budget=Budget(seconds=0.0, warmup=0, fewest=2),
    )
    assert len(found["rows"]) == 4 * (len(TASKS) + 2)
    assert {row["classes"] for row in found["rows"] if row["task"] == "post-processing"} == {3, 5}
    rows = {
        (row["task"], row["batch"], row["contender"]): row for row in found["rows"] if row["classes"] == logits.shape[2]
    }
    assert len(rows) == 4 * (len(TASKS) + 1)
    ceiling = {row["precision"]: row["GFLOP_per_second"] for row in found["ceiling"]}
    for (task, batch, _), row in rows.items():
        assert row["samples"] >= 2
        assert row["p25_ms"] <= row["p50_ms"] <= row["p75_ms"]
        shipped = rows[task, batch, "as shipped"]
        assert row["rounds"] == 2
        assert row["times_as_fast_low"] <= row["times_as_fast"] <= row["times_as_fast_high"]
        if row is shipped:
            assert row["times_as_fast_low"] == row["times_as_fast_high"] == 1.0
        if row["GFLOP"] is not None:
            expected = row["GFLOP"] / (row["p50_ms"] / 1000) / ceiling[row["precision"]]
            assert row["share_of_ceiling"] == pytest.approx(expected)
    forward = count_flops(ours, images(1)) / 1e9
    assert rows["training step", 2, "ours"]["GFLOP"] == pytest.approx(6 * forward)
    assert rows["inference", 2, "at its best"]["GFLOP"] == pytest.approx(2 * forward)
    assert rows["post-processing", 2, "ours"]["GFLOP"] is None
    assert all(torch.equal(was, now) for was, now in zip(before, ours.parameters(), strict=True))
