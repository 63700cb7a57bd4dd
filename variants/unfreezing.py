"""Gradual unfreezing of the pretrained backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.axis import Axis
from bench.spec import Phase, Specification


class Unfreezing(Axis):
    """Gradual unfreezing with rates falling downwards (ULMFiT, Howard and Ruder 2018).

    Remedy: random heads send random gradients; a backbone that is still frozen is not harmed by them.
    The heads alone for the first 20% of the steps, the top half of the backbone too until 40%, then
    everything that the baseline trains; each group of stages learns at 1 / 2.6 of the rate of the one
    above it, the topmost at 1 / 2.6 of that of the heads (this replaces the baseline's one factor for
    the whole backbone). The number of steps is the same, and everything is trainable before the decay.
    Cost: none; the steps with a frozen backbone are cheaper. Evidence in the literature is mixed.
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
        training = replace(spec.training, phases=phases, backbone_rate=1.0, stage_rate_decay=2.6)
        return replace(spec, training=training)
