"""Prior boxes fitted to the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.axis import Axis
from bench.data.index import ImageIndex
from bench.detector.prior_fitting import fit_shapes, matchable_boxes, recall
from bench.spec import Specification


class Anchors(Axis):
    """Tuned anchors: shapes clustered from the training boxes (as in YOLOv2, Redmon and Farhadi 2017).

    Remedy: an object that no prior overlaps by half is matched by one prior alone, badly, and is learnt
    badly. Fitted on the training split through the warp to the network's input, against the grid that
    the matcher sees; free width and height on each level, 4, 6, 6, 6, 4 and 4 of them as before, so
    that heads and non-maximum suppression have the same work.
    Cost: seconds before training; nothing afterwards.
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
