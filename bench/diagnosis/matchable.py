"""Which objects the priors can match, by the training matcher, on whole images and on augmented training views."""

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
from bench.diagnosis.objects import SIDE_RANGES, side_range
from bench.spec import AugmentSpec, DetectorSpec

VIEWS = 1000  # minimum number of training views, from as many epochs as needed
MAX_OBJECTS = 20_000  # objects matched per side: enough to know a share to within one percentage point
MAX_OVERLAPS = 4_000_000  # IoUs of objects and priors in memory at a time: tens of megabytes

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewBoxes:
    """M boxes of N images or views, as the matcher sees them.

    boxes: (M, 4) xyxy, fractions of the view. labels: (M,) from 0. crowd: (M,) bool. offsets: (N + 1,).
    """

    boxes: Floats
    labels: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    offsets: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Matched:
    """How M objects are matched, crowds excluded.

    labels: (M,). size: (M,) index into SIDE_RANGES. reached: (M,) bool, whether a prior reaches the IoU threshold;
    the bipartite match, which gives every object a prior, does not count. priors: (M,) number of priors matched
    to the object in training, including the bipartite one.
    """

    labels: NDArray[np.int32]
    size: NDArray[np.int64]
    reached: NDArray[np.bool_]
    priors: NDArray[np.int64]


def whole_views(index: ImageIndex) -> ViewBoxes:
    """The images as evaluation sees them; an even sample if there are more than MAX_OBJECTS boxes."""
    kept = index
    if len(index.boxes) > MAX_OBJECTS:
        count = max(1, len(index) * MAX_OBJECTS // len(index.boxes))
        kept = index.take(np.linspace(0, len(index) - 1, count).astype(np.int64))
    return ViewBoxes(boxes=kept.fractions(), labels=kept.labels, crowd=kept.crowd, offsets=kept.offsets)


def training_views(train: ImageIndex, augment: AugmentSpec, *, seed: int) -> ViewBoxes:
    """At least VIEWS augmented views from the first epochs of a training with `seed`.

    The draws are those of training (seed, epoch, image). With more than VIEWS images or MAX_OBJECTS boxes, the
    views come from an even sample of the images.
    """
    count = min(len(train), VIEWS, max(1, len(train) * MAX_OBJECTS // max(1, len(train.boxes))))
    rows = np.linspace(0, len(train) - 1, count).astype(np.int64)
    boxes_per_epoch = max(1, int(np.diff(train.offsets)[rows].sum()))
    epochs = max(1, min(-(-VIEWS // count), MAX_OBJECTS // boxes_per_epoch))
    fractions = train.fractions()
    boxes, labels, crowds, counts = [np.zeros((0, 4))], [train.labels[:0]], [train.crowd[:0]], [0]
    for epoch in range(epochs):
        for row in rows.tolist():
            own = slice(*train.offsets[row : row + 2])
            crowd = train.crowd[own]
            view = draw_view(generator_of(seed, epoch, row), fractions[own][~crowd], augment)
            visible, kept = boxes_in_view(fractions[own], view, always=crowd)
            boxes.append(visible)
            labels.append(train.labels[own][kept])
            crowds.append(crowd[kept])
            counts.append(len(visible))
    return ViewBoxes(
        boxes=np.concatenate(boxes),
        labels=np.concatenate(labels),
        crowd=np.concatenate(crowds),
        offsets=np.cumsum(counts),
    )


def match_views(views: ViewBoxes, detector: DetectorSpec) -> Matched:
    """Match all objects to the detector's priors, in batches of images with similar numbers of boxes."""
    priors = to_corners(prior_boxes(detector))
    reached = np.zeros(len(views.boxes), dtype=np.bool_)
    matched_priors = np.zeros(len(views.boxes), dtype=np.int64)
    counts = np.diff(views.offsets)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    max_boxes = max(1, MAX_OVERLAPS // len(priors))
    start = 0
    while start < len(order):
        # Counts rise, so the last image of a batch sets the padding of all its images.
        padded = counts[order[start:]] * np.arange(1, len(order) - start + 1)
        images = order[start : start + max(1, int(np.searchsorted(padded, max_boxes, side="right")))]
        targets, places, rows = _padded(views, images)
        truth_of_prior = match(targets, priors, detector.match_threshold)
        best = overlaps(targets.boxes, priors).amax(dim=2)
        image, prior = (truth_of_prior >= 0).nonzero(as_tuple=True)
        objects = torch.zeros(targets.labels.shape, dtype=torch.int64)
        objects.index_put_((image, truth_of_prior[image, prior]), torch.ones(1, dtype=torch.int64), accumulate=True)
        reached[rows] = (best >= detector.match_threshold).numpy()[places]
        matched_priors[rows] = objects.numpy()[places]
        start += len(images)
    kept = ~views.crowd
    sides = (views.boxes[:, 2:] - views.boxes[:, :2])[kept] * detector.size
    return Matched(
        labels=views.labels[kept], size=side_range(sides), reached=reached[kept], priors=matched_priors[kept]
    )


def matchable_objects(
    train: ImageIndex, val: ImageIndex, detector: DetectorSpec, fitted: DetectorSpec, *, augment: AugmentSpec, seed: int
) -> dict[str, Any]:
    """Count the objects that `detector`'s priors and those of `fitted` match.

    Returns JSON data: for the priors "given" and "fitted", in whole images of "train" and "val" and in augmented
    training "views", the `counts` of all objects, by side at the network and by class.
    """
    sources = {"train": whole_views(train), "val": whole_views(val), "views": training_views(train, augment, seed=seed)}
    result: dict[str, Any] = {"views": len(sources["views"].offsets) - 1, "threshold": detector.match_threshold}
    for name, spec in (("given", detector), ("fitted", replace(detector, priors=fitted.priors))):
        result[name] = {}
        for source, views in sources.items():
            matched = match_views(views, spec)
            result[name][source] = {
                "all": counts(matched, np.ones(len(matched.labels), dtype=np.bool_)),
                "by_size": {size: counts(matched, matched.size == row) for row, size in enumerate(SIDE_RANGES)},
                "by_class": {label: counts(matched, matched.labels == row) for row, label in enumerate(train.classes)},
            }
    return result


def counts(matched: Matched, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    """JSON data of the objects where `chosen` (M,) is true.

    objects: their number. matched: those that a prior reaches at the threshold. priors_mean, priors_median: priors
    per object. lone: objects with at most one prior.
    """
    priors = matched.priors[chosen]
    return {
        "objects": len(priors),
        "matched": int(matched.reached[chosen].sum()),
        "priors_mean": float(priors.mean()) if len(priors) else None,
        "priors_median": float(np.median(priors)) if len(priors) else None,
        "lone": int((priors <= 1).sum()),
    }


def _padded(
    views: ViewBoxes, images: NDArray[np.int64]
) -> tuple[Targets, tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
    """Targets of these images, each box's position in them (image, place), and the rows of the boxes in `views`."""
    own = np.diff(views.offsets)[images]
    image = np.repeat(np.arange(len(images)), own)
    within = np.arange(len(image)) - np.repeat(np.cumsum(own) - own, own)
    rows = views.offsets[images][image] + within
    shape = (len(images), int(own.max()))
    boxes, labels, crowd = np.zeros((*shape, 4), np.float32), np.zeros(shape, np.int64), np.zeros(shape, bool)
    boxes[image, within] = views.boxes[rows]
    labels[image, within] = np.where(views.crowd[rows], 0, views.labels[rows] + 1)
    crowd[image, within] = views.crowd[rows]
    return Targets(*map(torch.from_numpy, (boxes, labels, crowd))), (image, within), rows
