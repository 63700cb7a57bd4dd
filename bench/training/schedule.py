"""Learning rate and trainable stages as pure functions of the step.

Nothing here has state, so a resumed cell equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bench.spec import TrainSpec


def rate_factor(training: TrainSpec, step: int) -> float:
    """The learning rate at `step` (from 0) as a share of the peak: linear warm-up, then decay."""
    warmup = warmup_steps(training)
    if step < warmup:
        return (step + 1) / warmup
    if training.decay == "steps":
        return float(0.1 ** sum(step >= round(drop * training.steps) for drop in training.drops))
    start = steps_before_decay(training)
    progress = max(0, step - start) / max(1, training.steps - start)
    low = training.final_rate_share
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_steps(training: TrainSpec) -> int:
    """The number of steps over which the learning rate rises."""
    return max(1, round(training.warmup_share * training.steps)) if training.warmup_share > 0 else 0


def steps_before_decay(training: TrainSpec) -> int:
    """The number of steps before the learning rate falls for the first time."""
    share = training.decay_start if training.decay == "cosine" else min(training.drops, default=1.0)
    return max(warmup_steps(training), round(share * training.steps))


def longer(training: TrainSpec, steps: int) -> TrainSpec:
    """The training with more steps and an equal number of warm-up steps, so that it begins as `training` does."""
    return replace(training, steps=steps, warmup_share=warmup_steps(training) / steps)


def same_beginning(one: TrainSpec, other: TrainSpec, steps: int) -> bool:
    """Whether the first `steps` steps of two trainings are the same, although their lengths may differ."""
    if replace(other, steps=one.steps, warmup_share=one.warmup_share) != one:
        return False
    return all(
        rate_factor(one, step) == rate_factor(other, step)
        and _trainable_share(one, step) == _trainable_share(other, step)
        for step in range(steps)
    )


def trainable_stages(training: TrainSpec, step: int, stages: int) -> int:
    """The number of trainable backbone stages at `step`, of `stages`, counted from the top."""
    return math.ceil(_trainable_share(training, step) * stages)


def _trainable_share(training: TrainSpec, step: int) -> float:
    for phase in training.phases:
        if step < round(phase.until * training.steps):
            return phase.trainable
    return training.phases[-1].trainable


def stage_rate_factors(training: TrainSpec, stages: int) -> list[float]:
    """Each stage's share of the backbone's learning rate, bottom first: graded in halves, or 1 without a decay."""
    top = math.ceil(0.5 * stages)
    depths = [1 if from_top < top else 2 for from_top in reversed(range(stages))]
    return [training.stage_rate_decay**-depth for depth in depths]
