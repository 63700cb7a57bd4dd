"""VOC's AP equals a literal implementation of the devkit's rules, and hand computations."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.data.index import ImageIndex
from bench.data.readers.voc import read_voc
from bench.evaluation.coco import evaluate
from bench.evaluation.detections import Detections
from bench.evaluation.voc import voc_average_precision, with_voc
from tests.evaluation_oracles import detections_at
from tests.index_builders import LabelledBox, index_of

CLASSES = 4


def devkit(index: ImageIndex, detections: Detections, label: int) -> tuple[float, float] | None:
    """11-point and area AP of a class, step by step as in VOCevaldet.m and VOCap.m, with exact fractions for recall."""
    truths = [row for row in range(len(index.boxes)) if index.labels[row] == label]
    positives = sum(not index.difficult[row] for row in truths)
    if positives == 0:
        return None
    image_of_box = index.image_of_box
    found = [row for row in range(len(detections.scores)) if detections.labels[row] == label]
    found.sort(key=lambda row: -float(detections.scores[row]))  # stable
    taken: set[int] = set()
    true, false = 0, 0
    recall, precision = [], []
    for row in found:
        bb = [float(side) for side in detections.boxes[row]]
        most, best = -math.inf, -1
        for truth in truths:
            if image_of_box[truth] != detections.image[row]:
                continue
            gt = [float(side) for side in index.boxes[truth]]
            width = min(bb[2], gt[2]) - max(bb[0], gt[0]) + 1
            height = min(bb[3], gt[3]) - max(bb[1], gt[1]) + 1
            if width > 0 and height > 0:
                union = (bb[2] - bb[0] + 1) * (bb[3] - bb[1] + 1) + (gt[2] - gt[0] + 1) * (gt[3] - gt[1] + 1)
                overlap = width * height / (union - width * height)
                if overlap > most:
                    most, best = overlap, truth
        if most >= 0.5:
            if not index.difficult[best]:
                if best not in taken:
                    true += 1
                    taken.add(best)
                else:
                    false += 1
        else:
            false += 1
        recall.append(Fraction(true, positives))
        precision.append(Fraction(true, max(1, true + false)))
    points = sum(
        max((p for p, r in zip(precision, recall, strict=True) if r >= Fraction(step, 10)), default=Fraction(0))
        for step in range(11)
    )
    mrec = [Fraction(0), *recall, Fraction(1)]
    mpre = [Fraction(0), *precision, Fraction(0)]
    for place in range(len(mpre) - 2, -1, -1):
        mpre[place] = max(mpre[place], mpre[place + 1])
    area = sum((mrec[k] - mrec[k - 1]) * mpre[k] for k in range(1, len(mrec)))
    return float(points / 11), float(area)


def largest_difference(index: ImageIndex, detections: Detections) -> float:
    """Between ours and the reference, over classes and metrics; fails if only one of them is missing."""
    ours = voc_average_precision(index, detections)
    largest = 0.0
    for label in range(len(index.classes)):
        expected = devkit(index, detections, label)
        figures = ours.eleven_points[label], ours.area[label]
        if expected is None:
            assert np.isnan(figures).all()
            continue
        largest = max(largest, *(abs(a - b) for a, b in zip(figures, expected, strict=True)))
    assert largest < 1e-12
    return float(largest)


def crowded_set(rng: np.random.Generator, images: int, per_image: int) -> tuple[ImageIndex, Detections]:
    """Boxes on a coarse grid, so that overlaps and scores tie; the last class has no ground truths, one is empty."""

    def boxes(count: int) -> NDArray[np.float64]:
        corner, side = rng.integers(0, 8, (count, 2)) * 5, rng.integers(2, 7, (count, 2)) * 5
        return np.concatenate((corner, corner + side), axis=1).astype(np.float64)

    counts = rng.integers(0, 8, images)
    labelled: list[list[LabelledBox]] = [
        [(int(rng.integers(0, CLASSES - 1)), x0, y0, x1, y1) for x0, y0, x1, y1 in boxes(count).tolist()]
        for count in counts.tolist()
    ]
    index = index_of(labelled, classes=CLASSES)
    index = replace(index, difficult=rng.random(len(index.boxes)) < 0.3)
    exact = np.repeat(np.arange(len(index.boxes)), 2)
    moved = index.boxes[exact] + rng.integers(-2, 3, (len(exact), 4))
    stray = boxes(images * per_image)
    labels = np.concatenate((index.labels[exact], rng.integers(0, CLASSES, len(stray))))
    order = rng.permutation(len(labels))
    detections = Detections(
        image=np.concatenate((index.image_of_box[exact], np.repeat(np.arange(images), per_image)))[order],
        boxes=np.concatenate((moved, stray)).astype(np.float32)[order],
        scores=(rng.integers(1, 9, len(labels)) / 8).astype(np.float32),
        labels=labels.astype(np.int32)[order],
    )
    return index, detections


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(0, 6), per_image=st.integers(0, 12))
def test_ap_equals_the_devkits_rules(seed: int, images: int, per_image: int) -> None:
    index, detections = crowded_set(np.random.default_rng(seed), images, per_image)
    print(f"largest difference from the devkit's rules: {largest_difference(index, detections)}")


def test_the_random_sets_exercise_every_rule() -> None:
    """Without `difficult`, or with COCO's matching to the best free ground truth, the figures differ."""
    index, detections = crowded_set(np.random.default_rng(0), 6, 12)
    figures = voc_average_precision(index, detections).area[:-1]
    assert index.difficult.any() and np.isfinite(figures).all()
    counted = voc_average_precision(replace(index, difficult=np.zeros_like(index.difficult)), detections).area[:-1]
    assert (counted != figures).all()
    coco = evaluate(index, detections).accuracy["per_class"]
    assert any(abs(coco[name]["AP50"] - figure) > 0.02 for name, figure in zip(index.classes, figures, strict=False))


def test_real_data_score_as_by_the_devkits_rules(shared_data: Path) -> None:
    index = read_voc(shared_data / "bccd").index.take(np.arange(40))
    rng = np.random.default_rng(0)
    index = replace(index, difficult=rng.random(len(index.boxes)) < 0.1)
    sides = np.tile(index.boxes[:, 2:] - index.boxes[:, :2], 2)
    moved = detections_at(index, index.boxes + rng.normal(0, 0.25, sides.shape) * sides, rng.random(len(sides)))
    assert len(index.boxes) > 300
    print(f"largest difference on photographs: {largest_difference(index, moved)}")
    assert 0.05 < np.nanmean(voc_average_precision(index, moved).area) < 0.95
    perfect = voc_average_precision(index, detections_at(index, index.boxes, rng.random(len(sides))))
    for values in (perfect.eleven_points, perfect.area):
        np.testing.assert_allclose(values[~np.isnan(values)], 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_perfect_detector_scores_one_and_an_empty_one_zero(seed: int) -> None:
    index, _ = crowded_set(np.random.default_rng(seed), 6, 0)
    index = replace(index, boxes=index.boxes + np.arange(len(index.boxes))[:, None] * 100)  # none over another
    every = detections_at(index, index.boxes, np.linspace(0, 1, len(index.boxes)))
    none = Detections(image=every.image[:0], boxes=every.boxes[:0], scores=every.scores[:0], labels=every.labels[:0])
    for detections, value in ((every, 1.0), (none, 0.0)):
        found = voc_average_precision(index, detections)
        for values in (found.eleven_points, found.area):
            np.testing.assert_allclose(values[: CLASSES - 1], value, rtol=0, atol=1e-12)
            assert np.isnan(values[CLASSES - 1])


def test_shifted_boxes_have_the_iou_of_inclusive_pixels() -> None:
    """Side 29 is 30 pixels: shifted by s the IoU is (30 - s) / (30 + s), which is .5 at s = 10 (edges: at 9.67)."""
    count = 20
    index = index_of([[(0, 0.0, 0.0, 29.0, 29.0)]] * count, classes=1)
    shifts = np.arange(count)
    boxes = index.boxes + shifts[:, None] * np.array([1, 0, 1, 0])
    found = voc_average_precision(index, detections_at(index, boxes, 1 - shifts / count))
    # 11 of 20 are right and come first: recall .55 at precision 1.
    assert found.area[0] == pytest.approx(11 / 20, abs=1e-12)
    assert found.eleven_points[0] == pytest.approx(6 / 11, abs=1e-12)


def test_ap_of_a_curve_computed_by_hand() -> None:
    index = index_of([[(0, 10, 10, 40, 40), (0, 60, 10, 90, 40), (0, 10, 45, 40, 75)]], classes=1)
    index = replace(index, difficult=np.array([False, False, True]))
    boxes = [index.boxes[0], index.boxes[2], index.boxes[2], index.boxes[0], index.boxes[1]]
    detections = Detections(
        image=np.zeros(5, dtype=np.int64),
        boxes=np.array(boxes, dtype=np.float32),
        scores=np.array([0.9, 0.8, 0.7, 0.6, 0.5], dtype=np.float32),
        labels=np.zeros(5, dtype=np.int32),
    )
    # Right; twice on the difficult one, ignored; wrong, since taken; right. Precision 1 at recall 1/2, 2/3 at 1.
    found = voc_average_precision(index, detections)
    assert found.area[0] == pytest.approx((1 + 2 / 3) / 2, abs=1e-12)
    assert found.eleven_points[0] == pytest.approx((6 + 5 * 2 / 3) / 11, abs=1e-12)


def test_recalls_are_reached_without_rounding_errors() -> None:
    """3 of 10 is a recall of .3, even if 3 * 0.1 is not in binary."""
    index = index_of([[(0, 0.0, 0.0, 29.0, 29.0)]] * 10, classes=1)
    first = detections_at(index, index.boxes, np.ones(10))
    three = Detections(image=first.image[:3], boxes=first.boxes[:3], scores=first.scores[:3], labels=first.labels[:3])
    assert voc_average_precision(index, three).eleven_points[0] == pytest.approx(4 / 11, abs=1e-12)


def test_crowds_are_treated_as_difficult() -> None:
    rng = np.random.default_rng(4)
    index, detections = crowded_set(rng, 6, 6)
    crowds = replace(index, crowd=index.difficult, difficult=np.zeros_like(index.difficult))
    expected, found = (voc_average_precision(one, detections) for one in (index, crowds))
    np.testing.assert_array_equal(found.area, expected.area)
    np.testing.assert_array_equal(found.eleven_points, expected.eleven_points)


def test_the_record_averages_over_existing_classes() -> None:
    index, detections = crowded_set(np.random.default_rng(1), 6, 6)
    coco = evaluate(index, detections).accuracy
    accuracy = with_voc(coco, index, detections)
    found = voc_average_precision(index, detections)
    for name, values in (("voc_AP_11point", found.eleven_points), ("voc_AP_area", found.area)):
        assert accuracy[name] == pytest.approx(values[: CLASSES - 1].mean(), abs=1e-12)
        assert [accuracy["per_class"][one][name] for one in index.classes] == [*values[: CLASSES - 1].tolist(), None]
    assert {name: accuracy[name] for name in coco if name != "per_class"} == {
        name: value for name, value in coco.items() if name != "per_class"
    }
    json.dumps(accuracy, allow_nan=False)
    empty = index_of([[]], classes=2)
    nothing = Detections(
        image=detections.image[:0],
        boxes=detections.boxes[:0],
        scores=detections.scores[:0],
        labels=detections.labels[:0],
    )
    without = with_voc(evaluate(empty, nothing).accuracy, empty, nothing)
    assert without["voc_AP_11point"] is without["voc_AP_area"] is None


def test_detections_of_unknown_images_or_classes_are_rejected() -> None:
    index, detections = crowded_set(np.random.default_rng(1), 3, 3)
    with pytest.raises(ValueError, match="image rows"):
        voc_average_precision(index.take(np.arange(1)), detections)
