"""Learning rate and trainable stages as pure functions of the step.

Nothing here has state, so a resumed cell equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import math

from bench.spec import TrainSpec


def rate_factor(training: TrainSpec, step: int) -> float:
    """The learning rate at `step` (from 0) as a share of the peak: linear warm-up, then decay."""
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
    """The number of trainable backbone stages at `step`, of `stages`, counted from the top."""
    for phase in training.phases:
        if step < round(phase.until * training.steps):
            return math.ceil(phase.trainable * stages)
    return math.ceil(training.phases[-1].trainable * stages)


def stage_rate_factors(training: TrainSpec, stages: int) -> list[float]:
    """Each stage's share of the heads' learning rate, bottom first; stages unfrozen later learn slower."""
    trainable = [math.ceil(phase.trainable * stages) for phase in training.phases]
    levels = sorted({count for count in trainable if count > 0})
    # A stage that stays frozen gets the rate of the deepest one
    depths = [sum(count <= from_top for count in levels) for from_top in range(stages)]
    first_is_frozen = trainable[0] == 0
    return [training.stage_rate_decay ** -(depth + first_is_frozen) for depth in reversed(depths)]
