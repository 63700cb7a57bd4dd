"""The axis anchors: prior boxes fitted to the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.axis import Axis
from bench.data.index import ImageIndex
from bench.detector.prior_fitting import fit_shapes, matchable_boxes, recall
from bench.spec import Specification


class Anchors(Axis):
    """Fitted anchors: prior shapes clustered from the training boxes.

    Remedy: an object without a prior of IoU >= 0.5 is matched to a single, poorly fitting prior and is learnt poorly.
    Source: dimension clusters of YOLOv2 (Redmon and Farhadi 2017), here level by level.
    Difference from the baseline: only the priors' widths and heights. They are fitted to the training split after the
    warp to the network's input. Each level serves the boxes of its own sizes, and above the finest also somewhat larger
    ones, which then have more positive priors (docs/remedies.md). A level with few boxes keeps the preset's shapes.
    Each level keeps its number of shapes (4, 6, 6, 6, 4, 4), so that the heads and the cost of non-maximum suppression
    stay the same.
    Cost: seconds before training, nothing afterwards.
    """

    name = "anchors"
    slot = "anchors"
    in_default_matrix = True

    def prepare(self, train_index: ImageIndex, spec: Specification) -> dict[str, Any]:
        detector = spec.detector
        boxes = matchable_boxes(train_index)
        shapes = fit_shapes(boxes, detector)
        return {
            "shapes": [[list(shape) for shape in level] for level in shapes],
            "recall_before": recall(boxes, detector),
            "recall_after": recall(boxes, replace(detector, priors=shapes)),
        }

    def apply(self, spec: Specification, prepared: Mapping[str, Any]) -> Specification:
        shapes = tuple(tuple((w, h) for w, h in level) for level in prepared["shapes"])
        return replace(spec, detector=replace(spec.detector, priors=shapes))
