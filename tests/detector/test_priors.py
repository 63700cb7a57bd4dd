"""Prior boxes: number, places, shapes and order; and the file of shapes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from bench.detector.boxes import to_corners
from bench.detector.priors import (
    PRESETS,
    RATIOS,
    describe_shape,
    preset_shapes,
    prior_boxes,
    read_shapes,
    write_priors,
    write_shapes,
)
from bench.detector.ssd import SSD
from bench.errors import UserError
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
    print(f"coco: largest difference to torchvision's generator {largest:.1e} of the image")
    assert largest <= 1e-6


def test_unclipped_coco_preset_equals_torchvisions_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    scales, _ = PRESETS["coco"]
    monkeypatch.setitem(PRESETS, "coco", (scales, False))
    generator = DefaultBoxGenerator([list(level) for level in RATIOS], scales=list(scales), steps=STEPS, clip=False)
    images = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    corners = generator(images, [torch.zeros(1, 1, side, side) for side in SIDES])[0] / 300
    ours = to_corners(prior_boxes(detector(preset_shapes("coco"))))
    largest = float((ours - corners).abs().max())
    print(f"coco unclipped: largest difference to torchvision's generator {largest:.1e} of the image")
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
    print(f"voc: largest difference to Caffe's formulas {largest:.1e} of the image")
    assert largest <= 1e-6


@pytest.mark.parametrize("kind", [None, "fpn", "lateral-only"])
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


SHAPES = st.tuples(*(st.tuples(*[st.tuples(*[st.floats(1e-6, 4)] * 2)] * count) for count in COUNTS))


@settings(max_examples=60)
@given(shapes=SHAPES, size=st.sampled_from([300, 512, 7]))
def test_shapes_are_restored_exactly_from_a_file(
    shapes: tuple[tuple[Shape, ...], ...], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("priors") / "priors.json"
    write_shapes(path, shapes, size=size)
    assert read_shapes(path) == shapes  # equality of tuples of floats: every bit
    first = json.loads(path.read_text())["levels"][0][0]
    assert first["width"] == pytest.approx(shapes[0][0][0] * size, abs=1e-6)


def test_edited_pixels_count(tmp_path: Path) -> None:
    path = tmp_path / "priors.json"
    write_shapes(path, preset_shapes("coco"), size=300)
    content = json.loads(path.read_text())
    content["levels"][1][2]["width"] = 99
    del content["levels"][1][3]["fractions"]
    path.write_text(json.dumps(content))
    back = read_shapes(path)
    assert back[1][2] == (99 / 300, content["levels"][1][2]["height"] / 300)
    assert back[1][3] == pytest.approx(preset_shapes("coco")[1][3], abs=1e-8)
    assert [back[0], *back[2:]] == [preset_shapes("coco")[0], *preset_shapes("coco")[2:]]


def test_a_shape_is_described_by_scale_and_ratio() -> None:
    found = describe_shape((0.3, 0.1), 300)
    assert (found["width"], found["height"], found["fractions"]) == (90, 30, [0.3, 0.1])
    assert (found["scale"], found["ratio"]) == (51.96, 3.0)  # sqrt(90 * 30), 90 / 30
    assert found["nearest"] == {"scale": 0.15, "ratio": "3:1"}
    assert describe_shape((0.05, 0.055), 300)["nearest"] == {"scale": 0.07, "ratio": "1:1"}
    assert describe_shape((0.1, 0.5), 300)["nearest"]["ratio"] == "1:3"
    # The shapes of a preset are nearest to the ratios that define them
    for level, shapes in enumerate(preset_shapes("voc")[:5]):
        names = [describe_shape(shape, 300)["nearest"]["ratio"] for shape in shapes]
        assert names == ["1:1", "1:1", "2:1", "1:2", "3:1", "1:3"][: COUNTS[level]]


def test_a_detectors_file_has_recall_and_shares(tmp_path: Path) -> None:
    spec = detector(preset_shapes("coco"))
    boxes = {
        "train": np.array([[0.4, 0.4, 0.47, 0.47], [0.1, 0.1, 0.9, 0.9], [0.5, 0.5, 0.51, 0.51]]),
        "val": np.zeros((0, 4)),
    }
    path = tmp_path / "cell" / "priors.json"
    write_priors(path, spec, boxes)
    assert read_shapes(path) == spec.priors
    content = json.loads(path.read_text())
    assert content["recall"]["val"] == {"boxes": 0}
    assert content["recall"]["train"]["boxes"] == 3
    assert content["recall"]["train"]["matched"] == pytest.approx(2 / 3)
    shares = [[shape["share"]["train"] for shape in level] for level in content["levels"]]
    assert sum(share["best"] for level in shares for share in level) == pytest.approx(2 / 3)
    assert shares[0][0]["best"] == pytest.approx(1 / 3)  # 21 pixels: the smallest square
    assert all(set(shape["share"]) == {"train"} for level in content["levels"] for shape in level)


def good_content() -> dict[str, Any]:
    return {"size": 300, "levels": [[{"width": 20, "height": 30}] * count for count in COUNTS]}


def changed(**change: Any) -> dict[str, Any]:
    return {**good_content(), **change}


def with_width(value: Any) -> dict[str, Any]:
    content = good_content()
    content["levels"][3] = [{"width": value, "height": 30}, *content["levels"][3][1:]]
    return content


def with_fractions(value: Any) -> dict[str, Any]:
    content = good_content()
    content["levels"][0] = [{"width": 20, "height": 30, "fractions": value}, *content["levels"][0][1:]]
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "not a file of priors"),
        ("[1, 2]", "not a file of priors"),
        ("3", "not a file of priors"),
        (json.dumps({"size": 300}), "not a file of priors.*levels"),
        (json.dumps(changed(size=0)), "not a file of priors"),
        (json.dumps(changed(levels=3)), "not a file of priors"),
        (json.dumps(changed(levels="abc")), "not a file of priors"),
        (json.dumps(changed(levels=good_content()["levels"][:5])), r"\[4, 6, 6, 6, 4\] shapes.*\[4, 6, 6, 6, 4, 4\]"),
        (json.dumps(changed(levels=good_content()["levels"][::-1])), "needs"),
        (json.dumps(with_width(0)), "positive"),
        (json.dumps(with_width(-5)), "positive"),
        (json.dumps(with_width(float("nan"))), "positive"),
        (json.dumps(with_width(float("inf"))), "positive"),
        (json.dumps(with_width(None)), "not a file of priors"),
        (json.dumps(with_fractions("ab")), "not a file of priors"),
        (json.dumps(with_fractions([0.1])), "not a file of priors"),
        ("10" * 300, "not a file of priors"),
        (json.dumps(with_width(10**400)), "not a file of priors"),
    ],
)
def test_a_malformed_file_is_an_error(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as raised:
        read_shapes(path)
    assert str(path) in str(raised.value)


def test_a_missing_or_binary_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file.*coco, voc"):
        read_shapes(tmp_path / "missing.json")
    with pytest.raises(UserError, match="not a file of priors"):
        read_shapes(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="not a file of priors"):
        read_shapes(tmp_path / "binary")
