"""Objects that overlap each other: how crowded the images are, and what non-maximum suppression must lose."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import ImageIndex
from bench.evaluation.coco_evaluator import MAX_DETECTIONS
from bench.spec import DetectorSpec

PART = 2_000_000  # pairs that are in memory at a time
# Overlap from which two objects count as crowded: their features mix, and one more shift brings them to the
# suppression's .45.
CROWDED = 0.3


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """P pairs of boxes of one image: `first` < `second` are rows of the index, `iou` their overlap; (P,) each."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    iou: NDArray[np.float64]


def overlapping(index: ImageIndex, least: float) -> Pairs:
    """Every pair of ordinary boxes of one image, of whatever classes, whose IoU is above `least`; crowds apart."""
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    area = (index.boxes[:, 2:] - index.boxes[:, :2]).prod(axis=1)
    for first, second in _pairs_of_images(index):
        shared = np.minimum(index.boxes[first, 2:], index.boxes[second, 2:])
        shared -= np.maximum(index.boxes[first, :2], index.boxes[second, :2])
        inter = np.clip(shared, 0, None).prod(axis=1)
        iou = inter / (area[first] + area[second] - inter)
        kept = (iou > least) & ~index.crowd[first] & ~index.crowd[second]
        found.append((first[kept], second[kept], iou[kept]))
    rows, others, overlaps = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return Pairs(first=rows, second=others, iou=overlaps)


def suppressed(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """(count,) which of so many boxes non-maximum suppression removes, `first` and `second` being what it compares.

    All boxes are perfect, so their scores decide nothing; the order taken is the kindest simple one: boxes
    that overlap the fewest others come first. Greedy in that order, in rounds: a box that comes before all
    its neighbours that are left stays, and removes them.
    """
    degree = np.bincount(np.concatenate((first, second)), minlength=count)
    place = np.empty(count, dtype=np.int64)
    place[np.argsort(degree, kind="stable")] = np.arange(count)
    removed = np.zeros(count, dtype=np.bool_)
    while len(first):
        earlier, later = np.where(place[first] < place[second], (first, second), (second, first))
        beaten = np.zeros(count, dtype=np.bool_)
        beaten[later] = True
        certain = ~beaten[earlier]  # the earlier box has nothing before it, so it stays
        removed[later[certain]] = True
        left = ~(removed[first] | removed[second])
        first, second = first[left], second[left]
    return removed


def crowding(index: ImageIndex, detector: DetectorSpec, pairs: Pairs) -> dict[str, Any]:
    """How close the objects of an image are, and what the detector's last steps must lose of them; JSON data.

    pairs: those of `overlapping`, at least all above CROWDED and the detector's `nms_threshold`.
    Counted are objects that are scored (neither crowd nor `difficult`). objects_an_image: mean, median and
    most. crowded: objects that another one of any class overlaps by more than CROWDED. suppressed: objects
    that suppression within the class at `nms_threshold` removes though every box is perfect, in all and by
    class. beyond_detections: objects above the most detections of an image; beyond_evaluated: above the most
    of an image and class that COCO's evaluation looks at.
    """
    scored = ~(index.crowd | index.difficult)
    counts = np.bincount(index.image_of_box[scored], minlength=len(index))
    both = scored[pairs.first] & scored[pairs.second]
    close = both & (pairs.iou > CROWDED)
    rivals = both & (pairs.iou > detector.nms_threshold) & (index.labels[pairs.first] == index.labels[pairs.second])
    removed = suppressed(pairs.first[rivals], pairs.second[rivals], len(index.boxes))
    by_class = np.bincount(index.labels[removed], minlength=len(index.classes))
    _, of_class = np.unique(index.image_of_box[scored] * len(index.classes) + index.labels[scored], return_counts=True)
    return {
        "objects": int(scored.sum()),
        "objects_an_image": {
            "mean": float(counts.mean()) if len(counts) else 0.0,
            "median": float(np.median(counts)) if len(counts) else 0.0,
            "most": int(counts.max(initial=0)),
        },
        "crowded": len(np.unique(np.concatenate((pairs.first[close], pairs.second[close])))),
        "suppressed": int(removed.sum()),
        "suppressed_by_class": {
            index.classes[label]: int(by_class[label]) for label in np.flatnonzero(by_class).tolist()
        },
        "beyond_detections": int(np.clip(counts - detector.detections_per_image, 0, None).sum()),
        "beyond_evaluated": int(np.clip(of_class - MAX_DETECTIONS[-1], 0, None).sum()),
    }


def _pairs_of_images(index: ImageIndex) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """All pairs of boxes of one image, some millions at a time: a crowd of thousands has millions of its own."""
    rows = np.arange(len(index.boxes))
    followers = index.offsets[1:][index.image_of_box] - rows - 1  # boxes of the same image that come later
    before = np.cumsum(followers) - followers
    part = before // PART
    for own in np.split(rows, np.flatnonzero(np.diff(part)) + 1):
        first = np.repeat(own, followers[own])
        within = np.arange(len(first)) - np.repeat(before[own] - before[own[:1]], followers[own])
        yield first, first + 1 + within
