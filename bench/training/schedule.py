"""Learning rate and trainable stages as pure functions of the step.

Nothing here has state, so a resumed cell equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import math

from bench.spec import TrainSpec


def rate_factor(training: TrainSpec, step: int) -> float:
    """Share of the peak learning rate at `step` (from 0): linear warm-up, then the decay."""
    warmup = max(1, round(training.warmup_share * training.steps)) if training.warmup_share > 0 else 0
    if step < warmup:
        return (step + 1) / warmup
    if training.decay == "steps":
        return float(0.1 ** sum(step >= round(drop * training.steps) for drop in training.drops))
    start = max(warmup, round(training.decay_start * training.steps))
    progress = max(0, step - start) / max(1, training.steps - start)
    low = training.final_rate_share
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


def trainable_stages(training: TrainSpec, step: int, stages: int) -> int:
    """How many of the backbone's `stages`, counted from the top, are trainable at `step`."""
    for phase in training.phases:
        if step < round(phase.until * training.steps):
            return math.ceil(phase.trainable * stages)
    return math.ceil(training.phases[-1].trainable * stages)


def stage_rate_factors(training: TrainSpec, stages: int) -> list[float]:
    """Share of the heads' rate for each stage, bottom first; stages that open later have lower rates."""
    opened = [math.ceil(phase.trainable * stages) for phase in training.phases]
    levels = sorted({count for count in opened if count > 0})
    # A stage that no phase opens counts as the deepest; it never learns
    depths = [sum(count <= from_top for count in levels) for from_top in range(stages)]
    first_opens_nothing = opened[0] == 0
    return [training.stage_rate_decay ** -(depth + first_opens_nothing) for depth in reversed(depths)]
