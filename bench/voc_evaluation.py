"""AP as Pascal VOC's devkit counts it: another number than COCO's, with another matching.

A detection belongs to the ground truth of its image and class that it overlaps most, whether or not that
one is taken; the first of a ground truth is right, later ones are wrong, and those of a `difficult` one
are neither (VOCevaldet.m). Overlap counts pixels inclusively, as the devkit does, on coordinates as written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import ImageIndex
from bench.evaluation import Detections

THRESHOLD = 0.5
RECALLS = np.arange(11) / 10  # of VOC2007's AP

Floats = NDArray[np.float64]


def evaluate_voc(index: ImageIndex, detections: Detections) -> dict[str, Any]:
    """{"AP_11point", "AP_area", "per_class": {name: {both, "ground_truths"}}}, at an IoU of .5, fractions of 1.

    AP_11point is VOC2007's (precision at recalls 0, .1, ..., 1), AP_area that of VOC2010 and later. Means
    over the classes that have a ground truth which counts; None where there is none. Crowds are taken as
    difficult. All detections count, not the 100 best of an image and class.
    """
    ignored = index.difficult | index.crowd
    order = np.lexsort((-detections.scores, detections.labels))
    truth = _nearest_truths(index, detections)[order]
    label = detections.labels[order]
    counted = ~np.append(ignored, False)[truth]  # -1, no ground truth, reads the appended one
    right = np.zeros(len(order), dtype=bool)
    found = np.flatnonzero((truth >= 0) & counted)
    _, first = np.unique(truth[found], return_index=True)
    right[found[first]] = True

    right, label = right[counted], label[counted]
    classes = len(index.classes)
    positives = np.bincount(index.labels[~ignored], minlength=classes)
    starts = np.searchsorted(label, np.arange(classes + 1))
    per_class: dict[str, dict[str, Any]] = {}
    for name, count, start, end in zip(index.classes, positives.tolist(), starts[:-1], starts[1:], strict=True):
        hits = np.cumsum(right[start:end])
        recall, precision = hits / max(count, 1), hits / np.arange(1, end - start + 1)
        per_class[name] = {
            "AP_11point": eleven_point(recall, precision) if count else None,
            "AP_area": area(recall, precision) if count else None,
            "ground_truths": count,
        }
    means = {
        kind: float(np.mean([each[kind] for each in per_class.values() if each[kind] is not None]))
        if positives.any()
        else None
        for kind in ("AP_11point", "AP_area")
    }
    return {**means, "per_class": per_class}


def eleven_point(recall: Floats, precision: Floats) -> float:
    """Mean over eleven recalls of the best precision at that recall or beyond; of a curve by falling score."""
    if not len(recall):
        return 0.0
    beyond = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(beyond[np.searchsorted(recall, RECALLS)].mean())


def area(recall: Floats, precision: Floats) -> float:
    """Area under the curve whose precision never rises with recall."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def _nearest_truths(index: ImageIndex, detections: Detections) -> NDArray[np.int64]:
    """(D,) row of the ground truth that each detection overlaps most, the first of equals; -1 below the threshold."""
    classes = len(index.classes)
    group = index.image_of_box * classes + index.labels
    by_group = np.argsort(group, kind="stable")
    own = detections.image * classes + detections.labels
    starts = np.searchsorted(group[by_group], own, side="left")
    counts = np.searchsorted(group[by_group], own, side="right") - starts
    some = np.flatnonzero(counts)
    nearest = np.full(len(own), -1, dtype=np.int64)
    if not len(some):
        return nearest
    # All pairs of a detection with the ground truths of its image and class, one after the other
    begins = np.concatenate(([0], np.cumsum(counts[some])[:-1]))
    pairs = np.arange(counts[some].sum()) - np.repeat(begins - starts[some], counts[some])
    truth = by_group[pairs]
    overlap = inclusive_overlaps(detections.boxes[np.repeat(some, counts[some])].astype(np.float64), index.boxes[truth])
    best = np.maximum.reduceat(overlap, begins)
    at_best = np.flatnonzero(overlap == np.repeat(best, counts[some]))
    first = at_best[np.searchsorted(at_best, begins)]
    nearest[some] = np.where(best >= THRESHOLD, truth[first], -1)
    return nearest


def inclusive_overlaps(first: Floats, second: Floats) -> Floats:
    """(N,) IoU of boxes (N, 4) and (N, 4), xyxy, whose last pixel belongs to them: sides are one longer."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = np.clip(high - low + 1, 0, None).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared)
