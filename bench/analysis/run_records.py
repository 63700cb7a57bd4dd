"""The stored plan and records of a run, read once and provided as pandas frames.

`load_run` is the only reader of ``plan.json`` and ``cells/<id>/record.json``; tables, plots and statistics start from
the `Run` it returns. Metrics are named by their path in the record: ``accuracy.AP``, ``speed.latency_p50_ms``,
``accuracy.ground_truths.small``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError
from bench.options import WORTH
from bench.storage.forms import RecordForm
from bench.storage.own_files import check_entries
from bench.storage.records import read_form, read_json, read_log, read_plan
from bench.storage.run_folder import LOG, PLAN, RECORD, SPLIT, cell_folder

METRIC_SECTIONS = ("accuracy", "speed", "cost")  # of a record
CLASS_METRICS = ("AP", "AP50", "AP75", "AR_100", "ground_truths")
NOT_FINITE = ("the loss is ", "weights are not finite")  # how the cause of a divergence begins
LOG_METRICS = ("step", "steps", "loss", "loss_class", "loss_box", "rate", "images_per_second", "seconds")


CellKey = tuple[str, int]  # variant, seed


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One planned training. control: name of the control, None for a cell of the factorial."""

    id: str
    variant: str
    factors: Mapping[str, bool]
    seed: int
    control: str | None

    @property
    def key(self) -> CellKey:
        return self.variant, self.seed


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run on disk, finished or not.

    variants: names in the order of the plan, which all tables and plots follow.
    plan: content of plan.json.
    records: by cell id; a planned cell without a record is pending.
    train_images: images of the training split; None if the folder has no readable split.json.
    """

    folder: Path
    variants: tuple[str, ...]
    axes: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[PlannedCell, ...]
    plan: Mapping[str, Any]
    records: Mapping[str, Mapping[str, Any]]
    train_images: int | None = None

    @property
    def smoke(self) -> bool:
        """Whether the run only checks that everything works: too few steps for a result."""
        return self.plan.get("profile") == "smoke"

    @property
    def trained(self) -> bool:
        """Whether the suite trained the cells; otherwise they are given detections (`bench.compare`)."""
        return bool(self.plan.get("trained", True))

    @property
    def baseline(self) -> str | None:
        """The variant with all axes off that is not a control; None if the plan has none."""
        for cell in self.cells:
            if cell.control is None and not any(cell.factors.values()):
                return cell.variant
        return None

    def folder_of(self, cell_id: str) -> Path:
        return cell_folder(self.folder, cell_id)

    def status(self, cell: PlannedCell) -> str:
        """ "done", "failed" or "pending"."""
        return str(self.records[cell.id]["status"]) if cell.id in self.records else "pending"

    def done(self) -> Iterator[tuple[PlannedCell, Mapping[str, Any]]]:
        """Finished cells with their records, in the order of the plan."""
        for cell in self.cells:
            if self.status(cell) == "done":
                yield cell, self.records[cell.id]

    def failures(self) -> Iterator[tuple[PlannedCell, Mapping[str, Any]]]:
        """Failed cells with the `failure` section of their records: cause, step, traceback, log_tail."""
        for cell in self.cells:
            if self.status(cell) == "failed":
                yield cell, self.records[cell.id].get("failure") or {"cause": "no cause was recorded"}

    def diverged(self, cell: PlannedCell) -> bool:
        """Whether the cell failed because its loss or weights became infinite or NaN."""
        failure = self.records.get(cell.id, {}).get("failure") or {}
        if "diverged" in failure:
            return bool(failure["diverged"])
        # Records until November 2026
        return "NotFinite" in str(failure.get("traceback")) or str(failure.get("cause")).startswith(NOT_FINITE)


def load_run(folder: Path) -> Run:
    """Load the plan in `folder` and the records written so far.

    Raises UserError if the folder is not a run, a file is damaged, a link may lead out of the folder, or a newer
    version of the suite wrote it.
    """
    check_entries(folder)
    path = folder / PLAN
    plan = read_plan(folder)
    if plan is None:
        raise UserError(
            f"{folder} is not a run folder: it has no {PLAN}; pass a folder written by run_all.py, such as results/NAME"
        )
    cells = tuple(_planned(cell) for cell in plan["cells"])
    run = Run(
        folder=folder,
        variants=tuple(plan["variants"]),
        axes=tuple(plan["axes"]),
        seeds=tuple(plan["seeds"]),
        cells=cells,
        plan=plan,
        records={cell.id: record for cell in cells if (record := _record(folder, cell)) is not None},
        train_images=_train_images(folder),
    )
    unknown = sorted({cell.variant for cell in cells} - set(run.variants))
    if unknown:
        raise UserError(
            f"{path}: `cells` names {', '.join(unknown)}, but `variants` does not list it; restore the file"
        )
    return run


def worth_of(run: Run) -> float:
    """The smallest difference in AP worth having, ``--worth``, as a fraction of 1."""
    return float(run.plan.get("worth", WORTH)) / 100


def weights_checksum(record: Mapping[str, Any]) -> str | None:
    """The SHA-256 of a cell's weights.pt; None in a record of an earlier version."""
    checksum = (record.get("fingerprints") or {}).get("weights")
    return None if checksum is None else str(checksum)


def repeated_looks(run: Run) -> bool:
    """Whether seeds may have been added after a look at earlier ones: ``--first-seed``, or merged runs of other seeds.

    Intervals and p values are not corrected for that (optional stopping).
    """
    seeds = [source.get("seeds") for source in run.plan.get("merged") or ()]
    if None in seeds:  # merged before November 2026
        return len(run.seeds) > 1
    return min(run.seeds, default=0) > 0 or any(each != seeds[0] for each in seeds)


def cells_frame(run: Run) -> pd.DataFrame:
    """One row per planned cell: id, variant, control, seed, status, cause, ``factors.<axis>`` and metrics.

    Metric columns are named by their dotted path in the record (``accuracy.AP``: fraction of 1;
    ``speed.latency_p50_ms``: milliseconds); missing values are NaN. Failed cells have no metrics, even if their record
    contains some.
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
            for section in METRIC_SECTIONS:
                row |= dict(_metrics(section, run.records[cell.id].get(section) or {}))
        rows.append(row)
    frame = pd.DataFrame(rows, columns=None if rows else ["id", "variant", "control", "seed", "status", "cause"])
    causes = {cell.id: failure.get("cause") for cell, failure in run.failures()}
    frame["cause"] = frame["id"].map(causes)
    return frame


def classes_frame(run: Run) -> pd.DataFrame:
    """One row per finished cell and class: variant, seed, class, AP, AP50, AP75, AR_100, ground_truths."""
    rows = [
        {"variant": cell.variant, "seed": cell.seed, "class": name}
        | {metric: _number(metrics.get(metric)) for metric in CLASS_METRICS}
        for cell, record in run.done()
        for name, metrics in ((record.get("accuracy") or {}).get("per_class") or {}).items()
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "class", *CLASS_METRICS])


def sweep_frame(run: Run) -> pd.DataFrame:
    """One row per finished cell and batch size of the throughput sweep: variant, seed, batch, images_per_second."""
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
    """One row per cell and logged step: id, variant, seed, and `LOG_METRICS`.

    Includes failed cells and cells still training. A cell resumed from a checkpoint logs some steps twice: the later
    line counts. Skips a truncated last line.
    """
    frames = []
    for cell in run.cells:
        path = run.folder_of(cell.id) / LOG
        if not path.is_file():
            continue
        lines = [{name: _number(line.get(name)) for name in LOG_METRICS} for line in read_log(path)]
        steps = pd.DataFrame(lines, columns=list(LOG_METRICS)).dropna(subset="step")
        steps = steps.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)
        steps.insert(0, "id", cell.id)
        steps.insert(1, "variant", cell.variant)
        steps.insert(2, "seed", cell.seed)
        if len(steps):
            frames.append(steps)
    columns = ["id", "variant", "seed", *LOG_METRICS]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame([], columns=columns)


def _planned(cell: Mapping[str, Any]) -> PlannedCell:
    return PlannedCell(
        id=cell["id"],
        variant=cell["variant"],
        factors=dict(cell["factors"]),
        seed=cell["seed"],
        control=cell.get("control"),
    )


def _train_images(folder: Path) -> int | None:
    try:
        return len(read_json(folder / SPLIT)["train"]["files"])
    except (KeyError, TypeError):  # a partial copy of a run
        return None


def _record(folder: Path, cell: PlannedCell) -> dict[str, Any] | None:
    path = cell_folder(folder, cell.id) / RECORD
    if not path.is_file():
        return None
    record = read_form(path, RecordForm)
    if record.get("status") not in ("done", "failed") or record.get("id", cell.id) != cell.id:
        raise UserError(
            f"{path} is not the record of cell {cell.id} (id {record.get('id')!r}, status "
            f"{record.get('status')!r}); delete it and repeat the command"
        )
    return record


def _metrics(path: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Scalars of a record section by dotted path, without per_class and sweep, which have frames of their own."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            if name != "per_class":
                yield from _metrics(f"{path}.{name}", value)
        elif isinstance(value, str):
            yield f"{path}.{name}", value
        elif not isinstance(value, list):
            yield f"{path}.{name}", _number(value)


def _number(value: Any) -> float:
    """The value as float; NaN unless it is a finite number (null, missing key, infinite loss)."""
    try:
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        return math.nan
