"""How the cells of a run stand, read from what they have written; works across processes and machines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench.spec import Cell
from bench.storage.records import json_lines, read_record
from bench.storage.run_folder import cell_folder

State = Literal["waiting", "running", "done", "failed", "kept"]


@dataclass(frozen=True, kw_only=True)
class CellState:
    """What there is to say about a cell now. ap: fraction of 1, when it is done."""

    state: State = "waiting"
    phase: str = ""
    step: int = 0
    steps: int
    loss: float | None = None
    images_per_second: float | None = None
    ap: float | None = None


class Watch:
    """Reads the ends of logs, each line once. Logs are only ever appended to while a cell runs."""

    def __init__(self, run: Path, cells: list[Cell], kept: set[str]) -> None:
        self.run = run
        self.read: dict[str, int] = {}  # how far each cell's log was read
        self.states = {cell.id: CellState(steps=cell.base.training.steps) for cell in cells}
        for cell_id in kept:
            self.states[cell_id] = self._ended(cell_id, "kept")
        for cell in cells:
            # Lines of an earlier start say nothing about this one
            if cell.id not in kept:
                self._new_lines(cell.id)

    def look(self) -> dict[str, CellState]:
        """The states by cell id, as of now."""
        for cell_id, state in self.states.items():
            if state.state in ("waiting", "running", "failed"):  # one that has failed may be tried again
                for line in self._new_lines(cell_id):
                    self.states[cell_id] = _after(self.states[cell_id], line)
                record = read_record(self.run, cell_id) if self.states[cell_id].state == "running" else None
                if record is not None:
                    self.states[cell_id] = self._ended(cell_id, record["status"])
        return self.states

    def _ended(self, cell_id: str, state: State) -> CellState:
        record = read_record(self.run, cell_id) or {}
        before = self.states[cell_id]
        ap = (record.get("accuracy") or {}).get("AP")
        step = before.steps if state != "failed" else before.step
        return replace(before, state=state, phase="", step=step, ap=ap)

    def _new_lines(self, cell_id: str) -> list[dict[str, Any]]:
        """Whole lines that came since the last look; all lines after a resumed cell has cut its log."""
        path = cell_folder(self.run, cell_id) / "log.jsonl"
        try:
            with path.open("rb") as file:
                read = self.read.get(cell_id, 0)
                file.seek(read if read <= path.stat().st_size else 0)
                start = file.tell()
                content = file.read()
        except FileNotFoundError:
            return []
        end = content.rfind(b"\n") + 1
        self.read[cell_id] = start + end
        return list(json_lines(content[:end]))


def _after(state: CellState, line: dict[str, Any]) -> CellState:
    """The state once a line of the log has been read."""
    if "phase" in line:
        return replace(state, state="running", phase=line["phase"])
    return replace(
        state,
        state="running",
        phase="training",
        step=line["step"],
        steps=line["steps"],
        loss=line["loss"],
        images_per_second=line["images_per_second"],
    )
