"""Records and logs of cells, as written and as read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench.errors import UserError
from bench.storage.run_folder import CELL_ID, LOG, PLAN, RECORD, cell_folder

CellState = Literal["waiting", "running", "done", "failed", "kept"]  # kept: done in an earlier start of the run
SCHEMA = 1  # newest schema of plan.json and record.json
LOG_TAIL = 5  # lines of the log in the record of a failure


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if it does not exist or is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return None


def as_read(content: Any) -> Any:
    """Content as it is read back from JSON: tuples are lists."""
    return json.loads(json.dumps(content))


def read_json_object(path: Path, *, remedy: str = "delete it and repeat the command") -> dict[str, Any]:
    """Read a JSON object. Raises UserError if it is damaged or its schema is newer than this version supports.

    remedy: for a damaged file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object; {remedy}")
    schema = content.get("schema", SCHEMA)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise UserError(
            f"{path} has schema {schema}, but this version of the suite supports at most {SCHEMA}; "
            "use the version that wrote the run, or a newer one"
        )
    return content


def read_plan(run: Path) -> dict[str, Any] | None:
    """The plan of the run in a folder; None if there is no plan.json.

    Raises UserError if plan.json is damaged, is not a plan of this suite, or was written by a newer version.
    """
    path = run / PLAN
    if not path.exists():
        return None
    remedy = "restore it from a copy, or choose another folder: --out results/NAME"
    plan = read_json_object(path, remedy=remedy)
    if not _is_plan(plan):
        raise UserError(f"{path} is not a plan of this suite; {remedy}")
    return plan


def _is_plan(content: Mapping[str, Any]) -> bool:
    lists = [content.get(name) for name in ("variants", "axes", "seeds", "cells")]
    if not all(isinstance(each, list) for each in lists) or not isinstance(content.get("numerics", {}), dict):
        return False
    return all(
        isinstance(cell, dict) and isinstance(cell.get("id"), str) and CELL_ID.fullmatch(cell["id"])
        for cell in content["cells"]
    )


def read_record(run: Path, cell_id: str) -> dict[str, Any] | None:
    """The cell's record; None if it does not exist or is damaged."""
    record = read_json(cell_folder(run, cell_id) / RECORD)
    return record if isinstance(record, dict) and record.get("id") == cell_id else None


def failed_record(
    identity: Mapping[str, Any],
    *,
    cause: str,
    folder: Path,
    traceback: str | None = None,
    batch_too_large: bool = False,
    diverged: bool = False,
) -> dict[str, Any]:
    """The record of a failed cell. It has a cause and no figures.

    folder: of the cell; the end of its log is copied into the record.
    batch_too_large: more micro-batches may help; see `Numerics.micro_batches`.
    diverged: the loss or the weights became infinite or NaN, which is an outcome of the training, not of the machine.
    """
    log = list(read_log(folder / LOG))
    steps = [line["step"] for line in log if "step" in line]
    failure = {
        "cause": cause,
        "batch_too_large": batch_too_large,
        "diverged": diverged,
        "step": steps[-1] if steps else 0,
        "traceback": traceback,
        "log_tail": log[-LOG_TAIL:],
    }
    return {**identity, "status": "failed", "failure": failure, "finished": now()}


def now() -> str:
    """The current time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a cell's log; nothing if there is no log."""
    try:
        yield from json_lines(path.read_bytes())
    except FileNotFoundError:
        return


def json_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """The objects in JSON lines. Skips damaged lines: a killed writer leaves half a line."""
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(entry, dict):
            yield entry
