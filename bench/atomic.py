"""Files that are there whole, or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write bytes to, which takes the name `path` when all of it is on the disk.

    Folders above it are made. What stood there before stays until then, and for good if writing fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write JSON by `replacing`. ValueError for NaN and infinities, which are no JSON.

    indent: None for the compact form of large files.
    """
    separators = (",", ":") if indent is None else None
    # dumps, not dump: only the former uses the fast encoder
    text = json.dumps(content, indent=indent, separators=separators, allow_nan=False)
    with replacing(path) as file:
        file.write(text.encode())
