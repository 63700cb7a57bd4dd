"""Detect image files that changed since a run was started.

A run stores size, modification time, CRC-32 and change time (ctime) of each file. Later starts compare size and times,
and read a file again only if they differ: a copied or unpacked file has other times but the same content. Only the
change time also differs for a file that was replaced and then dated back.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from joblib import Parallel, delayed

from bench.data.index import ImageIndex
from bench.storage.atomic import write_json
from bench.storage.reading import Unreadable, load_json

SCHEMA = 1
FILES_PER_TASK = 64
CHUNK = 1 << 20


def save_image_files(index: ImageIndex, path: Path, *, workers: int) -> None:
    """Write size in bytes, modification time, CRC-32 and change time of every file of `index` as JSON.

    Times are in nanoseconds.
    """

    def states(names: list[str]) -> list[tuple[int, int, int, int]]:
        return [_state(index.root / name) for name in names]

    names = list(index.files)
    tasks = [names[start : start + FILES_PER_TASK] for start in range(0, len(names), FILES_PER_TASK)]
    parts = Parallel(n_jobs=workers, backend="threading")(delayed(states)(task) for task in tasks)
    files = dict(zip(names, [state for part in parts for state in part], strict=True))
    write_json(path, {"schema": SCHEMA, "files": files}, indent=None)


def changed_image_files(index: ImageIndex, path: Path) -> list[str]:
    """The files of `index` whose content changed since `path` was written; [] if it cannot be read."""
    try:
        files = load_json(path)["files"]
        states = {name: tuple(map(int, files[name])) for name in index.files if name in files}
    except (Unreadable, ValueError, KeyError, TypeError):
        return []
    changed = []
    for name, (size, time, checksum, *change) in states.items():  # an earlier version stored no change time
        now = _size_and_times(index.root / name)
        same_times = now[1] == time and change in ([], [now[2]])
        if now[0] != size or (not same_times and _checksum(index.root / name) != checksum):
            changed.append(name)
    return changed


def _state(path: Path) -> tuple[int, int, int, int]:
    size, time, change = _size_and_times(path)
    return size, time, _checksum(path), change


def _size_and_times(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value
