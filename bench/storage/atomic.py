"""Files that are there whole, or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bench.errors import writing

TEMPORARY = re.compile(r"\..+\.\d+")  # names of files that are being written, or were when their writer died


@contextmanager
def replacing(path: Path, *, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write bytes to, which takes the name `path` when all of it is on the disk.

    Folders above it are made. What stood there before stays until then, and for good if writing fails.
    previous: in the same folder; where what stood there goes instead of being lost.
    Raises StorageError where the disk is full or may not be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if previous is not None:
                with suppress(FileNotFoundError):
                    path.replace(previous)
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left of unfinished files in `folder`; nobody else may be writing there."""
    for path in folder.glob(".*"):
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk as well; some file systems refuse that, and need not be asked."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8 by `replacing`."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write JSON by `replacing`. ValueError for NaN and infinities, which are no JSON.

    indent: None for the compact form of large files.
    """
    separators = (",", ":") if indent is None else None
    # dumps, not dump: only the former uses the fast encoder
    write_text(path, json.dumps(content, indent=indent, separators=separators, allow_nan=False))
