"""Paths and files as users provide them."""

from __future__ import annotations

from pathlib import Path

from bench.errors import UserError
from bench.storage.reading import read_file

MAX_ANNOTATION_BYTES = 64 << 20  # of one image: three times what VOC needs for 100,000 objects


def expanded(text: str) -> Path:
    """A path with ~ replaced by the home folder, or unchanged if there is no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_file(path: Path) -> bool:
    """Whether the file exists; False if its name is too long or invalid."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, stripped. Raises UserError if it cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace") if path.is_file() else None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}). Check its permissions.") from error
    if text is None:
        raise UserError(f"{path} is not a file. Add it.")
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_annotation(path: Path) -> bytes:
    """The bytes of one image's annotation file.

    Raises OSError if it cannot be read, is larger than MAX_ANNOTATION_BYTES, or is not a regular file.
    """
    return read_file(path, limit=MAX_ANNOTATION_BYTES)
