"""What a reader returns, and the one way from raw arrays to a checked index.

VOC, COCO and YOLO differ only in how their files are parsed. Each reader fills a `RawAnnotations`;
`build_reading` then checks images and boxes, keeps what is good, and names everything else. So the
same photographs and boxes give the same index whatever format they were written in.
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
from bench.data.problems import Problem, Severity
from bench.errors import UserError

NOT_STATED = 0  # width and height that the annotation does not give: the image header is asked
LEFT_OUT = -1  # a size, label or image row that the reader has already reported as a problem

MAX_ANNOTATION_BYTES = 64 << 20  # of one image: a hundred thousand objects in VOC's form take a third of it
LONGEST_SHOWN = 300  # letters of a name or a finding in a message
LONGEST_CLASS = 100

# Thinner than any annotation format's own precision, and its logarithm would dominate the box loss.
MIN_SIDE = 0.01  # pixels

# Every kind of problem that annotations can have: how bad it is, and what to do about it.
# (Files that cannot be decoded bring their own remedy: see decode.ImageError.)
KINDS: dict[str, tuple[Severity, str]] = {
    "duplicate-image": ("fatal", "give every image file exactly one annotation entry"),
    "duplicate-image-id": ("fatal", "give every image an id of its own; their boxes cannot be told apart"),
    "duplicate-annotation-id": ("fatal", "give every annotation an id of its own"),
    "annotation-of-unknown-image": ("fatal", "add the image to 'images', or remove the annotation"),
    "unreadable-name": ("fatal", "rename the file: its name is no text"),
    "unreadable-annotation": ("fatal", "repair the file, or remove it together with its image"),
    "listed-without-annotation": ("fatal", "add the annotation, or remove the name from the list"),
    "image-in-two-lists": ("fatal", "remove it from one of the lists: it would be trained on and scored"),
    "missing-image": ("fatal", "restore the image, or remove its annotation"),
    "unknown-class": ("fatal", "correct the class, or add it to the classes of the data set"),
    "non-finite-box": ("fatal", "give the box four finite numbers, or remove it"),
    "inverted-box": ("fatal", "swap the corners (the first must be top left), or remove the box"),
    "not-normalised": ("fatal", "divide by the image's width and height: YOLO coordinates go from 0 to 1"),
    "bad-label-line": ("fatal", "write 'class cx cy w h', or 'class x1 y1 x2 y2 x3 y3 ...' for a polygon"),
    "zero-area-box": ("drop", "remove the box, or give it an extent"),
    "box-outside-image": ("drop", "check that the annotation belongs to this image"),
    "image-without-annotation": ("drop", "annotate it; an image without objects needs an empty annotation"),
    "annotation-in-no-list": ("drop", "add the names to a list if they should be used"),
    "box-out-of-bounds": ("repair", "cut off at the image border; nothing to do if the excess is small"),
    "polygon-to-box": ("repair", "the polygon's bounding box is used; nothing to do"),
    "latin-1-annotation": ("repair", "read as Latin-1; save the file as UTF-8"),
    "size-from-header": ("repair", "the image header's size is used; write the size into the annotation"),
    "area-from-box": ("repair", "the box's area is used; export the segment's area for COCO's size buckets"),
    "duplicate-list-entry": ("repair", "counted once; remove the repetition"),
    "several-images-for-annotation": ("repair", "keep one image file for each annotation"),
    "image-ids-renumbered": ("repair", "those of train are replaced; give train and val disjoint ids"),
}


def problem(kind: str, where: str, what: str) -> Problem:
    """A `Problem` of one of the `KINDS`, with that kind's severity and remedy."""
    severity, remedy = KINDS[kind]
    return Problem(severity=severity, kind=kind, where=printable(where), what=printable(what), remedy=remedy)


def printable(text: str) -> str:
    """One line that any terminal and file takes, whatever a stranger's file name or class holds."""
    escaped = text.encode("utf-8", "backslashreplace").decode()
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in escaped)
    return line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}..."


def read_annotation(path: Path) -> bytes:
    """The bytes of the annotation of one image.

    Raises OSError where it cannot be read: also for pipes, which would wait for ever, and for files that are
    larger than any annotation.
    """
    if not path.is_file():
        raise OSError(f"{path.name} is no file")
    if path.stat().st_size > MAX_ANNOTATION_BYTES:
        raise OSError(f"its {path.stat().st_size} bytes are more than {MAX_ANNOTATION_BYTES}")
    return path.read_bytes()


def is_file(path: Path) -> bool:
    """Whether there is a file; not where the name is too long or holds what no name can."""
    try:
        return path.is_file()
    except OSError:
        return False


def check_classes(classes: tuple[str, ...], where: str) -> None:
    """Raise UserError for a class name that no table can print: empty, of many lines, or no text."""
    for name in classes:
        if not name.strip() or not name.isprintable() or len(name) > LONGEST_CLASS:
            raise UserError(
                f"{where}: the class name {printable(name)!r} is empty, longer than {LONGEST_CLASS} letters, or holds "
                "what cannot be printed. Correct it."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """A data set as read.

    index: the good images and boxes; what a fatal or drop problem concerns is not in it.
    lists: the data's own split, rows of `index` in ascending order, under "train", "val", "test"
        (and "trainval" where VOC gives that alone); empty where the data have none.
    problems: everything that was found, in the order of finding.
    """

    index: ImageIndex
    lists: dict[str, NDArray[np.int64]]
    problems: list[Problem]

    def keep(self, kept: NDArray[np.bool_]) -> Reading:
        """Only the images where `kept` (N,) is true; lists follow, problems stay."""
        new_row = np.where(kept, np.cumsum(kept) - 1, LEFT_OUT)
        return Reading(
            index=self.index.take(np.flatnonzero(kept)),
            lists={name: new_row[rows][kept[rows]] for name, rows in self.lists.items()},
            problems=self.problems,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RawAnnotations:
    """N images and M boxes as parsed, unchecked; box rows in any order.

    sizes: (N, 2) int64 width and height; NOT_STATED where the source gives none, LEFT_OUT for an
        image that the reader has reported as a problem already.
    image_ids: (N,) int64, or None where the source has no ids.
    boxes: (M, 4) float64 xyxy in pixels, NaN where the source has no number.
    image_of_box: (M,) int64 image row; labels: (M,) int32; both LEFT_OUT where already reported.
    areas: (M,) float64, NaN where the source gives none.
    crowd, difficult: (M,) bool; truncated, occluded: (M,) int8 (see ImageIndex).
    image_where, box_where: the file and id of a row, for messages.
    problems: what the reader found so far; `build_reading` adds to a copy.
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
    """Check images, then boxes, then lists; keep the good ones, sorted by file name."""
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

    # One order for all formats, so that equal data have equal fingerprints and equal splits.
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
        category_ids=counted_from_one(len(raw.classes)) if raw.category_ids is None else raw.category_ids,
        files=tuple(raw.files[row] for row in images.tolist()),
        image_ids=counted_from_one(len(images)) if raw.image_ids is None else raw.image_ids[images],
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
    return Reading(index=index, lists=_apart(lists, index, problems), problems=problems)


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
    """Boxes cut off at their images' borders, and a verdict on each.

    boxes: (M, 4) xyxy in pixels. sizes: (M, 2) width and height of each box's image.
    Returns (M, 4) clamped boxes and (M,) rows of `BOX_VERDICTS`; a box is usable where its verdict
    is one of `USABLE_VERDICTS`. Boxes that lie inside come back unchanged.
    """
    finite = np.asarray(np.isfinite(boxes).all(axis=1), dtype=np.bool_)
    numbers = np.where(finite[:, None], boxes, 0.0)
    limits = np.concatenate((sizes, sizes), axis=1).astype(np.float64)
    clamped = np.clip(numbers, 0.0, limits) + 0.0  # + 0.0 turns a written "-0" into 0
    extent = numbers[:, 2:] - numbers[:, :2]
    left = clamped[:, 2:] - clamped[:, :2]
    conditions = [
        ~finite,
        (extent < 0).any(axis=1),
        (extent < MIN_SIDE).any(axis=1),
        (left < MIN_SIDE).any(axis=1),
        (clamped != numbers).any(axis=1),
    ]
    return clamped, np.select(conditions, list(range(1, len(BOX_VERDICTS))), default=0).astype(np.int64)


def check_images(raw: RawAnnotations, problems: list[Problem]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """(N,) which images can be used and (N, 2) their sizes; adds what is wrong to `problems`."""
    good = np.asarray((raw.sizes != LEFT_OUT).all(axis=1), dtype=np.bool_)
    rows_of_file: dict[str, list[int]] = {}
    for row in np.flatnonzero(good).tolist():
        rows_of_file.setdefault(raw.files[row], []).append(row)
    for file, rows in rows_of_file.items():
        if len(rows) > 1:
            # All of them go: each holds a part of the boxes, and a part would train as background.
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
            f"no size; the image has {sizes[row, 0]}x{sizes[row, 1]}",
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

    LEFT_OUT where there is no readable image; that is added to `problems`.
    """
    sizes = np.full((len(files), 2), LEFT_OUT, dtype=np.int64)
    for row, file in enumerate(files):
        try:
            sizes[row] = header_size(root / file)
        except ImageError as error:
            problems.append(problem_of_image(error, file))
    return sizes


def problem_of_image(error: ImageError, file: str) -> Problem:
    """The fatal problem that an undecodable image file is."""
    return Problem(
        severity="fatal", kind=error.kind, where=printable(file), what=printable(error.what), remedy=error.remedy
    )


def counted_from_one(count: int) -> NDArray[np.int64]:
    """(count,) the ids of things whose source has none."""
    return np.arange(1, count + 1, dtype=np.int64)


def _missing_files(raw: RawAnnotations, good: NDArray[np.bool_]) -> list[int]:
    # One listing a folder instead of one question a file: 118k files on a network disk.
    listings: dict[str, set[str]] = {}
    missing = []
    for row in np.flatnonzero(good).tolist():
        folder, name = posixpath.split(raw.files[row])
        if folder not in listings:
            path = raw.root / folder
            try:
                listings[folder] = {entry.name for entry in os.scandir(path)}
            except (OSError, ValueError):  # no folder, or no name that a folder can have
                listings[folder] = set()
        # File systems that ignore case or Unicode forms open names that the listing spells otherwise.
        if name not in listings[folder] and not is_file(raw.root / raw.files[row]):
            missing.append(row)
    return missing


def _apart(
    lists: dict[str, NDArray[np.int64]], index: ImageIndex, problems: list[Problem]
) -> dict[str, NDArray[np.int64]]:
    """Lists in which no image that is evaluated on is trained on."""
    if "train" not in lists:
        return lists
    train = lists["train"]
    for name in ("val", "test"):
        shared = np.intersect1d(train, lists.get(name, train[:0]))
        what = f"in the lists train and {name}"
        problems += [problem("image-in-two-lists", index.files[row], what) for row in shared.tolist()]
        train = np.setdiff1d(train, shared)
    return {**lists, "train": train}
