"""Count everything that a split says without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bench.data.index import ImageIndex
from bench.detector.prior_fitting import fit_shapes, matchable_boxes
from bench.diagnosis.matchable import matchable_objects
from bench.diagnosis.objects import class_counts, conditions, object_sizes
from bench.diagnosis.overlaps import CROWDED, crowding, overlapping
from bench.diagnosis.suspects import DRAWN_TWICE, similar_names, suspects
from bench.spec import AugmentSpec, DetectorSpec


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Counts and shares of a data set; every field is JSON data.

    detector: the detector's properties that the counts depend on.
    sides: for "train" and "val", the numbers of images and boxes.
    sizes: of "train" and "val" (objects.object_sizes).
    classes: one row per class (objects.class_counts).
    conditions: truncation and occlusion in "train" and "val" (objects.conditions).
    matchable: by priors, split and view (matchable.matchable_objects).
    crowding: of "train" and "val" (overlaps.crowding).
    suspects: of "train" and "val" (suspects.suspects).
    alike_names: groups of similar class names.
    leaking: (validation file, training file) of near-duplicates.
    """

    detector: dict[str, Any]
    sides: dict[str, Any]
    sizes: dict[str, Any]
    classes: list[dict[str, Any]]
    conditions: dict[str, Any]
    matchable: dict[str, Any]
    crowding: dict[str, Any]
    suspects: dict[str, Any]
    alike_names: list[list[str]]
    leaking: list[tuple[str, str]]


def diagnose(
    train: ImageIndex,
    val: ImageIndex,
    detector: DetectorSpec,
    *,
    augment: AugmentSpec | None = None,
    seed: int = 0,
    leaking: Sequence[tuple[str, str]] = (),
) -> Diagnosis:
    """Count sizes, classes, matchable objects, overlaps and suspicious annotations of both sides of a split.

    detector: its priors are compared with those that the anchors axis would fit to `train`.
    augment, seed: the training whose augmented views are examined.
    leaking: near-duplicates across the sides, as file names.
    """
    sides = {"train": train, "val": val}
    fitted = replace(detector, priors=fit_shapes(matchable_boxes(train), detector))
    min_iou = min(CROWDED, DRAWN_TWICE, detector.nms_threshold)
    pairs = {name: overlapping(index, min_iou) for name, index in sides.items()}
    return Diagnosis(
        detector={
            name: value
            for name, value in asdict(detector).items()
            if name in ("size", "feature_maps", "steps", "priors", "match_threshold", "nms_threshold")
        }
        | {"fitted": fitted.priors, "detections_per_image": detector.detections_per_image},
        sides={
            name: {"images": len(index), "boxes": len(index.boxes), "crowds": int(np.count_nonzero(index.crowd))}
            for name, index in sides.items()
        },
        sizes={name: object_sizes(index, detector.size) for name, index in sides.items()},
        classes=class_counts(train, val, detector.size),
        conditions={name: conditions(index) for name, index in sides.items()},
        matchable=matchable_objects(train, val, detector, fitted, augment=augment or AugmentSpec(), seed=seed),
        crowding={name: crowding(index, detector, pairs[name]) for name, index in sides.items()},
        suspects={name: suspects(index, detector.size, pairs[name]) for name, index in sides.items()},
        alike_names=similar_names(train.classes),
        leaking=list(leaking),
    )
