"""The progress of cells, read from their files."""

from __future__ import annotations

import json
from pathlib import Path

from bench.run.progress import ProgressReader
from bench.spec import Cell
from bench.storage.run_folder import cell_folder
from tests import tiny

CELL = Cell(
    variant="baseline",
    factors=(),
    control=None,
    seed=0,
    base=tiny.specification(),
    numerics=tiny.NUMERICS,
    split="",
    axes=(),
)


def _write(run: Path, *, lines: list[dict[str, str]], status: str | None) -> None:
    folder = cell_folder(run, CELL.id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "record.json").unlink(missing_ok=True)
    if status is not None:
        record = {"id": CELL.id, "status": status, "accuracy": {"AP": 0.5} if status == "done" else None}
        (folder / "record.json").write_text(json.dumps(record))


def test_a_retried_cell_is_shown_as_failed_running_and_done(tmp_path: Path) -> None:
    progress = ProgressReader(tmp_path, [CELL], set())
    assert progress.update()[CELL.id].state == "waiting"
    first = [{"phase": "preparing"}, {"phase": "training"}]
    _write(tmp_path, lines=first, status="failed")
    assert [progress.update()[CELL.id].state for _ in range(2)] == ["failed"] * 2
    again = [*first, {"phase": "preparing"}]
    _write(tmp_path, lines=again, status=None)
    assert progress.update()[CELL.id].state == "running"
    _write(tmp_path, lines=[*again, {"phase": "evaluating"}], status="done")
    assert (progress.update()[CELL.id].state, progress.update()[CELL.id].ap) == ("done", 0.5)
