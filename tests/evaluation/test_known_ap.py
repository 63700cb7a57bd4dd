"""AP with a known value: perfect, empty and shifted detectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.data.index import ImageIndex
from bench.evaluation.coco import evaluate
from bench.evaluation.detections import Detections
from tests.evaluation_oracles import detections_at, index_of, random_index

THRESHOLDS = np.linspace(0.5, 0.95, 10)
SIDE = 60.0


def apart(index: ImageIndex) -> ImageIndex:
    """Boxes rounded to quarters, which float32 represents exactly, without overlaps."""
    boxes = np.round(index.boxes * 4) / 4 + np.arange(len(index.boxes))[:, None] * 2048
    return replace(index, boxes=boxes, crowd=np.zeros(len(boxes), dtype=bool))


@pytest.mark.parametrize("seed", range(5))
def test_a_perfect_detector_scores_one_and_an_empty_one_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = apart(random_index(rng))
    perfect = detections_at(index, index.boxes, rng.random(len(index.boxes)))
    none = Detections(
        image=perfect.image[:0], boxes=perfect.boxes[:0], scores=perfect.scores[:0], labels=perfect.labels[:0]
    )
    differences = []
    for detections, expected in ((perfect, 1.0), (none, 0.0)):
        accuracy = evaluate(index, detections).accuracy
        names = [name for name in accuracy if name.startswith("AP") and isinstance(accuracy[name], float)]
        assert {"AP", "AP50", "AP75"} <= set(names)
        figures = [accuracy[name] for name in names]
        for name, own in accuracy["per_class"].items():
            present = index.classes.index(name) in index.labels
            assert (own["AP"] is not None) == present, name
            figures += [own["AP"], own["AP50"]] if present else []
        differences.append(max(abs(value - expected) for value in figures))
    print(f"largest difference from 1 and from 0: {max(differences)}")
    assert max(differences) < 1e-12


@pytest.mark.parametrize("shift", [0, 2, 5, 10, 15, 20, 22])
def test_shifted_boxes_have_the_ap_of_their_iou(shift: int) -> None:
    """A square of side s moved by d has an IoU of (s - d) / (s + d): correct at all thresholds up to that."""
    index = index_of([[(0, 50.0, 50.0, 50 + SIDE, 50 + SIDE)]] * 12, classes=1)
    moved = index.boxes + np.array([shift, 0, shift, 0])
    accuracy = evaluate(index, detections_at(index, moved, np.linspace(1, 0.1, 12))).accuracy
    iou = (SIDE - shift) / (SIDE + shift)
    expected = float((iou >= THRESHOLDS).mean())
    print(f"IoU {iou:.3f}: AP {accuracy['AP']}, by the closed form {expected}")
    assert accuracy["AP"] == pytest.approx(expected, abs=1e-12)
    assert accuracy["AP50"] == float(iou >= 0.5)
    assert accuracy["AP75"] == float(iou >= 0.75)


def test_graded_shifts_have_the_ap_of_their_recalls() -> None:
    """The n-th best of 37 is moved by n / 2 pixels: at a threshold the first k are right, all before the wrong ones.

    So precision is 1 up to the recall of k / 37, and of the 101 recalls of COCO floor(100 k / 37) + 1 are reached.
    """
    count = 37  # a prime: no recall lies on one of the 101, where the last bit would decide
    index = index_of([[(0, 50.0, 50.0, 50 + SIDE, 50 + SIDE)]] * count, classes=1)
    shifts = np.arange(count) / 2
    moved = index.boxes + shifts[:, None] * np.array([1, 0, 1, 0])
    accuracy = evaluate(index, detections_at(index, moved, 1 - shifts / 100)).accuracy
    iou = (SIDE - shifts) / (SIDE + shifts)
    right = (iou[:, None] >= THRESHOLDS).sum(axis=0)
    expected = np.where(right > 0, (100 * right) // count + 1, 0) / 101
    difference = abs(accuracy["AP"] - expected.mean())
    print(f"AP {accuracy['AP']:.6f}, largest difference from the closed form {difference:.1e}")
    assert difference < 1e-12
    assert accuracy["AP50"] == pytest.approx(expected[0], abs=1e-12)
    assert 0.2 < accuracy["AP"] < 0.8
