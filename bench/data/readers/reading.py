"""What a reader returns, and the checks from raw annotations to an index.

VOC, COCO and YOLO differ only in how their files are parsed. Each reader fills a `RawAnnotations`; `build_reading`
checks images and boxes, keeps the good ones and reports the rest. The same images and boxes therefore give the
same index in every format.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.decode import ImageError, header_size
from bench.data.index import ImageIndex
from bench.data.problems import Problem, printable, problem
from bench.errors import UserError

NOT_STATED = 0  # width and height missing from the annotation: read from the image header
LEFT_OUT = -1  # a size, label or image row that the reader has already reported as a problem

MAX_ANNOTATION_BYTES = 64 << 20  # of one image: three times what VOC needs for 100,000 objects
MAX_CLASS_NAME = 100  # characters
MAX_IMAGE_SIDE = 2**31 - 1  # pixels; the index stores sizes as int32

# Below the precision of all annotation formats; the logarithm of such a side would dominate the box loss.
MIN_SIDE = 0.01  # pixels


def read_annotation(path: Path) -> bytes:
    """The bytes of one image's annotation file.

    Raises OSError if it cannot be read, is larger than MAX_ANNOTATION_BYTES, or is not a regular file: reading a
    pipe would block forever.
    """
    if not path.is_file():
        raise OSError(f"{path.name} is not a file")
    if path.stat().st_size > MAX_ANNOTATION_BYTES:
        raise OSError(f"its {path.stat().st_size} bytes exceed the limit of {MAX_ANNOTATION_BYTES}")
    return path.read_bytes()


def is_file(path: Path) -> bool:
    """Whether the file exists; False if its name is too long or invalid."""
    try:
        return path.is_file()
    except OSError:
        return False


def check_classes(classes: tuple[str, ...], where: str) -> None:
    """Raise UserError for a class name that is empty, too long or not printable."""
    for name in classes:
        if not name.strip() or not name.isprintable() or len(name) > MAX_CLASS_NAME:
            raise UserError(
                f"{where}: the class name {printable(name)!r} is empty, longer than {MAX_CLASS_NAME} characters, or "
                "not printable. Correct it."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """A data set as read.

    index: the good images and boxes, without those of fatal and drop problems.
    lists: the data's own split, ascending rows of `index`, under "train", "val", "test" (and "trainval" if VOC has
        only that); empty if the data have no lists.
    problems: all problems, in the order of detection.
    """

    index: ImageIndex
    lists: dict[str, NDArray[np.int64]]
    problems: list[Problem]

    def keep(self, kept: NDArray[np.bool_]) -> Reading:
        """Only the images where `kept` (N,) is true; the lists are adapted, the problems kept."""
        new_row = np.where(kept, np.cumsum(kept) - 1, LEFT_OUT)
        return Reading(
            index=self.index.take(np.flatnonzero(kept)),
            lists={name: new_row[rows][kept[rows]] for name, rows in self.lists.items()},
            problems=self.problems,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RawAnnotations:
    """N images and M boxes as parsed, unchecked; boxes in any order.

    sizes: (N, 2) int64 width and height; NOT_STATED if the source has none, LEFT_OUT for an image that the reader
        has already reported.
    image_ids: (N,) int64, or None if the source has no ids.
    boxes: (M, 4) float64 xyxy in pixels, NaN if the source has no number.
    image_of_box: (M,) int64 image row; labels: (M,) int32; both LEFT_OUT if already reported.
    areas: (M,) float64, NaN if the source has none.
    crowd, difficult: (M,) bool; truncated, occluded: (M,) int8 (see ImageIndex).
    image_where, box_where: file and id of a row, for messages.
    problems: those that the reader found; `build_reading` adds to a copy.
    """

    root: Path
    classes: tuple[str, ...]
    category_ids: NDArray[np.int64] | None
    files: list[str]
    image_ids: NDArray[np.int64] | None
    sizes: NDArray[np.int64]
    lists: dict[str, NDArray[np.int64]]
    image_of_box: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int32]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.int8]
    occluded: NDArray[np.int8]
    image_where: Callable[[int], str]
    box_where: Callable[[int], str]
    problems: list[Problem]


def build_reading(raw: RawAnnotations) -> Reading:
    """Check images, then boxes, then lists; keep the good ones, sorted by file name.

    Raises UserError for an unprintable class name.
    """
    problems = list(raw.problems)
    check_classes(raw.classes, str(raw.root))
    good, sizes = check_images(raw, problems)

    candidates = np.flatnonzero((raw.labels != LEFT_OUT) & (raw.image_of_box != LEFT_OUT))
    candidates = candidates[good[raw.image_of_box[candidates]]]
    size_of_box = sizes[raw.image_of_box[candidates]]
    clamped, verdicts = check_boxes(raw.boxes[candidates], size_of_box)
    for at in np.flatnonzero(verdicts).tolist():
        kind = BOX_VERDICTS[verdicts[at]]
        corners = ", ".join(f"{value:g}" for value in raw.boxes[candidates[at]])
        what = f"box ({corners}) in an image of {size_of_box[at, 0]}x{size_of_box[at, 1]}"
        problems.append(problem(kind, raw.box_where(int(candidates[at])), what))
    usable = np.isin(verdicts, USABLE_VERDICTS)
    kept_boxes, clamped = candidates[usable], clamped[usable]

    # One order for all formats, so that the same data have the same fingerprint and split.
    images = np.array(
        sorted(
            np.flatnonzero(good).tolist(),
            key=lambda row: (posixpath.basename(raw.files[row]), raw.files[row]),
        ),
        dtype=np.int64,
    )
    new_row = np.full(len(raw.files), LEFT_OUT, dtype=np.int64)
    new_row[images] = np.arange(len(images))
    order = np.argsort(new_row[raw.image_of_box[kept_boxes]], kind="stable")
    kept_boxes, clamped = kept_boxes[order], clamped[order]
    counts = np.bincount(new_row[raw.image_of_box[kept_boxes]], minlength=len(images))

    box_areas = (clamped[:, 2] - clamped[:, 0]) * (clamped[:, 3] - clamped[:, 1])
    areas = raw.areas[kept_boxes]
    index = ImageIndex(
        root=raw.root,
        classes=raw.classes,
        category_ids=numbered_from_one(len(raw.classes)) if raw.category_ids is None else raw.category_ids,
        files=tuple(raw.files[row] for row in images.tolist()),
        image_ids=numbered_from_one(len(images)) if raw.image_ids is None else raw.image_ids[images],
        sizes=sizes[images].astype(np.int32),
        offsets=np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64))),
        boxes=clamped,
        labels=raw.labels[kept_boxes],
        areas=np.where(np.isnan(areas), box_areas, areas),
        crowd=raw.crowd[kept_boxes],
        difficult=raw.difficult[kept_boxes],
        truncated=raw.truncated[kept_boxes],
        occluded=raw.occluded[kept_boxes],
    )
    lists = {}
    for name, rows in raw.lists.items():
        moved = new_row[rows]
        lists[name] = np.unique(moved[moved != LEFT_OUT])
    return Reading(index=index, lists=_disjoint(lists, index, problems), problems=problems)


BOX_VERDICTS = (
    "",
    "non-finite-box",
    "inverted-box",
    "zero-area-box",
    "box-outside-image",
    "box-out-of-bounds",
)
USABLE_VERDICTS = (0, BOX_VERDICTS.index("box-out-of-bounds"))


def check_boxes(boxes: NDArray[np.float64], sizes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Clip boxes to their images and judge each.

    boxes: (M, 4) xyxy in pixels. sizes: (M, 2) width and height of each box's image.
    Returns (M, 4) clipped boxes and (M,) indices into `BOX_VERDICTS`; a box is usable if its verdict is one of
    `USABLE_VERDICTS`. Boxes inside their image are returned unchanged.
    """
    finite = np.asarray(np.isfinite(boxes).all(axis=1), dtype=np.bool_)
    numbers = np.where(finite[:, None], boxes, 0.0)
    limits = np.concatenate((sizes, sizes), axis=1).astype(np.float64)
    clamped = np.clip(numbers, 0.0, limits) + 0.0  # + 0.0 turns a written "-0" into 0
    extent = numbers[:, 2:] - numbers[:, :2]
    visible = clamped[:, 2:] - clamped[:, :2]
    conditions = [
        ~finite,
        (extent < 0).any(axis=1),
        (extent < MIN_SIDE).any(axis=1),
        (visible < MIN_SIDE).any(axis=1),
        (clamped != numbers).any(axis=1),
    ]
    return clamped, np.select(conditions, list(range(1, len(BOX_VERDICTS))), default=0).astype(np.int64)


def check_images(raw: RawAnnotations, problems: list[Problem]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(N,) usable images and (N, 2) their sizes; adds the problems of the others to `problems`."""
    good = np.asarray((raw.sizes != LEFT_OUT).all(axis=1), dtype=np.bool_)
    rows_of_file: dict[str, list[int]] = {}
    for row in np.flatnonzero(good).tolist():
        rows_of_file.setdefault(raw.files[row], []).append(row)
    for file, rows in rows_of_file.items():
        if len(rows) > 1:
            # Drop all of them: each has only some of the boxes, and the missing ones would train as background.
            good[rows] = False
            places = " and ".join(raw.image_where(row) for row in rows)
            problems.append(problem("duplicate-image", file, f"described {len(rows)} times: {places}"))
    for row in np.flatnonzero(good).tolist():
        if not _is_text(raw.files[row]):
            good[row] = False
            problems.append(problem("unreadable-name", raw.files[row], "it is not valid in the file system's encoding"))
    for row in _missing_files(raw, good):
        good[row] = False
        problems.append(problem("missing-image", raw.image_where(row), f"there is no file {raw.root / raw.files[row]}"))

    sizes = raw.sizes.copy()
    unsized = np.flatnonzero(good & (sizes <= NOT_STATED).any(axis=1))
    sizes[unsized] = header_sizes(raw.root, [raw.files[row] for row in unsized.tolist()], problems)
    good &= (sizes != LEFT_OUT).all(axis=1)
    problems += [
        problem(
            "size-from-header",
            raw.image_where(row),
            f"no size; the image is {sizes[row, 0]}x{sizes[row, 1]}",
        )
        for row in unsized.tolist()
        if good[row]
    ]
    return good, sizes


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def header_sizes(root: Path, files: list[str], problems: list[Problem]) -> NDArray[np.int64]:
    """(N, 2) width and height from the image headers, after EXIF orientation, without decoding.

    LEFT_OUT for unreadable images, which are added to `problems`.
    """
    sizes = np.full((len(files), 2), LEFT_OUT, dtype=np.int64)
    for row, file in enumerate(files):
        try:
            sizes[row] = header_size(root / file)
        except ImageError as error:
            problems.append(problem_of_image(error, file))
    return sizes


def problem_of_image(error: ImageError, file: str) -> Problem:
    """The fatal problem of an image file that cannot be decoded."""
    return Problem(
        severity="fatal", kind=error.kind, where=printable(file), what=printable(error.what), remedy=error.remedy
    )


def numbered_from_one(count: int) -> NDArray[np.int64]:
    """(count,) ids for images or classes whose source has none."""
    return np.arange(1, count + 1, dtype=np.int64)


def _missing_files(raw: RawAnnotations, good: NDArray[np.bool_]) -> list[int]:
    # List each folder once instead of checking each file: COCO has 118k files, perhaps on a network disk.
    listings: dict[str, set[str]] = {}
    missing = []
    for row in np.flatnonzero(good).tolist():
        folder, name = posixpath.split(raw.files[row])
        if folder not in listings:
            path = raw.root / folder
            try:
                listings[folder] = {entry.name for entry in os.scandir(path)}
            except (OSError, ValueError):  # missing folder, or an invalid name
                listings[folder] = set()
        # File systems that ignore case or Unicode normalisation open files listed under another spelling.
        if name not in listings[folder] and not is_file(raw.root / raw.files[row]):
            missing.append(row)
    return missing


def _disjoint(
    lists: dict[str, NDArray[np.int64]], index: ImageIndex, problems: list[Problem]
) -> dict[str, NDArray[np.int64]]:
    """The lists with train cleared of the images that are in val or test; reports those."""
    if "train" not in lists:
        return lists
    train = lists["train"]
    for name in ("val", "test"):
        shared = np.intersect1d(train, lists.get(name, train[:0]))
        what = f"in the lists train and {name}"
        problems += [problem("image-in-two-lists", index.files[row], what) for row in shared.tolist()]
        train = np.setdiff1d(train, shared)
    return {**lists, "train": train}
