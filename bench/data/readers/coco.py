"""COCO: instances JSON. Sized for train2017 (118k images, 860k boxes): columns, not objects.

ROOT/annotations.json                                            one file, to be split here
ROOT/annotations/instances_train*.json and instances_val*.json   the data's own split
images in ROOT/images/<train2017>, ROOT/<train2017>, ROOT/images or ROOT
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import UNKNOWN
from bench.data.problems import Problem, printable, problem
from bench.data.readers.format import Format
from bench.data.readers.reading import LEFT_OUT, MAX_IMAGE_SIDE, RawAnnotations, Reading, build_reading, is_file
from bench.errors import UserError

Entry = dict[str, Any]
# Polygons and masks are nine tenths of a COCO file and of no use to boxes. Cut out of the text before
# it is parsed, they cost neither the time nor the memory of millions of Python floats. A key inside a
# JSON string would have its quotes escaped, and a list of numbers ends before the next quote.
SEGMENTS = re.compile(rb'"(segmentation|counts|keypoints)"\s*:\s*\[[][0-9eE.,+\-\s]*\]')
MAX_ID = 2**63 - 1


def read_coco(root: Path) -> Reading:
    """Read instances JSON; the split is the data's own where there is one file for each list.

    Classes are ordered by category id. A missing `iscrowd` is 0, a missing `area` that of the box.
    The optional fields `difficult`, `truncated` and `occluded` (0 or 1) are read where present.
    Raises UserError if `root` has no such file, the file is not of this form, or train and val differ
    in their categories.
    """
    paths = annotation_files(root)
    problems: list[Problem] = []
    parts = {name: _read_instances(path, root, problems) for name, path in paths.items()}
    first, *others = parts.values()
    for other in others:
        _check_same_categories(first, other)

    image_starts = np.cumsum([0, *(len(part.files) for part in parts.values())])
    box_starts = np.cumsum([0, *(len(part.labels) for part in parts.values())])
    every_part = list(parts.values())

    def joined(field: Callable[[Instances], NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([field(part) for part in every_part])

    def image_where(row: int) -> str:
        part = int(np.searchsorted(image_starts, row, side="right")) - 1
        return every_part[part].image_where(row - int(image_starts[part]))

    def box_where(row: int) -> str:
        part = int(np.searchsorted(box_starts, row, side="right")) - 1
        return every_part[part].box_where(row - int(box_starts[part]))

    shared_ids = sum(len(np.unique(part.image_ids)) for part in every_part)
    shared_ids -= len(np.unique(joined(lambda part: part.image_ids)))
    if shared_ids:
        where = " and ".join(part.where for part in every_part)
        problems.append(problem("image-ids-renumbered", where, f"{shared_ids} image ids occur in both"))
    return build_reading(
        RawAnnotations(
            root=root,
            classes=first.classes,
            category_ids=first.category_ids,
            files=[file for part in every_part for file in part.files],
            image_ids=_distinct_ids({name: part.image_ids for name, part in parts.items()}),
            sizes=joined(lambda part: part.sizes),
            lists={
                name: np.arange(image_starts[number], image_starts[number + 1])
                for number, name in enumerate(parts)
                if name != WHOLE
            },
            image_of_box=np.concatenate(
                [
                    np.where(part.image_of_box == LEFT_OUT, LEFT_OUT, part.image_of_box + start)
                    for part, start in zip(every_part, image_starts[:-1], strict=True)
                ]
            ),
            boxes=joined(lambda part: part.boxes),
            labels=joined(lambda part: part.labels),
            areas=joined(lambda part: part.areas),
            crowd=joined(lambda part: part.crowd),
            difficult=joined(lambda part: part.difficult),
            truncated=joined(lambda part: part.truncated),
            occluded=joined(lambda part: part.occluded),
            image_where=image_where,
            box_where=box_where,
            problems=problems,
        )
    )


WHOLE = "whole"


def annotation_files(root: Path) -> dict[str, Path]:
    """The JSON files to read: {"train": ..., "val": ...} (and "test"), or {WHOLE: ...} for a single one."""
    if (root / "annotations.json").is_file():
        return {WHOLE: root / "annotations.json"}
    folder = root / "annotations"
    found = {name: sorted(folder.glob(f"instances_{name}*.json")) for name in ("train", "val", "test")}
    for name, paths in found.items():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise UserError(f"{folder} holds several {name} files ({names}). Leave one of them in the folder.")
    if found["train"] and found["val"]:
        return {name: paths[0] for name, paths in found.items() if paths}
    single = sorted(folder.glob("instances_*.json")) or sorted(folder.glob("*.json"))
    if len(single) == 1:
        return {WHOLE: single[0]}
    what = f"{folder} holds {', '.join(path.name for path in single)}" if single else "no such file was found"
    raise UserError(f"{root} needs annotations.json, or annotations/instances_train*.json and _val*.json; {what}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Instances:
    """One instances file as columns; fields as in RawAnnotations, `where` the file for messages."""

    where: str
    classes: tuple[str, ...]
    category_ids: NDArray[np.int64]
    files: list[str]
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    image_of_box: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int32]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.int8]
    occluded: NDArray[np.int8]

    def image_where(self, row: int) -> str:
        return f"{self.where}, image id {self.image_ids[row]} ({self.files[row]})"

    def box_where(self, row: int) -> str:
        return f"{self.where}, annotation id {self.annotation_ids[row]}"


def _read_instances(path: Path, root: Path, problems: list[Problem]) -> Instances:
    where = path.relative_to(root).as_posix()
    document = _load(path)
    categories, images, annotations = (document[key] for key in ("categories", "images", "annotations"))

    category_ids, classes = _categories(categories, where)
    image_ids = _integers(images, "id", f"{where}, images")
    names = [str(name).replace("\\", "/") for name in _column(images, "file_name", f"{where}, images")]
    folder = _image_folder(root, path, names)
    image_of_id, repeated = _rows_of_ids(image_ids)
    sizes = _sizes(images)
    for row in repeated:
        sizes[row] = LEFT_OUT
    for first, second in _pairs(image_ids[repeated], repeated):
        what = f"images number {first + 1} ({names[first]}) and {second + 1} ({names[second]}) have the same id"
        problems.append(problem("duplicate-image-id", f"{where}, image id {image_ids[first]}", what))

    annotation_ids = _annotation_ids(annotations, where)
    of_image = _integers(annotations, "image_id", f"{where}, annotations")
    of_category = _integers(annotations, "category_id", f"{where}, annotations")
    label_of_id, _ = _rows_of_ids(category_ids)
    labels, rows = label_of_id(of_category), image_of_id(of_image)
    for at in np.flatnonzero(rows == LEFT_OUT).tolist():
        what = f"there is no image of id {of_image[at]}"
        problems.append(problem("annotation-of-unknown-image", f"{where}, annotation id {annotation_ids[at]}", what))
    for at in np.flatnonzero((labels == LEFT_OUT) & (rows != LEFT_OUT)).tolist():
        what = f"there is no category of id {of_category[at]}"
        problems.append(problem("unknown-class", f"{where}, annotation id {annotation_ids[at]}", what))
    _, repeated_annotations = _rows_of_ids(annotation_ids)
    for first, second in _pairs(annotation_ids[repeated_annotations], repeated_annotations):
        what = f"annotations number {first + 1} (image id {of_image[first]}) and {second + 1} "
        what += f"(image id {of_image[second]}) have the same id"
        problems.append(problem("duplicate-annotation-id", f"{where}, annotation id {annotation_ids[first]}", what))
        labels[second] = LEFT_OUT

    boxes = _numbers([entry.get("bbox") for entry in annotations], 4)
    with np.errstate(over="ignore", invalid="ignore"):  # a sum beyond all floats is found as infinite
        boxes[:, 2:] += boxes[:, :2]
    return Instances(
        where=where,
        classes=classes,
        category_ids=category_ids,
        files=[folder + name for name in names],
        image_ids=image_ids,
        sizes=sizes,
        annotation_ids=annotation_ids,
        image_of_box=rows,
        boxes=boxes,
        labels=labels.astype(np.int32),
        areas=_areas(annotations, where, problems),
        crowd=_flags(annotations, "iscrowd") == 1,
        difficult=_flags(annotations, "difficult") == 1,
        truncated=_flags(annotations, "truncated"),
        occluded=_flags(annotations, "occluded"),
    )


def _load(path: Path) -> Entry:
    try:
        document = json.loads(SEGMENTS.sub(b'"segmentation":0', path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). Export the annotations again.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
    for key in ("categories", "images", "annotations"):
        entries = document.get(key) if isinstance(document, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{path} has no list of objects '{key}'. Export it in COCO's instances format.")
    found: Entry = document
    return found


def _categories(categories: list[Entry], where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    ids = _integers(categories, "id", f"{where}, categories")
    names = _column(categories, "name", f"{where}, categories")
    for name in names:
        if not isinstance(name, str | int | float):
            raise UserError(f"{where}: a category's name is {printable(repr(name))}. It must be a word.")
    names = [str(name) for name in names]
    for kind, values in (("id", ids.tolist()), ("name", names)):
        repeated = sorted({value for value in values if values.count(value) > 1})
        if repeated:
            raise UserError(f"{where}: the category {kind} {repeated[0]!r} occurs more than once. Make it unique.")
    order = np.argsort(ids)
    return ids[order], tuple(names[row] for row in order.tolist())


def _distinct_ids(parts: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The ids of all images; a list whose ids another has gets new ones, train before any other.

    So the files of results that were made for a list that is evaluated name its images by their own ids.
    """
    found: dict[str, NDArray[np.int64]] = {}
    used = np.concatenate(list(parts.values()))
    for name in sorted(parts, key=lambda name: name == "train"):
        own = parts[name]
        if found and np.isin(own, np.concatenate(list(found.values()))).any():
            own = np.setdiff1d(np.arange(1, len(used) + len(own) + 1), used)[: len(own)]
            used = np.concatenate((used, own))
        found[name] = own
    return np.concatenate([found[name] for name in parts])


def _check_same_categories(first: Instances, other: Instances) -> None:
    one = set(zip(first.category_ids.tolist(), first.classes, strict=True))
    two = set(zip(other.category_ids.tolist(), other.classes, strict=True))
    if one != two:
        only = [
            f"only in {part.where}: {', '.join(f'{name} (id {number})' for number, name in sorted(extra))}"
            for part, extra in ((first, one - two), (other, two - one))
            if extra
        ]
        raise UserError(
            f"{first.where} and {other.where} have different categories ({'; '.join(only)}). "
            "Write the same categories, with the same ids, into both files."
        )


def _image_folder(root: Path, path: Path, names: list[str]) -> str:
    """Folder under `root` (with a slash, or empty) where most of the first images are."""
    part = path.stem.removeprefix("instances_") if path.parent != root else "images"
    list_name = part.rstrip("0123456789")
    candidates = ("images/", f"images/{part}/", f"{part}/", f"images/{list_name}/", f"{list_name}/", "")
    sample = names[:50]
    hits = [sum(is_file(root / folder / name) for name in sample) for folder in candidates]
    return candidates[int(np.argmax(hits))]


def _sizes(images: list[Entry]) -> NDArray[np.int64]:
    sides = np.stack([_numbers([entry.get(key) for entry in images], 1)[:, 0] for key in ("width", "height")], axis=1)
    stated = ((sides >= 1) & (sides <= MAX_IMAGE_SIDE)).all(axis=1, keepdims=True)
    sizes: NDArray[np.int64] = np.where(stated, sides, 0).astype(np.int64)
    return sizes


def _areas(annotations: list[Entry], where: str, problems: list[Problem]) -> NDArray[np.float64]:
    areas = _numbers([entry.get("area") for entry in annotations], 1)[:, 0]
    usable = np.isfinite(areas) & (areas > 0)
    if unusable := int(np.sum(~usable)):
        what = f"{unusable} of {len(areas)} annotations have no positive area"
        problems.append(problem("area-from-box", where, what))
    return np.where(usable, areas, np.nan)


def _annotation_ids(annotations: list[Entry], where: str) -> NDArray[np.int64]:
    if annotations and "id" not in annotations[0]:
        return np.arange(1, len(annotations) + 1, dtype=np.int64)
    return _integers(annotations, "id", f"{where}, annotations")


def _flags(annotations: list[Entry], key: str) -> NDArray[np.int8]:
    values = [entry.get(key, UNKNOWN) for entry in annotations]
    if not set(map(type, values)) <= {int, bool}:
        values = [value if isinstance(value, int) else UNKNOWN for value in values]
    flags = np.array(values)
    return np.where((flags == 0) | (flags == 1), flags, UNKNOWN).astype(np.int8)


def _column(entries: list[Entry], key: str, where: str) -> list[Any]:
    try:
        return [entry[key] for entry in entries]
    except KeyError:
        number = next(number for number, entry in enumerate(entries, start=1) if key not in entry)
        raise UserError(f"{where}, number {number}: '{key}' is missing. Export it in COCO's format.") from None


def _integers(entries: list[Entry], key: str, where: str) -> NDArray[np.int64]:
    values = _column(entries, key, where)
    if not set(map(type, values)) <= {int} or max(map(abs, values), default=0) > MAX_ID:
        number, value = next(
            (number, value)
            for number, value in enumerate(values, start=1)
            if type(value) is not int or abs(value) > MAX_ID
        )
        raise UserError(f"{where}, number {number}: '{key}' is {printable(repr(value))}. It must be a whole number.")
    return np.array(values, dtype=np.int64)


def _numbers(values: list[Any], width: int) -> NDArray[np.float64]:
    """(len, width) float64; NaN where an entry is not `width` numbers. One pass where all are good."""
    try:
        return np.array(values, dtype=np.float64).reshape(len(values), width)
    except (TypeError, ValueError, OverflowError):
        pass
    numbers = np.full((len(values), width), np.nan)
    for row, value in enumerate(values):
        entry = value if isinstance(value, list) else [value]
        if len(entry) == width and all(isinstance(number, (int, float)) for number in entry):
            with contextlib.suppress(OverflowError):  # an integer beyond any float is no coordinate
                numbers[row] = entry
    return numbers


def _rows_of_ids(
    ids: NDArray[np.int64],
) -> tuple[Callable[[NDArray[np.int64]], NDArray[np.int64]], NDArray[np.int64]]:
    """A function from ids to their rows (LEFT_OUT where there is none), and the rows of repeated ids."""
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]

    def rows(wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(ascending):
            return np.full(len(wanted), LEFT_OUT, dtype=np.int64)
        at = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
        return np.where(ascending[at] == wanted, order[at], LEFT_OUT)

    occurring = np.unique(ids, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(occurring[2][occurring[1]] > 1)
    return rows, repeated


def _pairs(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(first row, later row) of every repeated id."""
    first_of: dict[int, int] = {}
    pairs = []
    for identity, row in zip(ids.tolist(), rows.tolist(), strict=True):
        if identity in first_of:
            pairs.append((first_of[identity], row))
        first_of.setdefault(identity, row)
    return pairs


def _find(path: Path) -> Path | None:
    found = (path / "annotations.json").is_file() or any((path / "annotations").glob("*.json"))
    return path if found else None


COCO = Format(
    prefix="coco",
    title="COCO",
    argument="DIR",
    expects="a folder with annotations.json or annotations/*.json",
    find=_find,
    read=read_coco,
)
