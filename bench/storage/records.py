"""Records and logs of cells, as written and as read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bench.errors import UserError
from bench.storage.forms import GroundTruthForm, PlanForm, RecordForm, mismatch, shown
from bench.storage.reading import RERUN_COMMAND, Unreadable, load_json, read_file
from bench.storage.run_folder import CELL_ID, LOG, PLAN, RECORD, VARIANT, cell_folder

CellState = Literal["waiting", "running", "done", "failed", "kept"]  # kept: done in an earlier start of the run
SCHEMA = 1  # newest schema of plan.json and record.json
LOG_TAIL = 5  # lines of the log in the record of a failure


def read_json(path: Path) -> Any:
    """The content of a JSON file; None if it does not exist or is damaged."""
    try:
        return load_json(path)
    except Unreadable:
        return None


def as_read(content: Any) -> Any:
    """Content as it is read back from JSON: tuples are lists."""
    return json.loads(json.dumps(content))


def read_json_object(path: Path, *, remedy: str = RERUN_COMMAND) -> dict[str, Any]:
    """Read a JSON object. Raises UserError if it is damaged or its schema is newer than this version supports.

    remedy: for a damaged file.
    """
    content = load_json(path, remedy=remedy)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object; {remedy}")
    schema = content.get("schema", SCHEMA)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise UserError(
            f"{path} has schema {schema}, but this version of the suite supports at most {SCHEMA}; "
            "use the version that wrote the run, or a newer one"
        )
    return content


def read_form(path: Path, form: Any, *, remedy: str = RERUN_COMMAND) -> dict[str, Any]:
    """Read a JSON object of a form; see `bench.storage.forms`.

    Raises UserError as `read_json_object` does, or if the object has another form.
    remedy: for a damaged file.
    """
    content = read_json_object(path, remedy=remedy)
    if fault := mismatch(content, form):
        raise Unreadable(path, fault, remedy)
    return content


def read_ground_truth(path: Path) -> dict[str, Any]:
    """Read ground_truth.json. Raises UserError if it is damaged, or if its boxes and images do not belong together."""
    content = {"images": [], "annotations": [], "categories": []} | read_form(path, GroundTruthForm)
    ids = {image["id"] for image in content["images"]}
    for image in content["images"]:
        if not (image["width"] > 0 and image["height"] > 0):
            raise Unreadable(path, f"image {image['id']} has no size", RERUN_COMMAND)
    for row, box in enumerate(content["annotations"]):
        if box["image_id"] not in ids:
            raise Unreadable(path, f"annotations[{row}] is on the unknown image {box['image_id']}", RERUN_COMMAND)
        if len(box["bbox"]) != 4:
            raise Unreadable(path, f"annotations[{row}].bbox has not 4 numbers", RERUN_COMMAND)
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
    fault = mismatch(plan, PlanForm) or _fault_of_cells(plan)
    if fault is not None:
        raise UserError(f"{path} is not a plan of this suite ({fault}); {remedy}")
    return plan


def _fault_of_cells(plan: Mapping[str, Any]) -> str | None:
    """Why the cells of a plan are not ours: ids name folders, and variants become parts of file names."""
    for row, cell in enumerate(plan["cells"]):
        if not CELL_ID.fullmatch(cell["id"]):
            return f"cells[{row}].id is {shown(cell['id'])}, not 12 hexadecimal digits"
        if not VARIANT.fullmatch(cell["variant"]):
            return f"cells[{row}].variant is {shown(cell['variant'])}, not a name of a variant"
    return None


def read_record(run: Path, cell_id: str) -> dict[str, Any] | None:
    """The cell's record; None if it does not exist or is damaged."""
    record = read_json(cell_folder(run, cell_id) / RECORD)
    return record if mismatch(record, RecordForm) is None and record.get("id") == cell_id else None


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
    """The complete lines of a cell's log; nothing if there is no log that can be read."""
    try:
        yield from json_lines(read_file(path, follow=False))
    except OSError:
        return


def json_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """The objects in JSON lines. Skips damaged lines: a killed writer leaves half a line."""
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry
