"""Read the detections of any detector from a file in COCO's results format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import ImageIndex
from bench.errors import UserError
from bench.evaluation.detections import Detections
from bench.storage.reading import read_file

MAX_COORDINATE = np.finfo(np.float32).max / 2  # adding a side cannot overflow
NAMED = 5  # unknown ids named in an error
FORMAT = '[{"image_id": 1, "category_id": 1, "bbox": [left, top, width, height], "score": 0.9}, …]'
UNKNOWN, ELSEWHERE = -2, -1  # in place of the row of an image


def read_detections(
    path: Path, val: ImageIndex, *, data: ImageIndex | None = None, skip_unknown: bool = False
) -> tuple[Detections, int]:
    """Return the detections on images of `val`, in the order of the file, and the number of those left out.

    An image_id may be the id in the annotations or a file name, with or without its folder.

    data: all images, of which `val` are some; detections on the others are left out. By default only `val` is known.
    skip_unknown: leave out detections on unknown images too, instead of rejecting the file.

    Raises UserError if the file is not in COCO's results format, has an unknown image or class, a number that is not
    finite or a box of negative size, or if none of its images is in `val`.
    """
    images, categories, boxes, scores = _columns(path, _entries(path))
    rows = _rows(images, val, data)
    if (rows == UNKNOWN).any() and not skip_unknown:
        unknown = list(dict.fromkeys(str(image) for image, row in zip(images, rows, strict=True) if row == UNKNOWN))
        raise UserError(
            f"{path}: {len(unknown)} unknown image_id ({_some(unknown)}); use the ids or file names of the images, for "
            f"example {val.image_ids[0]} or {val.files[0]}, or add --skip-invalid to leave these detections out"
        )
    kept = rows >= 0
    if len(rows) and not kept.any():
        raise UserError(
            f"{path}: none of its images ({_some(images)}) is evaluated; detect on the evaluated images, for example "
            f"{val.image_ids[0]} or {val.files[0]}"
        )
    labels = _labels(path, categories, val)
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
    detections = Detections(
        image=rows[kept], boxes=corners[kept].astype(np.float32), scores=scores[kept], labels=labels[kept]
    )
    return detections, int(np.count_nonzero(~kept))


def _entries(path: Path) -> list[Any]:
    try:
        text = read_file(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}); give another file") from error
    if not text.strip():
        raise UserError(f"{path} is empty; a file without detections holds [], others {FORMAT}")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); expected: {FORMAT}") from error
    if isinstance(content, dict):
        names = _some(list(content))
        raise UserError(f"{path}: not a file of detections but one object with {names}; expected a list: {FORMAT}")
    if not isinstance(content, list):
        raise UserError(f"{path}: not a file of detections but {content!r:.40}; expected: {FORMAT}")
    return content


def _columns(
    path: Path, entries: Sequence[Any]
) -> tuple[list[Any], NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]:
    """Image ids, (D,) category ids, (D, 4) boxes xywh and (D,) scores."""
    try:
        images = [entry["image_id"] for entry in entries]
        categories = np.array([int(entry["category_id"]) for entry in entries], dtype=np.int64)
        boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
        with np.errstate(over="ignore"):  # an infinite score is named below
            scores = np.array([entry["score"] for entry in entries], dtype=np.float64).astype(np.float32)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path}: not a file of detections ({type(error).__name__}: {error}); expected: {FORMAT}"
        ) from error
    if scores.ndim != 1 or len(boxes) != len(images):
        raise UserError(f"{path}: each bbox must be four finite numbers and each score one; expected: {FORMAT}")
    wrong = ~((np.abs(boxes) < MAX_COORDINATE).all(axis=1) & np.isfinite(scores))
    for faults, what in (
        (wrong, "each bbox must be four finite numbers and each score one"),
        ((boxes[:, 2:] < 0).any(axis=1), "a bbox is [left, top, width, height], and neither side may be negative"),
    ):
        if faults.any():
            first = int(np.flatnonzero(faults)[0])
            found = f"bbox {boxes[first].tolist()}, score {scores[first]}"
            raise UserError(
                f"{path}: {what}; {np.count_nonzero(faults)} of {len(boxes)} differ, first entry {first + 1} ({found})"
            )
    return images, categories, boxes, scores


def _rows(images: Sequence[Any], val: ImageIndex, data: ImageIndex | None) -> NDArray[np.int64]:
    """(D,) rows in `val`, `ELSEWHERE` or `UNKNOWN`."""
    row_of: dict[int | str, int] = {} if data is None else dict.fromkeys(_names(data), ELSEWHERE)
    row_of |= _names(val)
    known = (row_of.get(image, UNKNOWN) if isinstance(image, (int, str)) else UNKNOWN for image in images)
    return np.fromiter(known, dtype=np.int64, count=len(images))


def _names(index: ImageIndex) -> dict[int | str, int]:
    """The row of each image by its file name, by that with its folder, and by its id."""
    names: dict[int | str, int] = {Path(name).name: row for row, name in enumerate(index.files)}
    names |= {name: row for row, name in enumerate(index.files)}
    return names | {identity: row for row, identity in enumerate(index.image_ids.tolist())}


def _labels(path: Path, categories: NDArray[np.int64], val: ImageIndex) -> NDArray[np.int32]:
    label_of = {category: label for label, category in enumerate(val.category_ids.tolist())}
    unknown = sorted(set(categories.tolist()) - label_of.keys())
    if unknown:
        known = _some([f"{category} {val.classes[label]}" for category, label in label_of.items()])
        raise UserError(
            f"{path}: unknown category_id {_some(unknown)}; the data have {len(label_of)} ({known}): use the category "
            "ids of the annotations, or count from 1 if they have none"
        )
    return np.array([label_of[category] for category in categories.tolist()], dtype=np.int32)


def _some(values: Sequence[Any]) -> str:
    """The first few values, for a message."""
    return ", ".join(map(str, values[:NAMED])) + (", …" if len(values) > NAMED else "")
