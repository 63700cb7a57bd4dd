"""Overlapping objects: how crowded the images are, and which objects non-maximum suppression is bound to remove."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import ImageIndex
from bench.evaluation.coco_evaluator import MAX_DETECTIONS
from bench.spec import DetectorSpec

PART = 2_000_000  # pairs in memory at a time
# IoU above which two objects count as crowded: their features mix, and they are close to the NMS threshold of .45.
CROWDED = 0.3


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """P pairs of boxes in the same image: rows `first` < `second` of the index and their `iou`; (P,) each."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    iou: NDArray[np.float64]


def overlapping(index: ImageIndex, min_iou: float) -> Pairs:
    """All pairs of boxes of one image, of any classes, with an IoU above `min_iou`; crowds excluded."""
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    area = (index.boxes[:, 2:] - index.boxes[:, :2]).prod(axis=1)
    for first, second in _pairs_of_images(index):
        shared = np.minimum(index.boxes[first, 2:], index.boxes[second, 2:])
        shared -= np.maximum(index.boxes[first, :2], index.boxes[second, :2])
        inter = np.clip(shared, 0, None).prod(axis=1)
        iou = inter / (area[first] + area[second] - inter)
        kept = (iou > min_iou) & ~index.crowd[first] & ~index.crowd[second]
        parts.append((first[kept], second[kept], iou[kept]))
    rows, others, overlaps = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Pairs(first=rows, second=others, iou=overlaps)


def suppressed(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """(count,) which of `count` perfect boxes non-maximum suppression removes.

    first, second: the pairs of boxes that overlap by more than the NMS threshold.
    Perfect boxes have no scores to order them by, so the order is a lenient one: boxes that overlap the fewest
    others come first. Greedy in rounds: a box that precedes all its remaining neighbours is kept and removes them.
    """
    degree = np.bincount(np.concatenate((first, second)), minlength=count)
    rank = np.empty(count, dtype=np.int64)
    rank[np.argsort(degree, kind="stable")] = np.arange(count)
    removed = np.zeros(count, dtype=np.bool_)
    while len(first):
        earlier, later = np.where(rank[first] < rank[second], (first, second), (second, first))
        preceded = np.zeros(count, dtype=np.bool_)
        preceded[later] = True
        certain = ~preceded[earlier]  # no neighbour precedes the earlier box, so it is kept
        removed[later[certain]] = True
        remaining = ~(removed[first] | removed[second])
        first, second = first[remaining], second[remaining]
    return removed


def crowding(index: ImageIndex, detector: DetectorSpec, pairs: Pairs) -> dict[str, Any]:
    """Count crowded objects, and those that the detector's limits lose even with perfect boxes.

    pairs: from `overlapping`, including all with IoU above CROWDED and above the detector's `nms_threshold`.
    Returns JSON data. Only scored objects count (neither crowd nor `difficult`).
    objects_an_image: mean, median and maximum.
    crowded: objects with IoU above CROWDED with another object of any class.
    suppressed, suppressed_by_class: objects that per-class NMS at `nms_threshold` removes.
    beyond_detections: objects beyond `detections_per_image`.
    beyond_evaluated: objects beyond the detections per image and class that COCO evaluates.
    """
    scored = ~(index.crowd | index.difficult)
    counts = np.bincount(index.image_of_box[scored], minlength=len(index))
    both = scored[pairs.first] & scored[pairs.second]
    crowded = both & (pairs.iou > CROWDED)
    competing = both & (pairs.iou > detector.nms_threshold) & (index.labels[pairs.first] == index.labels[pairs.second])
    removed = suppressed(pairs.first[competing], pairs.second[competing], len(index.boxes))
    by_class = np.bincount(index.labels[removed], minlength=len(index.classes))
    _, of_class = np.unique(index.image_of_box[scored] * len(index.classes) + index.labels[scored], return_counts=True)
    return {
        "objects": int(scored.sum()),
        "objects_an_image": {
            "mean": float(counts.mean()) if len(counts) else 0.0,
            "median": float(np.median(counts)) if len(counts) else 0.0,
            "most": int(counts.max(initial=0)),
        },
        "crowded": len(np.unique(np.concatenate((pairs.first[crowded], pairs.second[crowded])))),
        "suppressed": int(removed.sum()),
        "suppressed_by_class": {
            index.classes[label]: int(by_class[label]) for label in np.flatnonzero(by_class).tolist()
        },
        "beyond_detections": int(np.clip(counts - detector.detections_per_image, 0, None).sum()),
        "beyond_evaluated": int(np.clip(of_class - MAX_DETECTIONS[-1], 0, None).sum()),
    }


def _pairs_of_images(index: ImageIndex) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of boxes of the same image, in parts: one image with thousands of boxes has millions of pairs."""
    rows = np.arange(len(index.boxes))
    followers = index.offsets[1:][index.image_of_box] - rows - 1  # later boxes of the same image
    before = np.cumsum(followers) - followers
    part = before // PART
    for own in np.split(rows, np.flatnonzero(np.diff(part)) + 1):
        first = np.repeat(own, followers[own])
        within = np.arange(len(first)) - np.repeat(before[own] - before[own[:1]], followers[own])
        yield first, first + 1 + within
