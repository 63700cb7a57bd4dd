"""What a reader returns, and the checks from raw annotations to an index.

VOC, COCO and YOLO differ only in how their files are parsed. Each reader fills a `RawAnnotations`; `build_reading`
checks images and boxes, keeps the good ones and reports the rest. The same images and boxes therefore give the
same index in every format.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.data.index import BOX_FIELDS, ImageIndex
from bench.data.problems import Problem, printable, problem
from bench.data.readers.image_checks import check_images
from bench.data.readers.raw import LEFT_OUT, RawAnnotations
from bench.errors import UserError

MAX_CLASS_NAME = 100  # characters

# Below the precision of all annotation formats; the logarithm of such a side would dominate the box loss.
MIN_SIDE = 0.01  # pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """A data set as read.

    index: the good images and boxes, without those of fatal and drop problems.
    lists: the data's own split, ascending rows of `index`, under "train", "val", "test" (and "trainval" if VOC has
        only that); empty if the data have no lists.
    problems: all problems, in the order of detection.
    source_ids: (N,) image ids as the source has them; None if it has none.
    classes_declared: see RawAnnotations.
    recognised: of which form the data are and where they were found, for the user; empty for drawn and downloaded data.
    """

    index: ImageIndex
    lists: dict[str, NDArray[np.int64]]
    problems: list[Problem]
    source_ids: NDArray[np.int64] | None = None
    classes_declared: bool = True
    recognised: str = ""

    def keep(self, kept: NDArray[np.bool_]) -> Reading:
        """Only the images where `kept` (N,) is true, as if the source had no others; the problems are kept."""
        new_row = np.where(kept, np.cumsum(kept) - 1, LEFT_OUT)
        return replace(
            self,
            index=self.index.take(np.flatnonzero(kept)),
            lists={name: new_row[rows][kept[rows]] for name, rows in self.lists.items()},
            source_ids=None if self.source_ids is None else self.source_ids[kept],
        ).numbered()

    def numbered(self) -> Reading:
        """With the image ids and classes that follow from the images and boxes at hand."""
        index = replace(self.index, image_ids=image_ids(self.source_ids, self.lists, len(self.index)))
        if not self.classes_declared:
            used = np.unique(index.labels)
            index = replace(
                index,
                classes=tuple(index.classes[label] for label in used.tolist()),
                category_ids=numbered_from_one(len(used)),
                labels=np.searchsorted(used, index.labels).astype(np.int32),
            )
        return replace(self, index=index)


def build_reading(raw: RawAnnotations) -> Reading:
    """Check images, then boxes, then lists; keep the good ones, sorted by file name.

    Raises UserError for an unprintable class name.
    """
    problems = list(raw.problems)
    check_classes(raw.classes, str(raw.root))
    good, sizes = check_images(raw, problems)

    candidates = np.flatnonzero((raw.boxes.labels != LEFT_OUT) & (raw.boxes.image_of_box != LEFT_OUT))
    candidates = candidates[good[raw.boxes.image_of_box[candidates]]]
    boxes = raw.boxes.take(candidates)
    size_of_box = sizes[boxes.image_of_box]
    clamped, verdicts = check_boxes(boxes.boxes, size_of_box)
    for at in np.flatnonzero(verdicts).tolist():
        kind = BOX_VERDICTS[verdicts[at]]
        corners = ", ".join(f"{value:g}" for value in boxes.boxes[at])
        what = f"box ({corners}) in an image of {size_of_box[at, 0]}x{size_of_box[at, 1]}"
        problems.append(problem(kind, raw.box_where(int(candidates[at])), what))

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
    usable = np.flatnonzero(np.isin(verdicts, USABLE_VERDICTS))
    usable = usable[np.argsort(new_row[boxes.image_of_box[usable]], kind="stable")]
    boxes, clamped = boxes.take(usable), clamped[usable]
    counts = np.bincount(new_row[boxes.image_of_box], minlength=len(images))

    box_areas = (clamped[:, 2] - clamped[:, 0]) * (clamped[:, 3] - clamped[:, 1])
    columns = {name: getattr(boxes, name) for name in BOX_FIELDS}
    columns |= {"boxes": clamped, "areas": np.where(np.isnan(boxes.areas), box_areas, boxes.areas)}
    index = ImageIndex(
        root=raw.root,
        classes=raw.classes,
        category_ids=numbered_from_one(len(raw.classes)) if raw.category_ids is None else raw.category_ids,
        files=tuple(raw.files[row] for row in images.tolist()),
        image_ids=numbered_from_one(len(images)),
        sizes=sizes[images].astype(np.int32),
        offsets=np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64))),
        **columns,
    )
    lists = {}
    for name, rows in raw.lists.items():
        moved = new_row[rows]
        lists[name] = np.unique(moved[moved != LEFT_OUT])
    return Reading(
        index=index,
        lists=_disjoint(lists, index, problems),
        problems=problems,
        source_ids=None if raw.image_ids is None else raw.image_ids[images],
        classes_declared=raw.classes_declared,
    ).numbered()


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


def check_classes(classes: tuple[str, ...], where: str) -> None:
    """Raise UserError for a class name that is empty, too long or not printable."""
    for name in classes:
        if not name.strip() or not name.isprintable() or len(name) > MAX_CLASS_NAME:
            raise UserError(
                f"{where}: the class name {printable(name)!r} is empty, longer than {MAX_CLASS_NAME} characters, or "
                "not printable. Correct it."
            )


def image_ids(
    source_ids: NDArray[np.int64] | None, lists: Mapping[str, NDArray[np.int64]], count: int
) -> NDArray[np.int64]:
    """(count,) distinct ids; a list that shares ids with another gets new ones, train before the others.

    Evaluated lists thus keep their ids, so existing result files still refer to the right images.
    source_ids: see Reading. lists: rows of each list.
    """
    if source_ids is None:
        return numbered_from_one(count)
    ids = source_ids.copy()
    used, kept = np.unique(ids), ids[:0]
    for name in sorted(lists, key=lambda name: name == "train"):
        rows = lists[name]
        if np.isin(ids[rows], kept).any():
            ids[rows] = np.setdiff1d(np.arange(1, len(used) + len(rows) + 1), used)[: len(rows)]
            used = np.concatenate((used, ids[rows]))
        kept = np.concatenate((kept, ids[rows]))
    return ids


def numbered_from_one(count: int) -> NDArray[np.int64]:
    """(count,) ids for images or classes whose source has none."""
    return np.arange(1, count + 1, dtype=np.int64)


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
