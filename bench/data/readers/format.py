"""What an annotation format has to provide to be read by `--data PREFIX:PATH`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.data.readers.parts import Part
from bench.data.readers.reading import Reading

# Root, parts by list, and the file of class names if there is one
ReadParts = Callable[[Path, Mapping[str, Part], Path | None], Reading]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One annotation format; each reader module defines one, and `sources.FORMATS` lists them.

    prefix: of --data. title: for messages. argument: what follows the prefix, "DIR" or a file.
    expects: what must be there, for messages.
    find: the path to write after the prefix if a data set of this format is at `path`, else None. It must be fast.
    read: read the data set at a path that `find` returned.
    read_parts: read the same annotations from the places that `bench.data.layouts` found; None if there is one place
        only.
    """

    prefix: str
    title: str
    argument: str
    expects: str
    find: Callable[[Path], Path | None]
    read: Callable[[Path], Reading]
    read_parts: ReadParts | None = None
