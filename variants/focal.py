"""The axis focal: the focal loss in place of hard negatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.axis import Axis
from bench.spec import Specification


class Focal(Axis):
    """Focal loss on all negatives.

    Remedy: hard negative mining learns from three negatives per positive and ignores the others. The focal loss learns
    from all, and gives those that are already classified well little weight.
    Source: RetinaNet (Lin et al. 2017b). There it replaces two sigmoids per class; SSD keeps its softmax.
    Difference from the baseline: the loss of the classes, and the initial probability of an object (0.01 in place of
    0.1, as in RetinaNet), without which thousands of easy negatives dominate the first steps.
    Cost: none at test time.
    """

    name = "focal"
    slot = "class_loss"

    def apply(self, spec: Specification, prepared: Mapping[str, Any]) -> Specification:
        detector = replace(spec.detector, class_loss="focal", negatives_per_positive=0, object_probability=0.01)
        return replace(spec, detector=detector)
