"""The expected cost of a run: ``--plan``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.run.numerics import step_seconds
from bench.run.plan import Request
from bench.spec import Cell
from bench.training.schedule import steps_before_decay

EVALUATION_SECONDS = 15.0  # start and speed measurement; the rest grows with the number of images
WEIGHT_BYTES_PER_PARAMETER = 4  # of a finished cell
CHECKPOINT_BYTES_PER_PARAMETER = 12  # weights and two moments of AdamW; a finished cell keeps one
CHECKPOINTS_AT_ONCE = 3  # the latest, the one before it, and the one that is being written


def print_forecast(
    request: Request,
    cells: Sequence[Cell],
    todo: Sequence[Cell],
    console: Console,
    *,
    out: Path,
    validation: int,
    jobs: int,
    done: Mapping[str, int],
    shorter: Sequence[int] = (),
) -> None:
    """Print the cells, and the time and disk space in `out` that the unfinished ones would take.

    done: steps that a cell takes over from an earlier run, by the cell's id. shorter: lengths that are trained before,
    each of which adds its decay and its evaluation.

    The time assumes for every cell a step of the baseline, measured on this machine. A feature pyramid takes longer,
    frozen stages take less.
    """
    seconds, parameters = step_seconds(request.base, request.numerics)
    waiting = {cell.id for cell in todo}
    table = Table(title=f"{len(cells)} cells, {len(todo)} to run", title_justify="left")
    for heading in ("cell", "variant", "seed", "steps", "minutes", "state"):
        table.add_column(heading)
    image_seconds = seconds / request.base.training.batch / 2
    total = 0.0
    for cell in cells:
        evaluation = validation * image_seconds + EVALUATION_SECONDS
        training = cell.base.training
        decays = [steps - steps_before_decay(replace(training, steps=steps)) for steps in shorter]
        trained = training.steps - done.get(cell.id, 0) + sum(decays)
        cost = trained * seconds + (1 + len(shorter)) * evaluation
        total += cost if cell.id in waiting else 0.0
        state = "to run" if cell.id in waiting else "done"
        steps = str(training.steps)
        table.add_row(cell.id, cell.variant, str(cell.seed), steps, f"{cost / 60:.1f}", state)
    console.print(table)
    at_once = min(jobs, len(todo)) * CHECKPOINTS_AT_ONCE * CHECKPOINT_BYTES_PER_PARAMETER
    kept = len(todo) * (WEIGHT_BYTES_PER_PARAMETER + CHECKPOINT_BYTES_PER_PARAMETER)
    megabytes = (1 + len(shorter)) * parameters * (kept + at_once) / 2**20
    console.print(
        f"about {total / 60 / jobs:.0f} minutes on {request.numerics.device} with {request.numerics.threads} threads "
        f"and {jobs} at a time ({seconds:.2f} s per step measured), and at most {megabytes:.0f} MiB of disk in {out}",
        markup=False,
        highlight=False,
    )
