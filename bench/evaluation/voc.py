"""AP by the rules of the Pascal VOC devkit: another number than COCO's, for comparison with papers on VOC.

Source: VOCdevkit, VOCevaldet.m and VOCap.m (2007: 11 points; from 2010: area). What differs from COCO: one
IoU threshold; a detection is held against the ground truth that it overlaps most, taken or not, so a second
one on the same object is wrong even where another object is near; every detection counts, not the 100 best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.index import ImageIndex
from bench.evaluation.coco import Accuracy
from bench.evaluation.detections import Detections, check_rows

MINIMUM_OVERLAP = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class VocPrecision:
    """AP of each class, fractions of 1; NaN for a class without ground truths that count.

    eleven_points: (C,) mean of the highest precision at a recall of at least 0, .1, ..., 1 (VOC2007).
    area: (C,) under the curve of the highest precision at that recall or more (VOC2010 on).
    """

    eleven_points: NDArray[np.float64]
    area: NDArray[np.float64]


def with_voc(accuracy: Accuracy, index: ImageIndex, detections: Detections) -> Accuracy:
    """`accuracy` of `evaluate`, and voc_AP_11point and voc_AP_area: the means of the classes, and in per_class.

    None where there is no ground truth to ask about, as there.
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

    Per class, by falling score (ties in the order of `detections`): a detection is right if the ground truth
    that it overlaps most has an IoU of at least .5 with it and was not taken before, neither right nor wrong if
    that one is difficult, and wrong otherwise. Crowds, which VOC does not have, are taken for difficult.

    The IoU is the devkit's: coordinates are numbers of pixels, the last one included, so widths are
    x2 - x1 + 1. That is what VOC's files mean, and the index keeps their coordinates as written. Of data
    that mean edges it makes every box a pixel larger: there is one VOC measure, whatever the data.
    Raises ValueError if detections name images or classes that `index` does not have.
    """
    check_rows(index, detections)
    order = np.lexsort((-detections.scores, detections.labels))  # stable
    best, overlap = _best_truths(index, detections)
    best, found = best[order], overlap[order] >= MINIMUM_OVERLAP
    never = index.crowd | index.difficult
    ignored = np.zeros(len(order), dtype=np.bool_)
    ignored[found] = never[best[found]]
    takers = np.flatnonzero(found & ~ignored)
    right = np.zeros(len(order), dtype=np.bool_)
    right[takers[np.unique(best[takers], return_index=True)[1]]] = True  # the first of each ground truth

    classes = len(index.classes)
    starts = np.searchsorted(detections.labels[order], np.arange(classes + 1))
    positives = np.bincount(index.labels[~never], minlength=classes)
    figures = np.full((2, classes), np.nan)
    for label in np.flatnonzero(positives).tolist():
        curve = slice(starts[label], starts[label + 1])
        figures[:, label] = _class_precision(right[curve], ~ignored[curve], int(positives[label]))
    return VocPrecision(eleven_points=figures[0], area=figures[1])


def _best_truths(index: ImageIndex, detections: Detections) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(D,) row of the ground truth of its image and class that each detection overlaps most, and (D,) that IoU.

    The first of equals; IoU 0 where there is none.
    """
    classes = len(index.classes)
    truth_group = index.image_of_box * classes + index.labels
    by_group = np.argsort(truth_group, kind="stable")
    group = detections.image * classes + detections.labels
    first, end = (np.searchsorted(truth_group[by_group], group, side=side) for side in ("left", "right"))
    having = np.flatnonzero(end > first)
    counts = (end - first)[having]
    starts = np.cumsum(counts) - counts
    # A pair for each detection and ground truth of one image and class, by detection.
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
    """(P,) IoU of boxes (P, 4), xyxy, whose last pixel belongs to them."""
    shared = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 1).clip(min=0).prod(axis=1)
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1) for boxes in (a, b))
    result: NDArray[np.float64] = shared / (area_a + area_b - shared)
    return result


def _class_precision(right: NDArray[np.bool_], kept: NDArray[np.bool_], positives: int) -> tuple[float, float]:
    """11-point and area AP of a class from the (D,) flags of its detections, best first."""
    claimed = np.cumsum(kept)[right]
    # Precision rises, and recall moves, at true positives alone: the rest of the curve is not needed.
    envelope = np.maximum.accumulate((np.arange(1, len(claimed) + 1) / claimed)[::-1])[::-1]
    # A recall of k / 10 is reached at a whole number of true positives: no rounding decides it.
    needed = np.maximum(-(-np.arange(11) * positives // 10), 1)
    points = envelope[needed[needed <= len(envelope)] - 1]
    return float(points.sum() / 11), float(envelope.sum() / positives)


def _mean(values: NDArray[np.float64]) -> float | None:
    existing = values[~np.isnan(values)]
    return float(existing.mean()) if existing.size else None
