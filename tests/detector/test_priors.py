"""Prior boxes: number, places, shapes and order."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from bench.detector.boxes import to_corners
from bench.detector.neck import NECKS
from bench.detector.prior_presets import PRESETS, RATIOS, preset_shapes
from bench.detector.priors import prior_boxes
from bench.detector.ssd import SSD
from bench.spec import DetectorSpec, NeckSpec, Shape
from tests import tiny
from variants.baseline import LIGHT_EXTRAS

SIDES = (38, 19, 10, 5, 3, 1)
COUNTS = [4, 6, 6, 6, 4, 4]
STEPS = [8, 16, 32, 64, 100, 300]
CAFFE_SMALLEST, CAFFE_LARGEST = (30, 60, 111, 162, 213, 264), (60, 111, 162, 213, 264, 315)


def detector(priors: tuple[tuple[Shape, ...], ...]) -> DetectorSpec:
    return DetectorSpec(classes=2, backbone="none is built", weights="none", extras=LIGHT_EXTRAS, priors=priors)


@pytest.mark.parametrize("preset", PRESETS)
def test_there_are_8732_priors_in_float32(preset: str) -> None:
    shapes = preset_shapes(preset)
    boxes = prior_boxes(detector(shapes))
    assert [len(level) for level in shapes] == COUNTS
    assert boxes.shape == (8732, 4)
    assert boxes.dtype == torch.float32
    assert sum(side * side * count for side, count in zip(SIDES, COUNTS, strict=True)) == 8732


def test_coco_preset_equals_torchvisions_generator() -> None:
    generator = DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=STEPS,
        clip=True,
    )
    images = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    corners = generator(images, [torch.zeros(1, 1, side, side) for side in SIDES])[0] / 300
    theirs = torch.cat(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), dim=1)
    largest = float((prior_boxes(detector(preset_shapes("coco"))) - theirs).abs().max())
    print(f"coco: largest difference from torchvision's generator {largest:.1e} of the image")
    assert largest <= 1e-6


def test_the_presets_of_512_have_caffes_sides() -> None:
    """Of the first square of each level, in pixels: `ssd_pascal_512.py` and its twin for COCO."""
    for name, sides in (
        ("voc", [35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8]),
        ("coco", [20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8]),
    ):
        shapes = preset_shapes(name, size=512)
        assert [512 * level[0][0] for level in shapes] == pytest.approx(sides)
        assert [len(level) for level in shapes] == [4, 6, 6, 6, 6, 4, 4]


def test_unclipped_coco_preset_equals_torchvisions_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    scales, _ = PRESETS["coco"]
    monkeypatch.setitem(PRESETS, "coco", (scales, False))
    generator = DefaultBoxGenerator([list(level) for level in RATIOS], scales=list(scales), steps=STEPS, clip=False)
    images = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    corners = generator(images, [torch.zeros(1, 1, side, side) for side in SIDES])[0] / 300
    ours = to_corners(prior_boxes(detector(preset_shapes("coco"))))
    largest = float((ours - corners).abs().max())
    print(f"coco unclipped: largest difference from torchvision's generator {largest:.1e} of the image")
    assert largest <= 1e-6


def test_voc_preset_equals_caffes_prior_box_layer() -> None:
    """ssd_pascal.py: min_ratio 20, max_ratio 90, 10% for conv4_3; prior_box_layer.cpp: by row, column, shape."""
    expected: list[tuple[float, ...]] = []
    for level, side in enumerate(SIDES):
        small, large = CAFFE_SMALLEST[level], CAFFE_LARGEST[level]
        shapes = [(small, small), (math.sqrt(small * large),) * 2]
        for ratio in RATIOS[level]:
            for flipped in (ratio, 1 / ratio):
                shapes.append((small * math.sqrt(flipped), small / math.sqrt(flipped)))
        for row in range(side):
            for column in range(side):
                centre = ((column + 0.5) * STEPS[level], (row + 0.5) * STEPS[level])
                expected += [(*centre, *shape) for shape in shapes]
    assert len(expected) == 8732
    ours = prior_boxes(detector(preset_shapes("voc"))).double()
    largest = float((ours - torch.tensor(expected, dtype=torch.float64) / 300).abs().max())
    print(f"voc: largest difference from Caffe's formulas {largest:.1e} of the image")
    assert largest <= 1e-6


@pytest.mark.parametrize("kind", [None, *NECKS])
@pytest.mark.parametrize("preset", PRESETS)
def test_priors_are_float32_in_every_precision_and_with_every_neck(preset: str, kind: str | None) -> None:
    neck = None if kind is None else NeckSpec(kind=kind, channels=16, levels=3)
    spec = replace(tiny.specification().detector, priors=preset_shapes(preset), neck=neck)
    model = SSD(spec, seed=0).eval()
    expected = prior_boxes(spec)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits, _ = model(torch.zeros(1, 3, 300, 300, dtype=torch.uint8))
        found = model.detect(torch.zeros(1, 3, 300, 300, dtype=torch.uint8))
    assert torch.equal(logits, logits.bfloat16().float())  # the network did compute in bfloat16
    assert found.boxes.dtype == torch.float32
    assert model.priors.dtype == torch.float32
    assert torch.equal(model.priors, expected)


def test_sides_beyond_the_image_are_clipped_only_in_the_coco_preset() -> None:
    # 264 * sqrt(2) exceeds the image: Caffe's SSD-300 keeps it, torchvision clips it
    assert max(max(shape) for shape in preset_shapes("voc")[-1]) > 1.2
    assert max(max(shape) for shape in preset_shapes("coco")[-1]) == 1.0


def test_order_is_level_row_column_shape() -> None:
    shapes = preset_shapes("coco")
    boxes = prior_boxes(detector(shapes))
    # Level 0, row 3, column 5, shape 2
    expected = [5.5 * 8 / 300, 3.5 * 8 / 300, *shapes[0][2]]
    assert boxes[(3 * 38 + 5) * 4 + 2].tolist() == pytest.approx(expected, abs=1e-7)
    # Level 1 starts after 38 * 38 * 4; row 0, column 1, shape 0
    assert boxes[38 * 38 * 4 + 6].tolist() == pytest.approx([24 / 300, 8 / 300, *shapes[1][0]], abs=1e-7)
    assert boxes[-1].tolist() == pytest.approx([0.5, 0.5, *shapes[5][3]], abs=1e-7)
