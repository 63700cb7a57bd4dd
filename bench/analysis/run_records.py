"""What a run stored, read once and given as pandas frames.

`load_run` is the only reader of ``plan.json`` and ``cells/<id>/record.json``; tables, plots and
statistics start from the `Run` that it returns. Figures keep the place that they have in the record as
their name: ``accuracy.AP``, ``speed.latency_p50_ms``, ``accuracy.ground_truths.small``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError
from bench.storage.records import SCHEMA

FIGURES = ("accuracy", "speed", "cost")  # the parts of a record that hold figures
CLASS_FIGURES = ("AP", "AP50", "AP75", "AR_100", "ground_truths")
LOG_FIGURES = ("step", "steps", "loss", "loss_class", "loss_box", "rate", "images_per_second", "seconds")


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One training of the plan. `control` names the control that the row is, None for a cell of the matrix."""

    id: str
    variant: str
    factors: Mapping[str, bool]
    seed: int
    control: str | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as it lies on disk, finished or not.

    variants: names in the order of the plan, which is that of every table and plot.
    plan: the content of plan.json.
    records: by cell id; a planned cell without one is pending.
    """

    folder: Path
    variants: tuple[str, ...]
    axes: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[PlannedCell, ...]
    plan: Mapping[str, Any]
    records: Mapping[str, Mapping[str, Any]]

    @property
    def baseline(self) -> str | None:
        """The variant that has every axis off and is no control."""
        for cell in self.cells:
            if cell.control is None and not any(cell.factors.values()):
                return cell.variant
        return None

    def folder_of(self, cell_id: str) -> Path:
        return self.folder / "cells" / cell_id

    def status(self, cell: PlannedCell) -> str:
        """ "done", "failed" or "pending"."""
        return str(self.records[cell.id]["status"]) if cell.id in self.records else "pending"

    def done(self) -> Iterator[tuple[PlannedCell, Mapping[str, Any]]]:
        """Finished cells with their records, in the order of the plan."""
        for cell in self.cells:
            if self.status(cell) == "done":
                yield cell, self.records[cell.id]

    def failures(self) -> Iterator[tuple[PlannedCell, Mapping[str, Any]]]:
        """Failed cells with the `failure` of their records: cause, step, traceback, log_tail."""
        for cell in self.cells:
            if self.status(cell) == "failed":
                yield cell, self.records[cell.id].get("failure") or {"cause": "no cause was recorded"}


def load_run(folder: Path) -> Run:
    """The plan in `folder` and the records that exist so far.

    Raises UserError when the folder is not a run, when a file is damaged, and when it was written by a
    newer version of the suite.
    """
    path = folder / "plan.json"
    if not path.is_file():
        raise UserError(
            f"{folder} is not the folder of a run: there is no plan.json in it; "
            "name a folder that run_all.py wrote, such as results/NAME"
        )
    plan = read_object(path)
    try:
        cells = tuple(_planned(cell) for cell in plan["cells"])
        run = Run(
            folder=folder,
            variants=tuple(plan["variants"]),
            axes=tuple(plan["axes"]),
            seeds=tuple(plan["seeds"]),
            cells=cells,
            plan=plan,
            records={cell.id: record for cell in cells if (record := _record(folder, cell)) is not None},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not a plan of this suite ({type(error).__name__}: {error}); "
            "start the run again in a folder of its own"
        ) from error
    strange = sorted({cell.variant for cell in cells} - set(run.variants))
    if strange:
        raise UserError(f"{path}: cells of {', '.join(strange)}, which `variants` does not list; restore the file")
    return run


def cells_frame(run: Run) -> pd.DataFrame:
    """One row per planned cell: id, variant, control, seed, status, cause, ``factors.<axis>`` and figures.

    Figures are numbers under their dotted place in the record (``accuracy.AP``: fraction of 1;
    ``speed.latency_p50_ms``: milliseconds) and NaN where they do not exist. A failed cell has none,
    whatever its record says.
    """
    rows = []
    for cell in run.cells:
        row: dict[str, Any] = {
            "id": cell.id,
            "variant": cell.variant,
            "control": cell.control,
            "seed": cell.seed,
        }
        row |= {"status": run.status(cell), "cause": None}
        row |= {f"factors.{axis}": bool(cell.factors.get(axis, False)) for axis in run.axes}
        if row["status"] == "done":
            for part in FIGURES:
                row |= dict(_figures(part, run.records[cell.id].get(part) or {}))
        rows.append(row)
    frame = pd.DataFrame(rows, columns=None if rows else ["id", "variant", "control", "seed", "status", "cause"])
    causes = {cell.id: failure.get("cause") for cell, failure in run.failures()}
    frame["cause"] = frame["id"].map(causes)
    return frame


def classes_frame(run: Run) -> pd.DataFrame:
    """A row per finished cell and class: variant, seed, class, AP, AP50, AP75, AR_100, ground_truths."""
    rows = [
        {"variant": cell.variant, "seed": cell.seed, "class": name}
        | {figure: _number(figures.get(figure)) for figure in CLASS_FIGURES}
        for cell, record in run.done()
        for name, figures in ((record.get("accuracy") or {}).get("per_class") or {}).items()
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "class", *CLASS_FIGURES])


def sweep_frame(run: Run) -> pd.DataFrame:
    """A row per finished cell and batch size of the speed sweep: variant, seed, batch, images_per_second."""
    rows = [
        {
            "variant": cell.variant,
            "seed": cell.seed,
            "batch": int(point["batch"]),
            "images_per_second": _number(point.get("images_per_second")),
        }
        for cell, record in run.done()
        for point in (record.get("speed") or {}).get("sweep") or ()
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "batch", "images_per_second"])


def log_frame(run: Run) -> pd.DataFrame:
    """A row per cell and logged step: id, variant, seed, and the figures of the line (`LOG_FIGURES`).

    Cells that failed or are still training have their rows too. A cell that was killed and went on from
    its checkpoint logged some steps twice: the later line counts. A torn last line is left out.
    """
    parts = []
    for cell in run.cells:
        path = run.folder_of(cell.id) / "log.jsonl"
        if not path.is_file():
            continue
        lines = [{name: _number(line.get(name)) for name in LOG_FIGURES} for line in _log_lines(path)]
        steps = pd.DataFrame(lines, columns=list(LOG_FIGURES)).dropna(subset="step")
        steps = steps.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)
        steps.insert(0, "id", cell.id)
        steps.insert(1, "variant", cell.variant)
        steps.insert(2, "seed", cell.seed)
        if len(steps):
            parts.append(steps)
    columns = ["id", "variant", "seed", *LOG_FIGURES]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame([], columns=columns)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, of a schema that is known here."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete it and start the run again with the same command"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; delete it and start the run again with the same command")
    schema = content.get("schema", SCHEMA)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise UserError(
            f"{path} has schema {schema}, and this version of the suite knows {SCHEMA} at most; "
            "use the version that wrote the run, or a newer one"
        )
    return content


def _planned(cell: Mapping[str, Any]) -> PlannedCell:
    return PlannedCell(
        id=cell["id"],
        variant=cell["variant"],
        factors=dict(cell["factors"]),
        seed=cell["seed"],
        control=cell.get("control"),
    )


def _record(folder: Path, cell: PlannedCell) -> dict[str, Any] | None:
    path = folder / "cells" / cell.id / "record.json"
    if not path.is_file():
        return None
    record = read_object(path)
    if record.get("status") not in ("done", "failed") or record.get("id", cell.id) != cell.id:
        raise UserError(
            f"{path} is not the record of cell {cell.id} (id {record.get('id')!r}, status "
            f"{record.get('status')!r}); delete it and start the run again with the same command"
        )
    return record


def _figures(place: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Scalars of a part of the record by dotted place; per_class and sweep have frames of their own."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            if name != "per_class":
                yield from _figures(f"{place}.{name}", value)
        elif isinstance(value, str):
            yield f"{place}.{name}", value
        elif not isinstance(value, list):
            yield f"{place}.{name}", _number(value)


def _number(value: Any) -> float:
    """NaN for everything that is no finite number: null, a missing key, the infinity of a diverged loss."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


def _log_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict):
                yield content
