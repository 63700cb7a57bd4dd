"""Atomic writes: after a crash at any moment, a file is complete or as it was before."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bench.errors import writing

# Names of temporary files, which killed writers leave behind; a user has no such file
TEMPORARY = re.compile(r"\..+\.\d+\.ssd-ablation")


@contextmanager
def replacing(path: Path, *, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a binary file for writing, which replaces `path` once it is complete on the disk.

    If writing fails, `path` stays as it was. Creates missing parent folders.
    previous: a path in the same folder to move the old file to; by default the old file is overwritten.
    Raises StorageError if the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.ssd-ablation")
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


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, atomically."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write JSON atomically. Raises ValueError for NaN and infinity, which JSON does not have.

    indent: None for the compact form of large files.
    """
    separators = (",", ":") if indent is None else None
    # dumps, not dump: only dumps uses the fast encoder
    write_text(path, json.dumps(content, indent=indent, separators=separators, allow_nan=False))


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files of killed writers. No other process may be writing into `folder`."""
    for path in folder.glob(".*"):
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Flush the renaming to the disk. Some file systems cannot, and do not need it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
