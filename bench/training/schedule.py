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
    """Each stage's share of the backbone's learning rate, bottom first: graded in halves, or 1 without a decay."""
    top = math.ceil(0.5 * stages)
    depths = [1 if from_top < top else 2 for from_top in reversed(range(stages))]
    return [training.stage_rate_decay**-depth for depth in depths]
