"""Several runs of one matrix as one: other seeds, other axes or controls, trained in pieces or on other machines.

The merged run is a folder like any other, with copies of what the cells have stored, so that everything
that reads a run reads it. The runs themselves are only read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.analysis.run_records import PlannedCell, Run, load_run
from bench.errors import UserError
from bench.storage.atomic import write_json
from bench.storage.records import read_json
from bench.storage.run_folder import cell_folder

PLAN = "plan.json"
SAME = ("data", "backbone", "profile", "split", "base")  # of the plans: with others rows cannot be compared
SHARED_FILES = ("split.json", "ground_truth.json")
CELL_FILES = (
    *("record.json", "priors.json", "detections.json", "matches.npz", "error_types.npz", "log.jsonl"),
    "output.txt",
)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A cell of the merged run, and the run that it is taken from."""

    run: Run
    cell: PlannedCell


def merge_runs(folders: Sequence[Path], out: Path) -> Path:
    """Write the runs in `folders` as one run to `out`, where an earlier merged run is replaced; returns `out`.

    A cell that several runs have is taken from the first in which it is done. Seconds and images per second
    stay those of the machine that each cell was run on.

    Raises UserError where a folder is not a run, where the runs differ in what makes their rows comparable,
    where two of them trained one cell with different outcomes, and where `out` holds something else.
    """
    runs = [load_run(folder) for folder in folders]
    for other in runs[1:]:
        _check_same(runs[0], other)
    rows = _rows(runs)
    _make_room(out, folders)
    write_json(out / PLAN, _plan(runs, rows))  # first: it says that what may remain of this is a merged run
    for row in rows:
        source, target = row.run.folder_of(row.cell.id), cell_folder(out, row.cell.id)
        for name in CELL_FILES:
            _copy(source / name, target / name)
    for name in SHARED_FILES:
        _copy(runs[0].folder / name, out / name)
    for run in runs:
        if (run.folder / "thumbnails").is_dir():
            shutil.copytree(run.folder / "thumbnails", out / "thumbnails")
            break
    write_json(out / "environment.json", {run.folder.name: read_json(run.folder / "environment.json") for run in runs})
    return out


def _check_same(one: Run, other: Run) -> None:
    """UserError naming the first thing in which two runs differ that must be equal."""
    for name in SAME:
        if one.plan.get(name) != other.plan.get(name):
            raise UserError(
                f"{one.folder} and {other.folder} cannot be merged: they differ in {name}{_values(one, other, name)}; "
                "their rows were not trained and scored on the same, so report them apart"
            )
    for axis in set(one.axes) & set(other.axes):
        hashes = [(run.plan.get("axis_files") or {}).get(axis) for run in (one, other)]
        if hashes[0] != hashes[1]:
            raise UserError(
                f"{one.folder} and {other.folder} cannot be merged: the file of the axis {axis!r} was changed between "
                "them; train the older one again, or report them apart"
            )
    truths = [run.folder / "ground_truth.json" for run in (one, other)]
    if all(path.is_file() for path in truths) and truths[0].read_bytes() != truths[1].read_bytes():
        raise UserError(
            f"{one.folder} and {other.folder} cannot be merged: their validation ground truths differ "
            "(ground_truth.json); the annotations were changed between them, so report them apart"
        )


def _values(one: Run, other: Run, name: str) -> str:
    """Both values in brackets where they are short; of specifications, the first place that differs."""
    values = [run.plan.get(name) for run in (one, other)]
    if all(isinstance(value, Mapping) for value in values):
        for part in dict.fromkeys([*values[0], *values[1]]):  # type: ignore[misc]
            ours, theirs = (value.get(part) for value in values)  # type: ignore[union-attr]
            if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
                for key in dict.fromkeys([*ours, *theirs]):
                    if ours.get(key) != theirs.get(key):
                        return f", {part}.{key} ({_short(ours.get(key))} and {_short(theirs.get(key))})"
        return ""
    return f" ({_short(values[0])} and {_short(values[1])})"


def _short(value: object, length: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _rows(runs: Sequence[Run]) -> list[_Row]:
    """One row for each variant and seed, in the order of a paper's table: by axes that are on, then controls."""
    axes = _axes(runs)
    chosen: dict[tuple[str, int], _Row] = {}
    for run in runs:
        for cell in run.cells:
            key = (cell.variant, cell.seed)
            before = chosen.get(key)
            if before is None or before.run.status(before.cell) != "done":
                if before is None or run.status(cell) != "pending":
                    chosen[key] = _Row(run=run, cell=cell)
            elif run.status(cell) == "done":
                _check_equal(before, _Row(run=run, cell=cell))

    def place(row: _Row) -> tuple[Any, ...]:
        on = [axis for axis in axes if row.cell.factors.get(axis)]
        return row.cell.seed, row.cell.control is not None, len(on), [axes.index(axis) for axis in on]

    return sorted(chosen.values(), key=place)


def _check_equal(one: _Row, other: _Row) -> None:
    """UserError where two runs trained the same variant and seed to different figures."""
    accuracy = [row.run.records[row.cell.id].get("accuracy") for row in (one, other)]
    if accuracy[0] != accuracy[1]:
        figures = [(each or {}).get("AP") for each in accuracy]
        raise UserError(
            f"{one.run.folder} and {other.run.folder} both hold {one.cell.variant}, seed {one.cell.seed}, with "
            f"different figures (AP {figures[0]} and {figures[1]}): one table cannot hold two trainings of one cell; "
            "leave one of the runs out"
        )


def _axes(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(axis for run in runs for axis in run.axes))


def _plan(runs: Sequence[Run], rows: Sequence[_Row]) -> dict[str, Any]:
    """The plan of the merged run: what all have in common, and under `merged` what each of them was."""
    axes = _axes(runs)
    plans = [run.plan for run in runs]
    return {
        **{name: value for name, value in plans[0].items() if name != "numerics"},
        "merged": [
            {"run": run.folder.name, "numerics": run.plan.get("numerics"), "source": run.plan.get("source")}
            for run in runs
        ],
        "axes": axes,
        "axis_files": {name: value for plan in plans for name, value in (plan.get("axis_files") or {}).items()},
        "controls": list(dict.fromkeys(name for plan in plans for name in plan.get("controls") or ())),
        "seeds": sorted({row.cell.seed for row in rows}),
        "variants": list(dict.fromkeys(row.cell.variant for row in rows)),
        "cells": [
            {
                "id": row.cell.id,
                "variant": row.cell.variant,
                "factors": {axis: bool(row.cell.factors.get(axis, False)) for axis in axes},
                "control": row.cell.control,
                "seed": row.cell.seed,
            }
            for row in rows
        ],
    }


def _make_room(out: Path, folders: Sequence[Path]) -> None:
    """Empty `out` if an earlier merged run lies there; UserError if something else does."""
    if not out.exists():
        return
    plan = read_json(out / PLAN)
    ours = isinstance(plan, dict) and "merged" in plan
    if not ours or out.resolve() in [folder.resolve() for folder in folders]:
        raise UserError(f"--out {out}: there is something else than an earlier merged run; name a new folder")
    shutil.rmtree(out)


def _copy(source: Path, target: Path) -> None:
    """Copy a file that is there."""
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
