"""Which objects the priors can match at all, by the matcher that trains, on whole images and on training's views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.augment import boxes_in_view, draw_view, generator_of
from bench.data.index import ImageIndex
from bench.data.targets import Targets
from bench.detector.boxes import overlaps, to_corners
from bench.detector.matching import match
from bench.detector.priors import prior_boxes
from bench.diagnosis.objects import SIZE_NAMES, size_bucket
from bench.spec import AugmentSpec, DetectorSpec

VIEWS = 1000  # training views that are looked at, of as many epochs as that takes
MOST_OBJECTS = 20_000  # of a side that are matched; a share of so many is known to under a point
ENTRIES = 4_000_000  # overlaps of objects with priors at a time: tens of megabytes, which the allocator gives again

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """M boxes of N images or views, as the matcher is given them.

    boxes: (M, 4) xyxy, fractions of the view. labels: (M,) from 0. crowd: (M,) bool. offsets: (N + 1,).
    """

    boxes: Floats
    labels: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    offsets: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Matched:
    """What the matcher makes of M objects (crowds apart).

    labels: (M,). size: (M,) place in SIZE_NAMES. reached: (M,) bool, some prior has the threshold's IoU with
    the object, which is settled before the bipartite part gives every object one. priors: (M,) how many
    priors answer for it in training, the bipartite one among them.
    """

    labels: NDArray[np.int32]
    size: NDArray[np.int64]
    reached: NDArray[np.bool_]
    priors: NDArray[np.int64]


def whole_views(index: ImageIndex) -> Seen:
    """The images as evaluation sees them; evenly taken where there are more than MOST_OBJECTS boxes."""
    kept = index
    if len(index.boxes) > MOST_OBJECTS:
        count = max(1, len(index) * MOST_OBJECTS // len(index.boxes))
        kept = index.take(np.linspace(0, len(index) - 1, count).astype(np.int64))
    return Seen(boxes=kept.fractions(), labels=kept.labels, crowd=kept.crowd, offsets=kept.offsets)


def training_views(train: ImageIndex, augment: AugmentSpec, *, seed: int) -> Seen:
    """What the first epochs of a training with `seed` see of its images: at least VIEWS views of their boxes.

    The draws are training's own (seed, epoch, image). Of more than VIEWS images the first epoch shows an even
    sample, and fewer where they hold more than MOST_OBJECTS boxes.
    """
    count = min(len(train), VIEWS, max(1, len(train) * MOST_OBJECTS // max(1, len(train.boxes))))
    rows = np.linspace(0, len(train) - 1, count).astype(np.int64)
    a_pass = max(1, int(np.diff(train.offsets)[rows].sum()))
    epochs = max(1, min(-(-VIEWS // count), MOST_OBJECTS // a_pass))
    fractions = train.fractions()
    boxes, labels, crowds, counts = [np.zeros((0, 4))], [train.labels[:0]], [train.crowd[:0]], [0]
    for epoch in range(epochs):
        for row in rows.tolist():
            own = slice(*train.offsets[row : row + 2])
            crowd = train.crowd[own]
            view = draw_view(generator_of(seed, epoch, row), fractions[own][~crowd], augment)
            seen, stays = boxes_in_view(fractions[own], view, always=crowd)
            boxes.append(seen)
            labels.append(train.labels[own][stays])
            crowds.append(crowd[stays])
            counts.append(len(seen))
    return Seen(
        boxes=np.concatenate(boxes),
        labels=np.concatenate(labels),
        crowd=np.concatenate(crowds),
        offsets=np.cumsum(counts),
    )


def matched(seen: Seen, detector: DetectorSpec) -> Matched:
    """Match every object of `seen` with the detector's priors, images of like numbers of boxes together."""
    priors = to_corners(prior_boxes(detector))
    reached = np.zeros(len(seen.boxes), dtype=np.bool_)
    answering = np.zeros(len(seen.boxes), dtype=np.int64)
    counts = np.diff(seen.offsets)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    most = max(1, ENTRIES // len(priors))
    start = 0
    while start < len(order):
        # Rising counts: as many images as fit if all are padded to the last one's boxes
        padded = counts[order[start:]] * np.arange(1, len(order) - start + 1)
        images = order[start : start + max(1, int(np.searchsorted(padded, most, side="right")))]
        targets, places, rows = _padded(seen, images)
        answer = match(targets, priors, detector.match_threshold)
        best = overlaps(targets.boxes, priors).amax(dim=2)
        image, prior = (answer >= 0).nonzero(as_tuple=True)
        objects = torch.zeros(targets.labels.shape, dtype=torch.int64)
        objects.index_put_((image, answer[image, prior]), torch.ones(1, dtype=torch.int64), accumulate=True)
        reached[rows] = (best >= detector.match_threshold).numpy()[places]
        answering[rows] = objects.numpy()[places]
        start += len(images)
    kept = ~seen.crowd
    sides = (seen.boxes[:, 2:] - seen.boxes[:, :2])[kept] * detector.size
    return Matched(labels=seen.labels[kept], size=size_bucket(sides), reached=reached[kept], priors=answering[kept])


def matchable_objects(
    train: ImageIndex, val: ImageIndex, detector: DetectorSpec, fitted: DetectorSpec, *, augment: AugmentSpec, seed: int
) -> dict[str, Any]:
    """How `detector`'s priors and those fitted to the training split match both splits; JSON data.

    For the priors "given" and "fitted", and for "train" and "val" (whole images) and "views" (training's):
    `counts` of all objects, by size at the network (of the view) and by class.
    """
    places = {"train": whole_views(train), "val": whole_views(val), "views": training_views(train, augment, seed=seed)}
    found: dict[str, Any] = {"views": len(places["views"].offsets) - 1, "threshold": detector.match_threshold}
    for name, spec in (("given", detector), ("fitted", replace(detector, priors=fitted.priors))):
        found[name] = {}
        for place, seen in places.items():
            result = matched(seen, spec)
            found[name][place] = {
                "all": counts(result, np.ones(len(result.labels), dtype=np.bool_)),
                "by_size": {size: counts(result, result.size == row) for row, size in enumerate(SIZE_NAMES)},
                "by_class": {label: counts(result, result.labels == row) for row, label in enumerate(train.classes)},
            }
    return found


def counts(result: Matched, of: NDArray[np.bool_]) -> dict[str, Any]:
    """objects; matched: how many a prior reaches by the threshold; priors: mean and median that answer for one;
    lone: objects for which one prior at most answers."""
    priors = result.priors[of]
    some = len(priors) > 0
    return {
        "objects": len(priors),
        "matched": int(result.reached[of].sum()),
        "priors_mean": float(priors.mean()) if some else None,
        "priors_median": float(np.median(priors)) if some else None,
        "lone": int((priors <= 1).sum()),
    }


def _padded(
    seen: Seen, images: NDArray[np.int64]
) -> tuple[Targets, tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
    """Targets of these images, where in them each box stands (image, place), and the boxes' rows in `seen`."""
    own = np.diff(seen.offsets)[images]
    image = np.repeat(np.arange(len(images)), own)
    within = np.arange(len(image)) - np.repeat(np.cumsum(own) - own, own)
    rows = seen.offsets[images][image] + within
    shape = (len(images), int(own.max()))
    boxes, labels, crowd = np.zeros((*shape, 4), np.float32), np.zeros(shape, np.int64), np.zeros(shape, bool)
    boxes[image, within] = seen.boxes[rows]
    labels[image, within] = np.where(seen.crowd[rows], 0, seen.labels[rows] + 1)
    crowd[image, within] = seen.crowd[rows]
    return Targets(*map(torch.from_numpy, (boxes, labels, crowd))), (image, within), rows
