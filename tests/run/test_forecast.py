"""The expected cost of a run, from a step time that is given."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.axis import find_axes
from bench.run import forecast
from bench.run.forecast import EVALUATION_SECONDS, print_forecast
from bench.run.plan import Request, plan_cells
from bench.spec import Numerics
from bench.training.schedule import steps_before_decay
from tests.made_specification import specification
from variants.controls import CONTROLS

STEP_SECONDS = 0.5
PARAMETERS = 2**20
VALIDATION = 80


def printed(
    monkeypatch: pytest.MonkeyPatch, *, done: int, jobs: int, taken_over: int = 0, shorter: tuple[int, ...] = ()
) -> list[str]:
    """The lines of the forecast of three cells, of which the first `done` are done.

    taken_over: steps that every cell takes over from an earlier run.
    """
    base = specification()
    request = Request(
        description={},
        base=replace(base, training=replace(base.training, steps=600, batch=8)),
        axes=[find_axes("variants")["fpn"]],
        controls={"double-steps": CONTROLS["double-steps"]},
        seeds=1,
        split="",
        numerics=Numerics(device="cpu", precision="float32", threads=3),
    )
    monkeypatch.setattr(forecast, "step_seconds", lambda spec, numerics: (STEP_SECONDS, PARAMETERS))
    console = Console(width=200, record=True, file=io.StringIO())
    cells = plan_cells(request)
    print_forecast(
        request,
        cells,
        cells[done:],
        console,
        out=Path("there"),
        validation=VALIDATION,
        jobs=jobs,
        done=dict.fromkeys([cell.id for cell in cells], taken_over),
        shorter=shorter,
    )
    return [line for line in console.export_text().splitlines() if line.strip()]


def test_minutes_grow_with_steps_and_count_only_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, done=1, jobs=1)
    rows = {name: next(line for line in lines if f" {name} " in line) for name in ("baseline", "fpn", "double-steps")}
    evaluation = VALIDATION * STEP_SECONDS / 8 / 2 + EVALUATION_SECONDS
    single, double = (600 * STEP_SECONDS + evaluation) / 60, (1200 * STEP_SECONDS + evaluation) / 60
    assert f" {single:.1f} " in rows["baseline"]
    assert f" {single:.1f} " in rows["fpn"]
    assert f" {double:.1f} " in rows["double-steps"]
    assert "done" in rows["baseline"]
    assert "to run" in rows["fpn"]
    assert "3 cells, 2 to run" in lines[0]
    assert f"about {single + double:.0f} minutes on cpu with 3 threads and 1 at a time" in lines[-1]
    # Weights and a kept state of two cells, and three checkpoints with optimiser state of the one that trains
    assert f"at most {2 * (4 + 12) + 3 * 12} MiB of disk in there" in lines[-1]


def test_parallel_cells_take_less_time_and_more_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (printed(monkeypatch, done=0, jobs=jobs)[-1] for jobs in (1, 2))
    minutes = [int(line.split("about ")[1].split()[0]) for line in (one, two)]
    assert minutes[1] == round(minutes[0] / 2)
    assert f"at most {3 * (4 + 12) + 6 * 12} MiB" in two


def test_steps_taken_over_cost_nothing_and_shorter_lengths_cost_their_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    decay = 600 - steps_before_decay(replace(specification().training, steps=600))
    assert decay > 0
    evaluation = VALIDATION * STEP_SECONDS / 8 / 2 + EVALUATION_SECONDS
    for expected, lines in (
        ((600 - 140) * STEP_SECONDS + evaluation, printed(monkeypatch, done=0, jobs=1, taken_over=140)),
        ((600 + decay / 2) * STEP_SECONDS + 2 * evaluation, printed(monkeypatch, done=0, jobs=1, shorter=(300,))),
    ):
        assert f" {expected / 60:.1f} " in next(line for line in lines if " baseline " in line)


def test_a_finished_run_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    last = printed(monkeypatch, done=3, jobs=2)[-1]
    assert "about 0 minutes" in last
    assert "at most 0 MiB" in last
