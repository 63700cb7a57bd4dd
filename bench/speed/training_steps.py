"""The time of a training step along the schedule: what a frozen backbone saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.data.targets import Targets
from bench.run.cell import build
from bench.spec import Numerics, Specification
from bench.speed.interleaved import Budget, Contender, measure_in_turn
from bench.speed.stages import figures
from bench.training.schedule import trainable_stages
from bench.training.trainer import Trainer


def measure_training_steps(
    schedules: Mapping[str, Specification],
    images: Tensor,
    targets: Targets,
    *,
    numerics: Sequence[Numerics],
    budget: Budget,
) -> list[dict[str, Any]]:
    """A row for each schedule, precision and share of its steps at which a phase of any schedule begins.

    images: (B, 3, S, S), and their targets, both where the detectors will be; data are not waited for.
    A step is forward, loss, backward and update. All steps are measured in turn. `times_faster` is the
    median at the last share, where everything is trainable, divided by this one, for the same schedule
    and precision.
    """
    shares = sorted(
        {0.0} | {phase.until for spec in schedules.values() for phase in spec.training.phases if phase.until < 1}
    )
    contenders: dict[tuple[str, str, float], Contender] = {}
    facts: dict[tuple[str, str, float], dict[str, Any]] = {}
    for name, spec in schedules.items():
        for each in numerics:
            for share in shares:
                # Of its own: a step of another share would change what is frozen in this one
                trainer = Trainer(build(spec, 0, each).train(), spec.training, each)
                step = round(share * spec.training.steps)
                trainer.set_step(step)
                trained = sum(value.numel() for value in trainer.model.parameters() if value.requires_grad)
                facts[name, each.precision, share] = {
                    "trainable_stages": trainable_stages(spec.training, step, len(trainer.stages)),
                    "stages": len(trainer.stages),
                    "trainable_M": trained / 1e6,
                }
                call = partial(trainer.step, step, images, targets)
                contenders[name, each.precision, share] = Contender(call=call, batch=len(images))
    timings = measure_in_turn(contenders, device=torch.device(numerics[0].device), budget=budget)
    rows = []
    for name, precision, share in contenders:
        timing, full = timings.get((name, precision, share)), timings.get((name, precision, shares[-1]))
        rows.append(
            {
                "schedule": name,
                "share": share,
                "precision": precision,
                "batch": len(images),
                **facts[name, precision, share],
                **figures(timing),
                "times_faster": full.p50 / timing.p50 if timing and full else None,
            }
        )
    return rows
