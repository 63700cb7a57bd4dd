"""The time of a training step over the schedule: what a frozen backbone saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.data.targets import Targets
from bench.spec import Numerics, Specification
from bench.speed.interleaved import Budget, Contender, measure_interleaved, paired_ratios, ratio_columns
from bench.speed.stages import timing_columns
from bench.training.schedule import trainable_stages
from bench.training.setup import build
from bench.training.trainer import Trainer

_Key = tuple[str, str, float]  # schedule, precision, and share of the steps that are done


def measure_training_steps(
    schedules: Mapping[str, Specification],
    images: Tensor,
    targets: Targets,
    *,
    numerics: Sequence[Numerics],
    budget: Budget,
) -> list[dict[str, Any]]:
    """A row for each schedule, precision and share of the steps at which a phase of any schedule begins.

    images: (B, 3, S, S), with their targets, on the device; loading data is not included. A step is forward, loss,
    backward and update. All steps are interleaved. `times_faster` is relative to the step at the last share, where
    everything is trainable, of the same schedule and precision.
    """
    shares = sorted(
        {0.0} | {phase.until for spec in schedules.values() for phase in spec.training.phases if phase.until < 1}
    )
    contenders: dict[_Key, Contender] = {}
    trained: dict[_Key, dict[str, Any]] = {}
    for name, spec in schedules.items():
        for each in numerics:
            for share in shares:
                # Each share needs its own trainer: a step sets what is frozen
                trainer = Trainer(build(spec.detector, 0, each).train(), spec.training, each)
                step = round(share * spec.training.steps)
                trainer.set_step(step)
                parameters = sum(value.numel() for value in trainer.model.parameters() if value.requires_grad)
                trained[name, each.precision, share] = {
                    "trainable_stages": trainable_stages(spec.training, step, len(trainer.stages)),
                    "stages": len(trainer.stages),
                    "trainable_M": parameters / 1e6,
                }
                call = partial(trainer.step, step, images, targets)
                contenders[name, each.precision, share] = Contender(call=call, batch=len(images))

    def all_trainable(key: _Key) -> _Key:
        return (*key[:2], shares[-1])

    timings = measure_interleaved(
        contenders, device=torch.device(numerics[0].device), budget=budget, reference=all_trainable
    )
    ratios = paired_ratios(timings, all_trainable)
    return [
        {
            "schedule": key[0],
            "share": key[2],
            "precision": key[1],
            "batch": len(images),
            **trained[key],
            **timing_columns(timings.get(key)),
            **ratio_columns(ratios.get(key), "times_faster"),
        }
        for key in contenders
    ]
