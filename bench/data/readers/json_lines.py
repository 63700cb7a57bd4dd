"""Read metadata.jsonl of Hugging Face's ImageFolder: one JSON object for each image beside it.

    {"file_name": "a.jpg", "objects": {"bbox": [[x, y, width, height]], "categories": ["cat"]}}

Boxes are in pixels. Numbers in place of class names are used as names, unless a classes.txt lists the names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data.paths import read_lines
from bench.data.problems import Problem, problem
from bench.data.readers.format import Format
from bench.data.readers.parts import WHOLE, Part, images_below
from bench.data.readers.pictures import Object, Picture, as_number, class_names, reading_of, sizes_of
from bench.data.readers.raw import LEFT_OUT
from bench.data.readers.reading import Reading

BOXES = ("bbox", "bboxes", "boxes")
CLASSES = ("categories", "category", "labels", "label", "class")


def read_json_lines_parts(root: Path, parts: Mapping[str, Part], names: Path | None = None) -> Reading:
    """Read one file for each list. names: a file of class names, one in each line, for boxes with class numbers.

    Raises UserError if a file cannot be read.
    """
    problems: list[Problem] = []
    pictures: list[Picture] = []
    classes = None if names is None else class_names(names)
    for name, part in parts.items():
        pictures += _pictures(root, name, part, classes, problems)
    return reading_of(root, pictures, problems, classes=classes)


def _pictures(root: Path, name: str, part: Part, classes: list[str] | None, problems: list[Problem]) -> list[Picture]:
    entries: list[tuple[str, dict[str, Any]]] = []
    for count, line in enumerate(read_lines(root / part.annotations), start=1):
        where = f"{part.annotations}, entry {count}"
        entry = _entry(line)
        if entry is None:
            problems.append(problem("unreadable-annotation", where, "it is not a JSON object with a file_name"))
        else:
            entries.append((where, entry))
    listed = [str(entry["file_name"]).replace("\\", "/") for _, entry in entries]
    files = images_below(root, part.images, listed)
    objects_of = [_objects(entry.get("objects"), where, classes, problems) for where, entry in entries]
    sizes = sizes_of(root, files, problems)
    return [
        Picture(
            file=file,
            where=where,
            size=(LEFT_OUT, LEFT_OUT) if objects is None else size,
            part=name,
            objects=objects or [],
        )
        for file, (where, _), size, objects in zip(files, entries, sizes, objects_of, strict=True)
    ]


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("file_name"), str) else None


def _objects(stated: object, where: str, classes: list[str] | None, problems: list[Problem]) -> list[Object] | None:
    """The boxes of an image; None, reported, if they are not lists of equal length."""
    if stated is None:
        return []
    columns = stated if isinstance(stated, dict) else {}
    boxes = next((columns[key] for key in BOXES if key in columns), None)
    labels = next((columns[key] for key in CLASSES if key in columns), None)
    if not isinstance(boxes, list) or not isinstance(labels, list) or len(boxes) != len(labels):
        what = "its objects need 'bbox' and 'categories', lists of the same length"
        problems.append(problem("unreadable-annotation", where, what))
        return None
    areas, crowd = _list(columns.get("area")), _list(columns.get("iscrowd"))
    return [
        Object(
            name=_class_name(label, classes),
            corners=_corners(box),
            where=f"{where}, object {at + 1}",
            area=_positive(areas, at),
            crowd=at < len(crowd) and crowd[at] in (1, True),
        )
        for at, (box, label) in enumerate(zip(boxes, labels, strict=True))
    ]


def _class_name(label: object, classes: list[str] | None) -> str:
    if isinstance(label, bool) or not isinstance(label, str | int):
        return ""
    if classes is not None and isinstance(label, int) and 0 <= label < len(classes):
        return classes[label]
    return str(label)


def _corners(box: object) -> list[float]:
    values = [as_number(value) for value in box] if isinstance(box, list) and len(box) == 4 else [as_number(None)] * 4
    x, y, width, height = values
    return [x, y, x + width, y + height]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _positive(areas: list[Any], at: int) -> float:
    area = as_number(areas[at]) if at < len(areas) else as_number(None)
    return area if 0 < area < math.inf else as_number(None)


def _find(path: Path) -> Path | None:
    return path if path.is_file() and path.suffix.lower() == ".jsonl" else None


def _read(path: Path) -> Reading:
    return read_json_lines_parts(path.parent, {WHOLE: Part(annotations=path.name, images=("", "images"))})


JSON_LINES = Format(
    prefix="jsonl",
    title="Hugging Face metadata.jsonl",
    argument="DIR",
    expects="a metadata.jsonl file, or a folder with one",
    find=_find,
    read=_read,
    read_parts=read_json_lines_parts,
)
