"""Records and logs that are complete, damaged, or missing."""

from __future__ import annotations

import json
from pathlib import Path

from bench.storage.records import failed_record, read_json, read_log, read_record
from bench.storage.run_folder import LOG, RECORD, cell_folder, cell_folders


def _write_record(run: Path, cell_id: str, text: str) -> None:
    folder = cell_folder(run, cell_id)
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(text)


def test_damaged_foreign_and_missing_records_are_none(tmp_path: Path) -> None:
    _write_record(tmp_path, "a", '{"id": "a", "status": "done"}')
    _write_record(tmp_path, "b", '{"id": "b", "sta')
    _write_record(tmp_path, "c", '{"id": "a", "status": "done"}')
    assert read_record(tmp_path, "a") == {"id": "a", "status": "done"}
    assert [read_record(tmp_path, cell) for cell in "bcd"] == [None] * 3
    assert read_json(tmp_path / "nothing.json") is None


def test_cell_folders_are_folders_named_by_a_hash(tmp_path: Path) -> None:
    assert cell_folders(tmp_path) == []
    ids = ["0123456789ab", "ba9876543210"]
    for name in (*reversed(ids), "notes", "0123456789abc", "0123456789AB"):
        cell_folder(tmp_path, name).mkdir(parents=True)
    (cell_folder(tmp_path, ids[0]).parent / "cccccccccccc").touch()
    assert [folder.name for folder in cell_folders(tmp_path)] == ids


def test_a_log_with_a_torn_line_is_read_without_it(tmp_path: Path) -> None:
    log = tmp_path / LOG
    assert list(read_log(log)) == []
    log.write_bytes(b'{"step": 1}\n{"st\n[3]\n\xff\n{"step": 2}\n{"step"')
    assert [line["step"] for line in read_log(log)] == [1, 2]


def test_a_failed_record_says_where_training_stopped_and_has_no_figures(tmp_path: Path) -> None:
    lines = [{"phase": "training"}, *({"step": step} for step in range(1, 9)), {"phase": "evaluating"}]
    (tmp_path / LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = failed_record({"id": "a"}, cause="out of memory", folder=tmp_path, batch_too_large=True)
    assert (record["id"], record["status"]) == ("a", "failed")
    assert record["failure"]["step"] == 8
    assert record["failure"]["batch_too_large"]
    assert not record["failure"]["diverged"]
    assert failed_record({"id": "a"}, cause="NaN", folder=tmp_path, diverged=True)["failure"]["diverged"]
    assert record["failure"]["log_tail"] == lines[-5:]
    assert "accuracy" not in record
