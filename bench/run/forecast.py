"""The expected cost of a run: ``--plan``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.run.numerics import step_seconds
from bench.run.plan import Request
from bench.spec import Cell

EVALUATION_SECONDS = 15.0  # start and speed measurement; the rest grows with the number of images
WEIGHT_BYTES_PER_PARAMETER = 4  # of a finished cell
CHECKPOINT_BYTES_PER_PARAMETER = 12  # weights and two moments of AdamW
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
) -> None:
    """Print the cells, and the time and disk space in `out` that the unfinished ones would take.

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
        cost = cell.base.training.steps * seconds + validation * image_seconds + EVALUATION_SECONDS
        total += cost if cell.id in waiting else 0.0
        state = "to run" if cell.id in waiting else "done"
        steps = str(cell.base.training.steps)
        table.add_row(cell.id, cell.variant, str(cell.seed), steps, f"{cost / 60:.1f}", state)
    console.print(table)
    training = min(jobs, len(todo)) * CHECKPOINTS_AT_ONCE * CHECKPOINT_BYTES_PER_PARAMETER
    megabytes = parameters * (len(todo) * WEIGHT_BYTES_PER_PARAMETER + training) / 2**20
    console.print(
        f"about {total / 60 / jobs:.0f} minutes on {request.numerics.device} with {request.numerics.threads} threads "
        f"and {jobs} at a time ({seconds:.2f} s per step measured), and at most {megabytes:.0f} MiB of disk in {out}",
        markup=False,
        highlight=False,
    )
