"""The files of a comparison and the names of their detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DetectionFile:
    """The detections of one detector. name: in tables and plots."""

    name: str
    path: Path


def detection_files(words: Sequence[str]) -> tuple[DetectionFile, ...]:
    """The files that a request names, as ``FILE``, which gets its stem as name, or ``NAME=FILE``.

    Raises UserError if there are fewer than two, one does not exist, or two have the same name.
    """
    files = tuple(_detection_file(word) for word in words)
    if len(files) < 2:
        raise UserError(f"compare needs at least two files of detections, got {len(files)}; name them after compare")
    for file in files:
        same = [str(other.path) for other in files if other.name == file.name]
        if len(same) > 1:
            raise UserError(
                f"{' and '.join(same)} have the same name {file.name!r}; give each its own: first={same[0]} "
                f"second={same[1]}"
            )
    return files


def _detection_file(word: str) -> DetectionFile:
    path = Path(word)
    name = path.stem
    if not path.is_file() and "=" in word:  # a folder of a path may hold an equals sign
        name, _, rest = word.partition("=")
        path = Path(rest)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give files of detections as FILE or NAME=FILE")
    if not name.strip() or not name.isprintable():
        raise UserError(f"{word}: {name!r} is no name for a table; give another: NAME={path}")
    return DetectionFile(name=name, path=path)
