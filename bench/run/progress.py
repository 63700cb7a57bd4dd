"""The state of every cell, read from its log and record; so it works across processes and machines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.spec import Cell
from bench.storage.records import CellState, json_lines, read_record
from bench.storage.run_folder import LOG, cell_folder


@dataclass(frozen=True, kw_only=True)
class CellProgress:
    """How far a cell is. ap: fraction of 1, once it is done."""

    state: CellState = "waiting"
    phase: str = ""
    step: int = 0
    steps: int
    loss: float | None = None
    images_per_second: float | None = None
    ap: float | None = None


class ProgressReader:
    """Follows the logs and records of a run's cells; reads every line once.

    kept: ids of the cells that an earlier start of the run has finished.
    """

    def __init__(self, run: Path, cells: Sequence[Cell], kept: Collection[str]) -> None:
        self._run = run
        self._offsets: dict[str, int] = {}  # bytes of each log that have been read
        self.cells = {cell.id: CellProgress(steps=cell.base.training.steps) for cell in cells}
        for cell_id in self.cells:
            if cell_id in kept:
                self.cells[cell_id] = self._ended(cell_id, "kept")
            else:
                self._new_lines(cell_id)  # skip what an earlier start has logged

    def update(self) -> dict[str, CellProgress]:
        """Read what is new; the progress by cell id."""
        for cell_id, progress in self.cells.items():
            if progress.state in ("waiting", "running", "failed"):  # a failed cell may be retried
                for line in self._new_lines(cell_id):
                    self.cells[cell_id] = _after(self.cells[cell_id], line)
                record = read_record(self._run, cell_id) if self.cells[cell_id].state == "running" else None
                if record is not None:
                    self.cells[cell_id] = self._ended(cell_id, record["status"])
        return self.cells

    def _ended(self, cell_id: str, state: CellState) -> CellProgress:
        record = read_record(self._run, cell_id) or {}
        before = self.cells[cell_id]
        ap = (record.get("accuracy") or {}).get("AP")
        step = before.steps if state != "failed" else before.step
        return replace(before, state=state, phase="", step=step, ap=ap)

    def _new_lines(self, cell_id: str) -> list[dict[str, Any]]:
        """Complete lines since the last call; all lines if a resumed cell has shortened its log."""
        path = cell_folder(self._run, cell_id) / LOG
        try:
            with path.open("rb") as file:
                offset = self._offsets.get(cell_id, 0)
                file.seek(offset if offset <= path.stat().st_size else 0)
                start = file.tell()
                content = file.read()
        except FileNotFoundError:
            return []
        end = content.rfind(b"\n") + 1
        self._offsets[cell_id] = start + end
        return list(json_lines(content[:end]))


def _after(progress: CellProgress, line: dict[str, Any]) -> CellProgress:
    """The progress after a line of the log."""
    if "phase" in line:
        return replace(progress, state="running", phase=line["phase"])
    return replace(
        progress,
        state="running",
        phase="training",
        step=line["step"],
        steps=line["steps"],
        loss=line["loss"],
        images_per_second=line["images_per_second"],
    )
