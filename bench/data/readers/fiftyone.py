"""Read FiftyOne's own labels.json (fiftyone.types.FiftyOneImageDetectionDataset), beside a folder `data` of images.

    {"classes": ["cat"], "labels": {"a": [{"label": 0, "bounding_box": [x, y, width, height]}]}}

Keys are image names without suffix; coordinates are fractions of the image. A label is a number or a name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.decode import IMAGE_SUFFIXES
from bench.data.problems import Problem, problem
from bench.data.readers.format import Format
from bench.data.readers.parts import WHOLE, Part, content_of
from bench.data.readers.pictures import Object, Picture, as_number, reading_of, sizes_of, unique
from bench.data.readers.raw import LEFT_OUT
from bench.data.readers.reading import Reading
from bench.errors import UserError
from bench.storage.reading import read_file


def read_fiftyone_parts(root: Path, parts: Mapping[str, Part], names: Path | None = None) -> Reading:
    """Read one file for each list. names: not used; the files name their classes, or those of the boxes are used.

    Raises UserError if a file has another format, or if the files name different classes.
    """
    problems: list[Problem] = []
    pictures: list[Picture] = []
    documents = {name: _load(root / part.annotations) for name, part in parts.items()}
    stated = [document.get("classes") for document in documents.values()]
    files = ", ".join(part.annotations for part in parts.values())
    if any(each != stated[0] for each in stated):
        raise UserError(f"{root}: {files} name different classes. Export them again with the same classes.")
    classes = None
    if isinstance(stated[0], list) and all(isinstance(each, str) for each in stated[0]):
        classes = unique(stated[0], root / files)
    for name, part in parts.items():
        file_of = _files_by_key(root, part.images)
        read = _pictures(root, part, documents[name]["labels"], file_of, problems)
        pictures += [replace(picture, part=name, objects=_named(picture.objects, classes)) for picture in read]
    return reading_of(root, pictures, problems, classes=classes)


def _load(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). Export the labels again.") from error
    if not isinstance(document, dict) or not isinstance(document.get("labels"), dict):
        raise UserError(f"{path} has no object 'labels'. Export it as FiftyOneImageDetectionDataset or as COCO.")
    return document


def _pictures(
    root: Path, part: Part, labels: dict[str, Any], file_of: Mapping[str, str], problems: list[Problem]
) -> list[Picture]:
    files = [file_of.get(key, Path(part.images[0], f"{key}.jpg").as_posix()) for key in labels]
    sizes = sizes_of(root, files, problems)
    pictures = []
    for (key, stated), file, size in zip(labels.items(), files, sizes, strict=True):
        where = f"{part.annotations}, {key}"
        entries = [] if stated is None else stated
        if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
            objects = [_object(entry, f"{where}, object {count}", size) for count, entry in enumerate(entries, start=1)]
            pictures.append(Picture(file=file, where=where, size=size, objects=objects))
        else:
            problems.append(problem("unreadable-annotation", where, "it is not a list of objects"))
            pictures.append(Picture(file=file, where=where, size=(LEFT_OUT, LEFT_OUT)))
    return pictures


def _object(entry: dict[str, Any], where: str, size: tuple[int, int]) -> Object:
    label, box = entry.get("label"), entry.get("bounding_box")
    values = box if isinstance(box, list) and len(box) == 4 else [None] * 4
    x, y, width, height = (as_number(value) for value in values)
    return Object(
        name=str(label) if isinstance(label, str | int) and not isinstance(label, bool) else "",
        # Rounded, because fractions of 16 digits give the pixels of the source up to a last bit
        corners=np.round(np.array([x, y, x + width, y + height]) * np.tile(size, 2), 6).tolist(),
        where=where,
        crowd=entry.get("iscrowd") in (1, True),
    )


def _named(objects: list[Object], classes: list[str] | None) -> list[Object]:
    """The objects with names in place of the numbers of classes."""
    names = {str(number): name for number, name in enumerate(classes or [])}
    return [replace(each, name=names.get(each.name, each.name)) for each in objects]


def _files_by_key(root: Path, folders: tuple[str, ...]) -> dict[str, str]:
    """The images in the first folder that has any, by name without suffix and by whole name."""
    for folder in folders:
        below = root / folder
        paths = [path for path in sorted(below.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
        names = [path.relative_to(below) for path in paths]
        if names:
            keys = {name.with_suffix("").as_posix(): name for name in names} | {name.as_posix(): name for name in names}
            return {key: (folder / name).as_posix() for key, name in keys.items()}
    return {}


def _find(path: Path) -> Path | None:
    return path if path.is_file() and path.suffix.lower() == ".json" and content_of(path) == "fiftyone" else None


def _read(path: Path) -> Reading:
    return read_fiftyone_parts(path.parent, {WHOLE: Part(annotations=path.name, images=("data", "images", ""))})


FIFTYONE = Format(
    prefix="fiftyone",
    title="FiftyOne",
    argument="DIR",
    expects="a labels.json of FiftyOne, or a folder with one",
    find=_find,
    read=_read,
    read_parts=read_fiftyone_parts,
)
