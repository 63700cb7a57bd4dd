"""Merge runs of one ablation that were trained separately: other seeds, axes or controls, other machines.

The merged run is an ordinary run folder with copies of the stored cells. The source runs are only read.
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
from bench.storage.own_files import check_output, remove_cell, remove_thumbnails, stored_thumbnails
from bench.storage.reading import read_file
from bench.storage.records import read_json, read_plan
from bench.storage.run_folder import (
    DETECTIONS,
    ENVIRONMENT,
    ERROR_TYPES,
    GROUND_TRUTH,
    LOG,
    MATCHES,
    OUTPUT,
    PAGE,
    PLAN,
    PRIORS,
    RECORD,
    SPLIT,
    THUMBNAILS,
    cell_folder,
    thumbnail_list,
)

MUST_AGREE = ("data", "backbone", "profile", "split", "base")  # plan entries that make rows comparable
SHARED_FILES = (SPLIT, GROUND_TRUTH)
COPIED_FILES = (RECORD, PRIORS, DETECTIONS, MATCHES, ERROR_TYPES, LOG, OUTPUT)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A cell of the merged run and its source run."""

    run: Run
    cell: PlannedCell


def merge_runs(folders: Sequence[Path], out: Path) -> Path:
    """Merge the runs in `folders` into `out`, replacing an earlier merged run there; returns `out`.

    The caller holds the lock of `out`. Files of others in `out` stay.

    A cell present in several runs comes from the first run that finished it. Times and throughput stay those of the
    machine that ran the cell.

    Raises UserError if a folder is not a run, if the runs are not comparable, if two runs trained one cell with
    different results, if `out` contains a source run or is in one, or if `out` holds anything other than a merged run.
    """
    _require_apart(folders, out)
    check_output(out)
    runs = [load_run(folder) for folder in folders]
    for other in runs[1:]:
        _require_comparable(runs[0], other)
    rows = _rows(runs)
    _remove_earlier(out)
    # Written before the cells: if interrupted, the partial folder is a merged run that may be replaced
    write_json(out / PLAN, _plan(runs, rows))
    for row in rows:
        source, target = row.run.folder_of(row.cell.id), cell_folder(out, row.cell.id)
        for name in COPIED_FILES:
            _copy(source / name, target / name)
    for name in SHARED_FILES:
        _copy(runs[0].folder / name, out / name)
    for run in runs:
        pictures = stored_thumbnails(run.folder)
        if pictures:
            _copy(thumbnail_list(run.folder), thumbnail_list(out))
            for picture in pictures:
                _copy(picture, out / THUMBNAILS / picture.name)
            break
    write_json(out / ENVIRONMENT, {run.folder.name: read_json(run.folder / ENVIRONMENT) for run in runs})
    return out


def _require_comparable(one: Run, other: Run) -> None:
    """Raise UserError naming the first difference that makes the rows of two runs incomparable."""
    for name in MUST_AGREE:
        if one.plan.get(name) != other.plan.get(name):
            raise UserError(
                f"{one.folder} and {other.folder} cannot be merged: they differ in {name}{_values(one, other, name)}; "
                "their rows are not comparable; report the runs separately"
            )
    for axis in set(one.axes) & set(other.axes):
        hashes = [(run.plan.get("axis_files") or {}).get(axis) for run in (one, other)]
        if hashes[0] != hashes[1]:
            raise UserError(
                f"{one.folder} and {other.folder} cannot be merged: the file of axis {axis!r} changed between them; "
                "rerun the older run, or report the runs separately"
            )
    truths = [run.folder / GROUND_TRUTH for run in (one, other)]
    if all(path.is_file() for path in truths) and read_file(truths[0]) != read_file(truths[1]):
        raise UserError(
            f"{one.folder} and {other.folder} cannot be merged: their validation ground truths differ "
            f"({GROUND_TRUTH}), so the annotations changed between them; report the runs separately"
        )


def _values(one: Run, other: Run, name: str) -> str:
    """Both values in parentheses; for specifications, the path and values of the first difference."""
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
    """One row per variant and seed, in the order of the tables: by the axes that are on, then controls."""
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
                _require_equal(before, _Row(run=run, cell=cell))

    def order(row: _Row) -> tuple[Any, ...]:
        on = [axis for axis in axes if row.cell.factors.get(axis)]
        return row.cell.seed, row.cell.control is not None, len(on), [axes.index(axis) for axis in on]

    return sorted(chosen.values(), key=order)


def _require_equal(one: _Row, other: _Row) -> None:
    """Raise UserError if two runs have different results for the same variant and seed."""
    accuracy = [row.run.records[row.cell.id].get("accuracy") for row in (one, other)]
    if accuracy[0] != accuracy[1]:
        aps = [(each or {}).get("AP") for each in accuracy]
        raise UserError(
            f"{one.run.folder} and {other.run.folder} both contain {one.cell.variant}, seed {one.cell.seed}, with "
            f"different results (AP {aps[0]} and {aps[1]}); merge only one of these runs"
        )


def _axes(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(axis for run in runs for axis in run.axes))


def _plan(runs: Sequence[Run], rows: Sequence[_Row]) -> dict[str, Any]:
    """The plan of the merged run: what the runs share, with their differences under `merged`."""
    axes = _axes(runs)
    plans = [run.plan for run in runs]
    return {
        **{name: value for name, value in plans[0].items() if name != "numerics"},
        "merged": [source for run in runs for source in _sources(run)],
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


def _sources(run: Run) -> list[dict[str, Any]]:
    """What the merged plan says of a run; of a merged run, what it says of its own sources."""
    own = {name: run.plan.get(name) for name in ("numerics", "source")}
    return run.plan.get("merged") or [{"run": run.folder.name, **own, "seeds": list(run.seeds)}]


def _require_apart(folders: Sequence[Path], out: Path) -> None:
    """Raise UserError if `out` is a source run, holds one, or is in one."""
    target = out.resolve()
    for folder in folders:
        source = folder.resolve()
        if target == source or target in source.parents or source in target.parents:
            raise UserError(
                f"--out {out}: merging would change the run {folder}, because one folder is in the other; choose a "
                "folder apart from the runs: --out results/NAME"
            )


def _remove_earlier(out: Path) -> None:
    """Delete our files of an earlier merged run in `out`. Raises UserError if another run is there."""
    plan = read_plan(out)
    if plan is None:
        return
    if "merged" not in plan:
        raise UserError(f"--out {out}: the folder holds a run that is not an earlier merged run; choose a new folder")
    for cell in plan["cells"]:
        remove_cell(out, cell["id"])
    remove_thumbnails(out)
    for name in (*SHARED_FILES, ENVIRONMENT, PAGE):
        (out / name).unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a file if it exists."""
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
