"""Images and boxes one by one, for formats that are parsed that way; `reading_of` turns them into columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.data.index import UNKNOWN
from bench.data.paths import read_lines
from bench.data.problems import Problem, printable, problem
from bench.data.readers.image_checks import header_sizes
from bench.data.readers.parts import WHOLE
from bench.data.readers.raw import LEFT_OUT, NOT_STATED, RawAnnotations, RawBoxes
from bench.data.readers.reading import Reading, build_reading
from bench.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Object:
    """One box as parsed, unchecked: xyxy in pixels. where: file and place in it, for messages. See RawBoxes."""

    name: str
    corners: Sequence[float]
    where: str
    area: float = np.nan
    crowd: bool = False
    difficult: bool = False
    truncated: int = UNKNOWN
    occluded: int = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image as parsed, unchecked. file: relative to the root. where: its annotation, for messages.

    size: width and height; NOT_STATED, or LEFT_OUT for an image that is already reported. part: its list, or WHOLE.
    """

    file: str
    where: str
    size: tuple[int, int] = (NOT_STATED, NOT_STATED)
    part: str = WHOLE
    objects: list[Object] = field(default_factory=list)


def reading_of(
    root: Path,
    pictures: Sequence[Picture],
    problems: list[Problem],
    *,
    classes: Sequence[str] | None = None,
    lists: dict[str, list[int]] | None = None,
) -> Reading:
    """Check the pictures and build their index.

    classes: in order; objects of other classes are fatal problems. By default, all names found, sorted.
    lists: rows of `pictures`; by default their `part`.
    """
    objects = [each for picture in pictures for each in picture.objects]
    names = tuple(classes) if classes is not None else tuple(sorted({each.name for each in objects} - {""}))
    label_of = {name: label for label, name in enumerate(names)}
    for each in objects:
        if each.name not in label_of:
            what = f"class {each.name!r} is not one of {len(names)} classes" if each.name else "it has no name"
            problems.append(problem("unknown-class", each.where, what))
    if lists is None:
        lists = {}
        for row, picture in enumerate(pictures):
            if picture.part != WHOLE:
                lists.setdefault(picture.part, []).append(row)
    return build_reading(
        RawAnnotations(
            root=root,
            classes=names,
            category_ids=None,
            files=[picture.file for picture in pictures],
            image_ids=None,
            sizes=np.array([picture.size for picture in pictures], dtype=np.int64).reshape(-1, 2),
            lists={name: np.array(rows, dtype=np.int64) for name, rows in lists.items()},
            boxes=RawBoxes.of(
                np.repeat(np.arange(len(pictures)), [len(picture.objects) for picture in pictures]),
                np.array([each.corners for each in objects], dtype=np.float64).reshape(-1, 4),
                np.array([label_of.get(each.name, LEFT_OUT) for each in objects], dtype=np.int32),
                areas=np.array([each.area for each in objects], dtype=np.float64),
                crowd=np.array([each.crowd for each in objects], dtype=np.bool_),
                difficult=np.array([each.difficult for each in objects], dtype=np.bool_),
                truncated=np.array([each.truncated for each in objects], dtype=np.int8),
                occluded=np.array([each.occluded for each in objects], dtype=np.int8),
            ),
            image_where=lambda row: pictures[row].where,
            box_where=lambda row: objects[row].where,
            problems=problems,
            classes_declared=classes is not None,
        )
    )


def sizes_of(root: Path, files: list[str], problems: list[Problem]) -> list[tuple[int, int]]:
    """Width and height of each image from its header, for formats that state none; see `header_sizes`."""
    return [(width, height) for width, height in header_sizes(root, files, problems).tolist()]


def class_names(path: Path) -> list[str]:
    """The classes in a text file, one in each line. Raises UserError if there are none, or one is repeated."""
    return unique(read_lines(path), path)


def unique(names: list[str], path: Path) -> list[str]:
    """The class names of a file as they are. Raises UserError if there are none, or one is repeated."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not names:
        found = f"names the class {printable(repeated[0])!r} more than once" if repeated else "names no classes"
        raise UserError(f"{path} {found}. Name each class once, in the order of their numbers.")
    return names


def as_number(text: object) -> float:
    """A number, also one written as text; NaN for anything else, which is reported as a box that is not finite."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        return np.nan
    try:
        return float(text)
    except (ValueError, OverflowError):
        return np.nan
