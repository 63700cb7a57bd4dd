"""The axis ciou: the complete IoU as the loss of the boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.axis import Axis
from bench.spec import Specification


class CompleteIoU(Axis):
    """The loss of the boxes is 1 - CIoU.

    Remedy: smooth L1 treats the four offsets as independent, so equal losses may stand for very different overlaps. AP
    at high IoU thresholds rests on the overlap.
    Source: Zheng et al. 2020, who train SSD with it; the weight of 5 is that of their code.
    Difference from the baseline: only the loss of the boxes.
    Cost: none at test time.
    """

    name = "ciou"
    slot = "box_loss"

    def apply(self, spec: Specification, prepared: Mapping[str, Any]) -> Specification:
        return replace(spec, detector=replace(spec.detector, box_loss="ciou"))
