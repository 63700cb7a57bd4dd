"""The axis unfreezing: gradual unfreezing of the pretrained backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.axis import Axis
from bench.spec import Phase, Specification


class Unfreezing(Axis):
    """Gradual unfreezing from the top down, at the baseline's own learning rates.

    Remedy: untrained heads send random gradients, which would damage a trainable pretrained backbone.
    Source: ULMFiT (Howard and Ruder 2018). Evidence in the literature is mixed.
    Difference from the baseline: only which parameters train at a step. For the first 20% of the steps only the heads
    train, until 40% also the top half of the backbone, then everything that the baseline trains, before the rate
    decays. ULMFiT also grades the rates; the control ``discriminative-rates`` has them with nothing frozen. The number
    of steps is the same.
    Cost: none; steps with a frozen backbone are cheaper.
    """

    name = "unfreezing"
    slot = "schedule"
    in_default_matrix = True

    def refusal(self, base: Specification) -> str | None:
        if base.detector.weights != "none":
            return None
        return (
            "with --weights none there is nothing worth freezing; give --weights, "
            "or leave the axis out: --axes fpn,anchors"
        )

    def apply(self, spec: Specification, prepared: Mapping[str, Any]) -> Specification:
        phases = (Phase(until=0.2, trainable=0.0), Phase(until=0.4, trainable=0.5), Phase(until=1.0, trainable=1.0))
        return replace(spec, training=replace(spec.training, phases=phases))
