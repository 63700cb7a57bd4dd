"""VOC's AP equals a slow reference written from the devkit's rules, `difficult` and ties included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.index import ImageIndex
from bench.evaluation import Detections
from bench.voc_evaluation import evaluate_voc
from tests.made_index import index_of


def detections_of(*found: tuple[int, int, float, float, float, float, float]) -> Detections:
    """From (image, label, score, x1, y1, x2, y2)."""
    table = np.array(found, dtype=np.float64).reshape(-1, 7)
    return Detections(
        image=table[:, 0].astype(np.int64),
        boxes=table[:, 3:].astype(np.float32),
        scores=table[:, 2].astype(np.float32),
        labels=table[:, 1].astype(np.int32),
    )


def reference(index: ImageIndex, found: Detections, label: int) -> tuple[float, float] | None:
    """VOCevaldet.m and VOCap.m for one class, line by line: AP at eleven points, and by area."""
    truths: dict[int, list[dict[str, object]]] = {}
    positives = 0
    for row, image in enumerate(index.image_of_box.tolist()):
        if index.labels[row] == label:
            difficult = bool(index.difficult[row])
            truths.setdefault(image, []).append({"box": index.boxes[row], "difficult": difficult, "detected": False})
            positives += not difficult
    if not positives:
        return None
    rows = [row for row in range(len(found.scores)) if found.labels[row] == label]
    rows.sort(key=lambda row: -found.scores[row])
    right, wrong = [], []
    for row in rows:
        box, best, nearest = found.boxes[row].astype(np.float64), -np.inf, None
        for truth in truths.get(int(found.image[row]), []):
            other = truth["box"]
            assert isinstance(other, np.ndarray)
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            overlap = 0.0
            if width > 0 and height > 0:
                union = (
                    (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                    + (other[2] - other[0] + 1) * (other[3] - other[1] + 1)
                    - width * height
                )
                overlap = width * height / union
            if overlap > best:
                best, nearest = overlap, truth
        hit = False
        if nearest is not None and best >= 0.5:
            if nearest["difficult"]:
                right.append(0)
                wrong.append(0)
                continue
            hit = not nearest["detected"]
            nearest["detected"] = True
        right.append(int(hit))
        wrong.append(int(not hit))
    recall = np.cumsum(right) / positives
    precision = np.cumsum(right) / np.maximum(np.cumsum(right) + np.cumsum(wrong), 1e-300)
    points = [max([p for r, p in zip(recall, precision, strict=True) if r >= t / 10], default=0.0) for t in range(11)]
    recalls, envelope = np.array([0, *recall, 1]), np.array([0, *precision, 0])
    for place in range(len(envelope) - 2, -1, -1):
        envelope[place] = max(envelope[place], envelope[place + 1])
    steps = np.flatnonzero(recalls[1:] != recalls[:-1]) + 1
    return sum(points) / 11, float(((recalls[steps] - recalls[steps - 1]) * envelope[steps]).sum())


def random_case(seed: int) -> tuple[ImageIndex, Detections]:
    """Six images, three classes; ties of scores, difficult objects, boxes near the threshold, an absent class."""
    generator = np.random.default_rng(seed)
    boxes_of = []
    for _ in range(6):
        low = generator.integers(0, 60, size=(generator.integers(0, 6), 2))
        side = generator.integers(3, 35, size=low.shape)
        labels = generator.integers(0, 2, size=len(low))
        corners = np.concatenate((low, low + side), axis=1).astype(float).tolist()
        boxes_of.append([(label, a, b, c, d) for label, (a, b, c, d) in zip(labels.tolist(), corners, strict=True)])
    index = index_of(boxes_of, classes=3)
    index = replace(index, difficult=generator.random(len(index.boxes)) < 0.2)
    found = []
    for row, image in enumerate(index.image_of_box.tolist()):
        for _ in range(generator.integers(0, 4)):
            box = index.boxes[row] + generator.integers(-4, 5, size=4)
            label = int(index.labels[row]) if generator.random() < 0.8 else int(generator.integers(3))
            found.append((image, label, float(generator.integers(1, 6)) / 5, *box.tolist()))
    return index, detections_of(*found)


def test_it_equals_the_devkit_on_random_sets() -> None:
    largest = 0.0
    for seed in range(200):
        index, found = random_case(seed)
        ours = evaluate_voc(index, found)
        expected = {name: reference(index, found, label) for label, name in enumerate(index.classes)}
        for name, pair in expected.items():
            each = ours["per_class"][name]
            assert (pair is None) == (each["AP_11point"] is None) == (each["AP_area"] is None)
            if pair is not None:
                largest = max(largest, abs(each["AP_11point"] - pair[0]), abs(each["AP_area"] - pair[1]))
        existing = [pair for pair in expected.values() if pair is not None]
        if existing:
            assert ours["AP_11point"] == pytest.approx(np.mean([pair[0] for pair in existing]), abs=1e-12)
    print(f"largest difference to the devkit's rules: {largest:.2e}")
    assert largest < 1e-12


INDEX = index_of([[(0, 10, 10, 30, 30), (1, 40, 40, 60, 70)], [(0, 5, 5, 25, 45)], []])


def test_a_perfect_detector_has_one_and_an_empty_one_zero() -> None:
    perfect = detections_of((0, 0, 0.9, 10, 10, 30, 30), (0, 1, 0.8, 40, 40, 60, 70), (1, 0, 0.7, 5, 5, 25, 45))
    found = evaluate_voc(INDEX, perfect)
    assert found["AP_11point"] == found["AP_area"] == 1
    nothing = evaluate_voc(INDEX, detections_of())
    assert nothing["AP_11point"] == nothing["AP_area"] == 0


def test_without_ground_truth_there_is_no_figure() -> None:
    found = evaluate_voc(index_of([[], []]), detections_of((0, 0, 0.5, 1, 1, 9, 9)))
    assert found["AP_11point"] is None
    assert found["per_class"]["class 0"] == {"AP_11point": None, "AP_area": None, "ground_truths": 0}


@given(shift=st.integers(0, 20))
@settings(deadline=None, max_examples=21)
def test_shifted_boxes_count_while_half_is_shared(shift: int) -> None:
    """Boxes of 21 inclusive pixels moved sideways: shared (21 - d) of 21 + d columns, so .5 is at d = 7."""
    index = index_of([[(0, 10, 10, 30, 30)]])
    found = evaluate_voc(index, detections_of((0, 0, 0.5, 10 + shift, 10, 30 + shift, 30)))
    assert found["AP_area"] == (1.0 if (21 - shift) / (21 + shift) >= 0.5 else 0.0)


def test_a_second_detection_of_the_same_object_is_wrong_even_if_another_is_free() -> None:
    """COCO would give it the free one; the devkit asks for the nearest alone."""
    index = index_of([[(0, 0, 0, 20, 20), (0, 4, 0, 24, 20)]])
    twice = detections_of((0, 0, 0.9, 0, 0, 20, 20), (0, 0, 0.8, 1, 0, 21, 20))
    assert evaluate_voc(index, twice)["AP_area"] == 0.5


def test_a_difficult_object_is_neither_right_nor_wrong() -> None:
    index = replace(INDEX, difficult=np.array([True, False, False]))
    found = evaluate_voc(index, detections_of((0, 0, 0.9, 10, 10, 30, 30), (1, 0, 0.5, 5, 5, 25, 45)))
    assert found["per_class"]["class 0"] == {"AP_11point": 1.0, "AP_area": 1.0, "ground_truths": 1}
