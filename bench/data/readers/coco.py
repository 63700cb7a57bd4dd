"""Read COCO instances JSON, as columns instead of objects: train2017 has 118k images and 860k boxes.

ROOT/annotations.json                                            one file without a split
ROOT/annotations/instances_train*.json and instances_val*.json   the data's own split, also train.json and val.json
images in ROOT/images/<train2017>, ROOT/<train2017>, ROOT/images or ROOT
FILE.json                                                        any file; images below its folder
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import BOX_FIELDS, UNKNOWN
from bench.data.paths import is_file
from bench.data.problems import Problem, printable, problem
from bench.data.readers.coco_columns import Entry, column, flags, integers, numbers, repeated_pairs, rows_of_ids
from bench.data.readers.format import Format
from bench.data.readers.parts import WHOLE, Part, content_of, images_below, list_name
from bench.data.readers.raw import LEFT_OUT, MAX_IMAGE_SIDE, RawAnnotations, RawBoxes
from bench.data.readers.reading import Reading, build_reading
from bench.errors import UserError
from bench.storage.reading import read_file, reason_of

# Polygons and masks are nine tenths of a COCO file, and boxes do not need them. Removing them from the text before
# parsing saves the time and memory of millions of Python floats. It is safe: a key inside a JSON string has escaped
# quotes, and a list of numbers contains no quote.
SEGMENTS = re.compile(rb'"(segmentation|counts|keypoints)"\s*:\s*\[[][0-9eE.,+\-\s]*\]')

ROBOFLOW = "_annotations.coco.json"  # the name of its files


def read_coco(path: Path) -> Reading:
    """Read a file, or a folder in which separate files for train and val are the data's own split.

    Classes are ordered by category id. A missing `iscrowd` is 0; a missing `area` is the area of the box. The optional
    fields `difficult`, `truncated` and `occluded` (0 or 1) are read.
    Raises UserError if `path` has no such file, a file has another format, or train and val differ in their categories.
    """
    if path.is_file():
        root = path.parent.parent if path.parent.name.casefold() == "annotations" else path.parent
        files = {WHOLE: path}
    else:
        root, files = path, annotation_files(path)
    return read_coco_parts(
        root,
        {
            name: Part(annotations=file.relative_to(root).as_posix(), images=_image_folders(root, file))
            for name, file in files.items()
        },
    )


def read_coco_parts(root: Path, places: Mapping[str, Part], names: Path | None = None) -> Reading:
    """The same for files anywhere below `root`. names: not used; the files name their classes."""
    problems: list[Problem] = []
    documents = {name: _load(root / part.annotations) for name, part in places.items()}
    if all(posixpath.basename(part.annotations) == ROBOFLOW for part in places.values()):
        _remove_placeholder(list(documents.values()), ", ".join(part.annotations for part in places.values()), problems)
    parts = {name: _read_instances(documents.pop(name), part, root, problems) for name, part in places.items()}
    first, *others = parts.values()
    for other in others:
        _check_same_categories(first, other)

    image_starts = np.cumsum([0, *(len(part.files) for part in parts.values())])
    box_starts = np.cumsum([0, *(len(part.boxes) for part in parts.values())])
    files = list(parts.values())

    def image_where(row: int) -> str:
        part = int(np.searchsorted(image_starts, row, side="right")) - 1
        return files[part].image_where(row - int(image_starts[part]))

    def box_where(row: int) -> str:
        part = int(np.searchsorted(box_starts, row, side="right")) - 1
        return files[part].box_where(row - int(box_starts[part]))

    shared_ids = sum(len(np.unique(part.image_ids)) for part in files)
    shared_ids -= len(np.unique(np.concatenate([part.image_ids for part in files])))
    if shared_ids:
        where = " and ".join(part.where for part in files)
        problems.append(problem("image-ids-renumbered", where, f"{shared_ids} image ids occur in both"))
    return build_reading(
        RawAnnotations(
            root=root,
            classes=first.classes,
            category_ids=first.category_ids,
            files=[file for part in files for file in part.files],
            image_ids=np.concatenate([part.image_ids for part in files]),
            sizes=np.concatenate([part.sizes for part in files]),
            lists={
                name: np.arange(image_starts[number], image_starts[number + 1])
                for number, name in enumerate(parts)
                if name != WHOLE
            },
            boxes=_joined([part.boxes for part in files], image_starts[:-1]),
            image_where=image_where,
            box_where=box_where,
            problems=problems,
        )
    )


def _joined(parts: Sequence[RawBoxes], image_starts: NDArray[np.int64]) -> RawBoxes:
    """The boxes of all parts, with image rows shifted by `image_starts`."""
    image_of_box = [
        np.where(part.image_of_box == LEFT_OUT, LEFT_OUT, part.image_of_box + start)
        for part, start in zip(parts, image_starts, strict=True)
    ]
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in BOX_FIELDS}
    return RawBoxes(image_of_box=np.concatenate(image_of_box), **columns)


def annotation_files(root: Path) -> dict[str, Path]:
    """The JSON files to read: {"train": ..., "val": ...} (and "test"), or {WHOLE: ...} for a single file.

    Raises UserError if there are none or too many.
    """
    if (root / "annotations.json").is_file():
        return {WHOLE: root / "annotations.json"}
    folder = root / "annotations"
    found = {name: sorted(folder.glob(f"instances_{name}*.json")) for name in ("train", "val", "test")}
    for name, paths in found.items():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise UserError(f"{folder} has several {name} files ({names}). Keep only one of them.")
    if found["train"] and found["val"]:
        return {name: paths[0] for name, paths in found.items() if paths}
    single = sorted(folder.glob("instances_*.json")) or sorted(folder.glob("*.json"))
    if len(single) == 1:
        return {WHOLE: single[0]}
    if named := _files_of_lists(folder):
        return named
    what = f"{folder} has {', '.join(path.name for path in single)}" if single else "no such file was found"
    raise UserError(f"{root} needs annotations.json, or annotations/instances_train*.json and _val*.json; {what}.")


def _files_of_lists(folder: Path) -> dict[str, Path]:
    """Files that are called like a list, such as train.json and instances_Validation.json; {} without train."""
    named: dict[str, Path] = {}
    for path in sorted(folder.glob("*.json")):
        name = list_name(path.stem)
        if name is None:
            continue
        if name in named:
            raise UserError(
                f"{folder} has several {name} files ({named[name].name}, {path.name}). Keep only one of them."
            )
        named[name] = path
    return named if "train" in named else {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Instances:
    """One instances file as columns; fields as in RawAnnotations. where: the file, for messages."""

    where: str
    classes: tuple[str, ...]
    category_ids: NDArray[np.int64]
    files: list[str]
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    boxes: RawBoxes

    def image_where(self, row: int) -> str:
        return f"{self.where}, image id {self.image_ids[row]} ({self.files[row]})"

    def box_where(self, row: int) -> str:
        return f"{self.where}, annotation id {self.annotation_ids[row]}"


def _read_instances(document: Entry, part: Part, root: Path, problems: list[Problem]) -> Instances:
    where = part.annotations
    categories, images, annotations = (document[key] for key in ("categories", "images", "annotations"))

    category_ids, classes = _categories(categories, where)
    image_ids = integers(images, "id", f"{where}, images")
    names = [str(name).replace("\\", "/") for name in column(images, "file_name", f"{where}, images")]
    files = images_below(root, part.images, names)
    image_of_id, repeated = rows_of_ids(image_ids)
    sizes = _sizes(images)
    for row in repeated:
        sizes[row] = LEFT_OUT
    for first, second in repeated_pairs(image_ids[repeated], repeated):
        what = f"images number {first + 1} ({names[first]}) and {second + 1} ({names[second]}) have the same id"
        problems.append(problem("duplicate-image-id", f"{where}, image id {image_ids[first]}", what))

    annotation_ids = _annotation_ids(annotations, where)
    of_image = integers(annotations, "image_id", f"{where}, annotations")
    of_category = integers(annotations, "category_id", f"{where}, annotations")
    label_of_id, _ = rows_of_ids(category_ids)
    labels, rows = label_of_id(of_category), image_of_id(of_image)
    for at in np.flatnonzero(rows == LEFT_OUT).tolist():
        what = f"there is no image with id {of_image[at]}"
        problems.append(problem("annotation-of-unknown-image", f"{where}, annotation id {annotation_ids[at]}", what))
    for at in np.flatnonzero((labels == LEFT_OUT) & (rows != LEFT_OUT)).tolist():
        what = f"there is no category with id {of_category[at]}"
        problems.append(problem("unknown-class", f"{where}, annotation id {annotation_ids[at]}", what))
    _, repeated_annotations = rows_of_ids(annotation_ids)
    for first, second in repeated_pairs(annotation_ids[repeated_annotations], repeated_annotations):
        what = f"annotations number {first + 1} (image id {of_image[first]}) and {second + 1} "
        what += f"(image id {of_image[second]}) have the same id"
        problems.append(problem("duplicate-annotation-id", f"{where}, annotation id {annotation_ids[first]}", what))
        labels[second] = LEFT_OUT

    boxes = numbers([entry.get("bbox") for entry in annotations], 4)
    with np.errstate(over="ignore", invalid="ignore"):  # overflow gives infinity, which is reported
        boxes[:, 2:] += boxes[:, :2]
    return Instances(
        where=where,
        classes=classes,
        category_ids=category_ids,
        # One spelling for each file: ./3.jpg is 3.jpg
        files=[posixpath.normpath(file) for file in files],
        image_ids=image_ids,
        sizes=sizes,
        annotation_ids=annotation_ids,
        boxes=RawBoxes(
            image_of_box=rows,
            boxes=boxes,
            labels=labels.astype(np.int32),
            areas=_areas(annotations, where, problems),
            crowd=_crowd(annotations, where, problems),
            difficult=flags(annotations, "difficult") == 1,
            truncated=flags(annotations, "truncated"),
            occluded=flags(annotations, "occluded"),
        ),
    )


def _load(path: Path) -> Entry:
    try:
        document = json.loads(SEGMENTS.sub(b'"segmentation":0', read_file(path)))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). Export the annotations again.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}). Give a file that can be read.") from error
    for key in ("categories", "images", "annotations"):
        entries = document.get(key) if isinstance(document, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{path} has no list of objects '{key}'. Export it in COCO's instances format.")
    instances: Entry = document
    return instances


def _categories(categories: list[Entry], where: str) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    ids = integers(categories, "id", f"{where}, categories")
    names = column(categories, "name", f"{where}, categories")
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise UserError(f"{where}: a category's name is {printable(repr(name))}. It must be text.")
    names = [str(name) for name in names]
    for kind, values in (("id", ids.tolist()), ("name", names)):
        repeated = sorted({value for value in values if values.count(value) > 1})
        if repeated:
            raise UserError(f"{where}: the category {kind} {repeated[0]!r} occurs more than once. Make it unique.")
    order = np.argsort(ids)
    return ids[order], tuple(names[row] for row in order.tolist())


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
            "Use the same categories with the same ids in both files."
        )


def _image_folders(root: Path, file: Path) -> tuple[str, ...]:
    """The folders below `root` that may have the images of `file`."""
    part = file.stem.removeprefix("instances_") if file.parent != root or list_name(file.stem) else "images"
    without_year = part.rstrip("0123456789")
    return ("images", f"images/{part}", part, f"images/{without_year}", without_year, "", "data")


def _remove_placeholder(documents: Sequence[Entry], where: str, problems: list[Problem]) -> None:
    """Remove the category that Roboflow puts above the classes, number 0, if no annotation has it; report that."""
    first = [category for category in documents[0]["categories"] if category.get("id") == 0]
    if len(first) != 1 or first[0].get("supercategory") != "none":
        return
    for document in documents:
        classes = [category for category in document["categories"] if category.get("id") != 0]
        below = classes and all(category.get("supercategory") == first[0].get("name") for category in classes)
        if not below or any(annotation.get("category_id") == 0 for annotation in document["annotations"]):
            return
    for document in documents:
        document["categories"] = [category for category in document["categories"] if category.get("id") != 0]
    what = f"{first[0].get('name')!r} stands above all classes and has no box"
    problems.append(problem("placeholder-class", where, what))


def _sizes(images: list[Entry]) -> NDArray[np.int64]:
    sides = np.stack([numbers([entry.get(key) for entry in images], 1)[:, 0] for key in ("width", "height")], axis=1)
    stated = ((sides >= 1) & (sides <= MAX_IMAGE_SIDE)).all(axis=1, keepdims=True)
    sizes: NDArray[np.int64] = np.where(stated, sides, 0).astype(np.int64)
    return sizes


def _areas(annotations: list[Entry], where: str, problems: list[Problem]) -> NDArray[np.float64]:
    areas = numbers([entry.get("area") for entry in annotations], 1)[:, 0]
    usable = np.isfinite(areas) & (areas > 0)
    if unusable := int(np.sum(~usable)):
        what = f"{unusable} of {len(areas)} annotations have no positive area"
        problems.append(problem("area-from-box", where, what))
    return np.where(usable, areas, np.nan)


def _crowd(annotations: list[Entry], where: str, problems: list[Problem]) -> NDArray[np.bool_]:
    crowd = flags(annotations, "iscrowd")
    stated = np.array([entry.get("iscrowd") is not None for entry in annotations], dtype=np.bool_)
    if unclear := int(np.sum(stated & (crowd == UNKNOWN))):
        what = f"{unclear} of {len(annotations)} annotations have an 'iscrowd' that is neither 0 nor 1"
        problems.append(problem("unclear-crowd", where, what))
    return crowd == 1


def _annotation_ids(annotations: list[Entry], where: str) -> NDArray[np.int64]:
    if not any("id" in entry for entry in annotations):
        return np.arange(1, len(annotations) + 1, dtype=np.int64)
    return integers(annotations, "id", f"{where}, annotations")


def _find(path: Path) -> Path | None:
    """A JSON file, or a folder with one of the names that COCO and its tools use; not if it is another tool's JSON.

    A pipe or device of such a name is found too, so that the reader says what it is.
    """
    if path.is_file():
        files = [path] if path.suffix.lower() == ".json" else []
    else:
        files = [path / "annotations.json", *sorted((path / "annotations").glob("*.json"))]
    files = [file for file in files if is_file(file)] or [file for file in files if file.exists() and not file.is_dir()]
    return path if files and content_of(files[0]) in (None, "coco") else None


COCO = Format(
    prefix="coco",
    title="COCO",
    argument="DIR",
    expects="a folder with annotations.json or annotations/*.json, or a COCO file",
    find=_find,
    read=read_coco,
    read_parts=read_coco_parts,
)
