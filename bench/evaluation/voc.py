"""AP by the rules of the Pascal VOC devkit, for comparison with papers on VOC; it differs from COCO's AP.

Source: VOCdevkit, VOCevaldet.m and VOCap.m (2007: 11 points; from 2010: area). Unlike COCO, it has a single IoU
threshold, counts all detections instead of the 100 best, and compares each detection only with the ground truth that it
overlaps most, whether already matched or not: a second detection of an object is wrong even if another object is near.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.index import ImageIndex
from bench.evaluation.coco import Accuracy
from bench.evaluation.detections import Detections, check_rows

MIN_IOU = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class VocPrecision:
    """AP of each class, fraction of 1; NaN for a class without ground truths that count.

    eleven_points: (C,) mean of the highest precision at recalls of at least 0, .1, ..., 1 (VOC 2007).
    area: (C,) area under the curve of the highest precision at each recall or more (from VOC 2010).
    """

    eleven_points: NDArray[np.float64]
    area: NDArray[np.float64]


def with_voc(accuracy: Accuracy, index: ImageIndex, detections: Detections) -> Accuracy:
    """Add voc_AP_11point and voc_AP_area to `accuracy` from `evaluate`: the class means, and in per_class each value.

    None without ground truth.
    """
    precision = voc_average_precision(index, detections)
    measures = {"voc_AP_11point": precision.eleven_points, "voc_AP_area": precision.area}
    per_class = {
        name: accuracy["per_class"][name] | {measure: _mean(values[[label]]) for measure, values in measures.items()}
        for label, name in enumerate(index.classes)
    }
    return accuracy | {measure: _mean(values) for measure, values in measures.items()} | {"per_class": per_class}


def voc_average_precision(index: ImageIndex, detections: Detections) -> VocPrecision:
    """Score detections against the boxes of `index` as the devkit does, at IoU .5.

    In each class, by descending score (ties in the order of `detections`): a detection is correct if the ground truth
    that it overlaps most has an IoU of at least .5 and is not matched yet, ignored if that ground truth is difficult,
    and wrong otherwise. Crowds, which VOC does not have, are treated as difficult.

    The IoU is the devkit's: coordinates are pixel indices, including the last pixel, so widths are x2 - x1 + 1. This is
    right for VOC's files, whose coordinates the index keeps as written. In data whose coordinates are edges, every box
    becomes a pixel larger, but the metric stays the same for all data.
    Raises ValueError if detections have images or classes that are not in `index`.
    """
    check_rows(index, detections)
    order = np.lexsort((-detections.scores, detections.labels))  # stable
    best, overlap = _best_truths(index, detections)
    best, overlapping = best[order], overlap[order] >= MIN_IOU
    difficult = index.crowd | index.difficult
    ignored = np.zeros(len(order), dtype=np.bool_)
    ignored[overlapping] = difficult[best[overlapping]]
    candidates = np.flatnonzero(overlapping & ~ignored)
    right = np.zeros(len(order), dtype=np.bool_)
    right[candidates[np.unique(best[candidates], return_index=True)[1]]] = True  # the first for each ground truth

    classes = len(index.classes)
    starts = np.searchsorted(detections.labels[order], np.arange(classes + 1))
    positives = np.bincount(index.labels[~difficult], minlength=classes)
    precision = np.full((2, classes), np.nan)
    for label in np.flatnonzero(positives).tolist():
        curve = slice(starts[label], starts[label + 1])
        precision[:, label] = _class_precision(right[curve], ~ignored[curve], int(positives[label]))
    return VocPrecision(eleven_points=precision[0], area=precision[1])


def _best_truths(index: ImageIndex, detections: Detections) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(D,) row of the ground truth of its image and class that each detection overlaps most, and (D,) the IoU.

    The first one of equals; IoU 0 if there is none.
    """
    classes = len(index.classes)
    truth_group = index.image_of_box * classes + index.labels
    by_group = np.argsort(truth_group, kind="stable")
    group = detections.image * classes + detections.labels
    first, end = (np.searchsorted(truth_group[by_group], group, side=side) for side in ("left", "right"))
    having = np.flatnonzero(end > first)
    counts = (end - first)[having]
    starts = np.cumsum(counts) - counts
    # One pair for each detection and ground truth of the same image and class, ordered by detection.
    pair_detection = np.repeat(having, counts)
    pair_truth = by_group[np.repeat(first[having] - starts, counts) + np.arange(len(pair_detection))]
    iou = _inclusive_iou(detections.boxes[pair_detection].astype(np.float64), index.boxes[pair_truth])

    best, overlap = np.zeros(len(group), dtype=np.int64), np.zeros(len(group))
    if len(having):
        overlap[having] = np.maximum.reduceat(iou, starts)
        highest = np.flatnonzero(iou == overlap[pair_detection])
        best[having] = pair_truth[highest[np.unique(pair_detection[highest], return_index=True)[1]]]
    return best, overlap


def _inclusive_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P,) IoU of boxes (P, 4), xyxy, that include their last pixel."""
    shared = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 1).clip(min=0).prod(axis=1)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1) for boxes in (a, b))
    result: NDArray[np.float64] = shared / (area_a + area_b - shared)
    return result


def _class_precision(right: NDArray[np.bool_], kept: NDArray[np.bool_], positives: int) -> tuple[float, float]:
    """11-point and area AP of a class from the (D,) flags of its detections, best first."""
    detected = np.cumsum(kept)[right]
    # Recall and the precision envelope change only at true positives, so these points suffice.
    envelope = np.maximum.accumulate((np.arange(1, len(detected) + 1) / detected)[::-1])[::-1]
    # Compute in integers the number of true positives that reaches a recall of k / 10, to avoid rounding.
    needed = np.maximum(-(-np.arange(11) * positives // 10), 1)
    points = envelope[needed[needed <= len(envelope)] - 1]
    return float(points.sum() / 11), float(envelope.sum() / positives)


def _mean(values: NDArray[np.float64]) -> float | None:
    existing = values[~np.isnan(values)]
    return float(existing.mean()) if existing.size else None
