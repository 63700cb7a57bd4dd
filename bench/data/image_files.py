"""Detect image files that changed since a run was started.

A run stores size, modification time and CRC-32 of each file. Later starts compare size and time, and read a file again
only if they differ: a copied or unpacked file has another time but the same content.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from joblib import Parallel, delayed

from bench.data.index import ImageIndex
from bench.storage.atomic import write_json

SCHEMA = 1
FILES_PER_TASK = 64
CHUNK = 1 << 20


def save_image_files(index: ImageIndex, path: Path, *, workers: int) -> None:
    """Write size in bytes, modification time in nanoseconds and CRC-32 of every file of `index` as JSON."""

    def states(names: list[str]) -> list[tuple[int, int, int]]:
        return [(*_size_and_time(index.root / name), _checksum(index.root / name)) for name in names]

    names = list(index.files)
    tasks = [names[start : start + FILES_PER_TASK] for start in range(0, len(names), FILES_PER_TASK)]
    parts = Parallel(n_jobs=workers, backend="threading")(delayed(states)(task) for task in tasks)
    files = dict(zip(names, [state for part in parts for state in part], strict=True))
    write_json(path, {"schema": SCHEMA, "files": files}, indent=None)


def changed_image_files(index: ImageIndex, path: Path) -> list[str]:
    """The files of `index` whose content changed since `path` was written; [] if it cannot be read."""
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    changed = []
    for name in index.files:
        if name in files:
            size, time, checksum = files[name]
            now = _size_and_time(index.root / name)
            if now != (size, time) and (now[0] != size or _checksum(index.root / name) != checksum):
                changed.append(name)
    return changed


def _size_and_time(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value
