"""The one way to read a stored file: only regular files of bounded size, and any damage as one sentence.

Results and caches may come from a stranger. Nothing in them is executed (no pickles), reading never blocks (no pipes),
and a file of ours is not read through a link, which may name any file of the user.
"""

from __future__ import annotations

import io
import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError

MAX_BYTES = 4 << 30  # of a file, and of the arrays in an archive
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
ARCHIVE = b"PK\x03\x04"  # how an NPZ file begins
MAX_DEPTH = 50  # of nested JSON; ours has about ten
RERUN_COMMAND = "delete it and repeat the command"
RERUN_CELL = "delete the cell's folder and repeat the command to rerun the cell"
# The kind of each array (`numpy.dtype.kind`) and the names of its dimensions: equal names are of equal length. In a
# dimension such as "D/8", eight values of D are packed into a byte; an unpacked D must come before it.
ArrayForm = Mapping[str, tuple[str, tuple[str, ...]]]
KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Unreadable(UserError):
    """A stored file that cannot be read or is damaged. reason: what was found, without the path."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path} cannot be read ({reason}); {remedy}")
        self.reason = reason


def kind_of(mode: int) -> str:
    """What a `st_mode` stands for, such as "a named pipe"; "" for a regular file."""
    return next((name for is_kind, name in KINDS if is_kind(mode)), "")


def read_file(path: Path, *, limit: int = MAX_BYTES, follow: bool = True) -> bytes:
    """The bytes of a file.

    follow: whether the file may be a link.
    Raises OSError if it cannot be read, has more than `limit` bytes, or is not a regular file: reading a pipe would
    block forever, and a device has no end.
    """
    state = path.stat() if follow else path.lstat()
    if kind := kind_of(state.st_mode):
        raise OSError(f"it is {kind}, not a file")
    if state.st_size > limit:
        raise OSError(f"its {state.st_size} bytes exceed the limit of {limit}")
    return path.read_bytes()


def load_json(path: Path, *, remedy: str = RERUN_COMMAND, follow: bool = False) -> Any:
    """The content of a JSON file in UTF-8. Raises Unreadable.

    remedy: what to do about a damaged file.
    """
    try:
        data = read_file(path, follow=follow)
        content = json.loads(data.decode())
        if SURROGATE.search(data):
            json.dumps(content, ensure_ascii=False).encode()  # fails for half a letter, which no file of ours has
        if _deeper_than(content, MAX_DEPTH):
            raise RecursionError
        return content
    except UnicodeError as error:
        raise Unreadable(path, "it is not text in UTF-8", remedy) from error
    except RecursionError as error:
        raise Unreadable(path, "it is nested too deeply", remedy) from error
    except MemoryError as error:
        raise Unreadable(path, "it does not fit into memory", remedy) from error
    except (OSError, ValueError) as error:
        raise Unreadable(path, reason_of(error), remedy) from error


def load_arrays(path: Path, form: ArrayForm, *, remedy: str = RERUN_COMMAND) -> dict[str, NDArray[Any]]:
    """The arrays that `form` names in an NPZ file. Raises Unreadable, also for pickled objects.

    remedy: what to do about a damaged file.
    """
    try:
        data = read_file(path, follow=False)
        if not data.startswith(ARCHIVE):
            raise ValueError("it is not an archive of arrays")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            size = sum(member.file_size for member in archive.zip.infolist())
            if size > MAX_BYTES:
                raise ValueError(f"its arrays have {size} bytes, more than the limit of {MAX_BYTES}")
            arrays = {name: archive[name] for name in form}
        if fault := _fault(arrays, form):
            raise ValueError(fault)
        return arrays
    except Exception as error:  # a damaged archive raises errors of many kinds
        raise Unreadable(path, reason_of(error), remedy) from error


def _fault(arrays: Mapping[str, NDArray[Any]], form: ArrayForm) -> str | None:
    """The first array that has not its form, as a sentence; None if all have."""
    lengths: dict[str, int] = {}
    for name, (kind, dimensions) in form.items():
        array = arrays[name]
        if array.dtype.kind != kind or array.ndim != len(dimensions):
            return f"{name} is an array of {array.dtype} with {array.ndim} dimensions"
        for dimension, length in zip(dimensions, array.shape, strict=True):
            packed = dimension.endswith("/8")
            expected = -(-lengths[dimension[:-2]] // 8) if packed else lengths.setdefault(dimension, length)
            if length != expected:
                return f"{name} has a dimension of {length}, not {expected}"
    return None


def _deeper_than(content: Any, limit: int) -> bool:
    """Whether JSON is nested more than `limit` levels deep, so that recursion over it could fail."""
    level = [content]
    for _ in range(limit):
        parts = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
        level = [child for part in parts for child in part if isinstance(child, (dict, list))]
    return bool(level)


def reason_of(error: Exception) -> str:
    """Why reading or using the content of a file failed, without the path, to be put into parentheses."""
    if isinstance(error, Unreadable):
        return error.reason
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}"
