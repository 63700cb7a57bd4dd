"""What a run writes, whole or not at all, and what each figure can be traced to."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CHECKPOINT = "checkpoint.pt"  # in a cell's folder, while it trains
SCHEMA = 1  # newest form of plan.json and record.json
PACKAGES = ("torch", "torchvision", "timm", "pycocotools", "numba", "numpy", "pillow", "scipy", "pandas", "joblib")
COMPUTING = ("torch", "torchvision", "timm", "pycocotools", "numba", "numpy", "pillow")  # figures come from these
REPORTING = frozenset({"analysis", "report", "diagnosis", "speed"})  # and do not come from these rooms
SOURCES = Path(__file__).resolve().parents[2]


def read_json(path: Path) -> Any:
    """The content of a file of JSON, or None where there is none or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def cell_folder(run: Path, cell_id: str) -> Path:
    """Where a cell's record, detections, log and checkpoint lie."""
    return run / "cells" / cell_id


def read_record(run: Path, cell_id: str) -> dict[str, Any] | None:
    """The cell's record, or None where it has none that is whole."""
    record = read_json(cell_folder(run, cell_id) / "record.json")
    return record if isinstance(record, dict) and record.get("id") == cell_id else None


def failed_record(
    identity: Mapping[str, Any],
    *,
    cause: str,
    folder: Path,
    traceback: str | None = None,
    batch_too_large: bool = False,
) -> dict[str, Any]:
    """The record of a cell that failed: never a number, always a reason.

    batch_too_large: more micro-batches may help; see `Numerics.micro_batches`.
    """
    log = list(read_log(folder / "log.jsonl"))
    steps = [line["step"] for line in log if "step" in line]
    failure = {
        "cause": cause,
        "batch_too_large": batch_too_large,
        "step": steps[-1] if steps else 0,
        "traceback": traceback,
        "log_tail": log[-5:],
    }
    return {**identity, "status": "failed", "failure": failure, "finished": now()}


def now() -> str:
    """The time in UTC, to the second, as ISO 8601 writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a cell's log, as far as they are whole."""
    try:
        yield from whole_lines(path.read_bytes())
    except FileNotFoundError:
        return


def whole_lines(content: bytes) -> Iterator[dict[str, Any]]:
    """Objects of JSON lines; a line that was cut off, or joined in the middle, is passed over."""
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        if isinstance(entry, dict):
            yield entry


def software_changes(run: Path) -> list[str]:
    """What computes figures now and did not compute those that `run` holds; a line for each difference.

    Compared are the packages in `COMPUTING` and our own sources, those that only analyse and report left out.
    """
    records = [read_json(path) for path in sorted(run.glob("cells/*/record.json"))]
    done = [record for record in records if isinstance(record, dict) and record.get("status") == "done"]
    # A cell that is half done was begun by what the folder itself states
    begun = [read_json(run / "environment.json")] if any(run.glob("cells/*/checkpoint*.pt")) else []
    before = [each for each in [*(record.get("environment") for record in done), *begun] if isinstance(each, dict)]
    now = {**{name: _version(name) for name in COMPUTING}, "sources": sources_version()}
    lines = []
    for name, current in now.items():
        values = [
            each.get("sources") if name == "sources" else (each.get("packages") or {}).get(name) for each in before
        ]
        others = dict.fromkeys(str(value) for value in values if value is not None and value != current)
        if others:
            what = "this program" if name == "sources" else name
            lines.append(f"{what}: was {' and '.join(others)}, is {current}")
    return lines


def environment(device: Mapping[str, Any]) -> dict[str, Any]:
    """Software, hardware and state of the sources."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": dict(device),
        "code": code_version(),
        "sources": sources_version(),
    }


def code_version() -> str:
    """The commit, marked if the tree differs from it; or the hash of the sources where there is no git."""
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != SOURCES.resolve():  # of a project that we lie in
            return f"sources {_hash_of_sources()}"
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
    except (OSError, subprocess.SubprocessError):
        return f"sources {_hash_of_sources()}"
    return f"commit {commit}" + (f" changed, sources {_hash_of_sources()}" if changed else "")


def sources_version() -> str:
    """The hash of the sources that figures come from, whatever else has been committed since."""
    return f"sources {_hash_of_sources(without=REPORTING)}"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(SOURCES), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()


def _hash_of_sources(without: frozenset[str] = frozenset()) -> str:
    digest = hashlib.sha256()
    for folder in ("bench", "variants"):
        for path in sorted((SOURCES / folder).rglob("*.py")):
            if path.relative_to(SOURCES).parts[1] in without:
                continue
            digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
