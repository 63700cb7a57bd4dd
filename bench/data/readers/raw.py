"""What a format's reader parses: raw columns of images and boxes, unchecked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import UNKNOWN
from bench.data.problems import Problem

NOT_STATED = 0  # width and height missing from the annotation: read from the image header
LEFT_OUT = -1  # a size, label or image row that the reader has already reported as a problem
MAX_IMAGE_SIDE = 2**31 - 1  # pixels; the index stores sizes as int32


@dataclass(frozen=True, kw_only=True, eq=False)
class RawBoxes:
    """M boxes as parsed, unchecked, in any order; columns as in ImageIndex except as stated.

    image_of_box: (M,) int64 image row; labels: (M,) int32; both LEFT_OUT if already reported.
    boxes: (M, 4) float64 xyxy in pixels, NaN if the source has no number.
    areas: (M,) float64, NaN if the source has none.
    """

    image_of_box: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int32]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.int8]
    occluded: NDArray[np.int8]

    @classmethod
    def of(
        cls, image_of_box: NDArray[np.int64], boxes: NDArray[np.float64], labels: NDArray[np.int32], **stated: Any
    ) -> RawBoxes:
        """Boxes of a format that states only the columns in `stated`."""
        count = len(labels)
        columns = {
            "areas": np.full(count, np.nan),
            "crowd": np.zeros(count, dtype=np.bool_),
            "difficult": np.zeros(count, dtype=np.bool_),
            "truncated": np.full(count, UNKNOWN, dtype=np.int8),
            "occluded": np.full(count, UNKNOWN, dtype=np.int8),
        }
        return cls(image_of_box=image_of_box, boxes=boxes, labels=labels, **columns | stated)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> RawBoxes:
        return RawBoxes(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True, kw_only=True, eq=False)
class RawAnnotations:
    """N images and their boxes as parsed, unchecked.

    sizes: (N, 2) int64 width and height; NOT_STATED if the source has none, LEFT_OUT for an image that the reader
        has already reported.
    image_ids: (N,) int64, or None if the source has no ids. Images of different lists may share an id.
    image_where, box_where: file and id of a row, for messages.
    problems: those that the reader found; `build_reading` adds to a copy.
    classes_declared: whether the source lists its classes; otherwise they are those of its boxes, and a class without
        a usable box is no class.
    """

    root: Path
    classes: tuple[str, ...]
    category_ids: NDArray[np.int64] | None
    files: list[str]
    image_ids: NDArray[np.int64] | None
    sizes: NDArray[np.int64]
    lists: dict[str, NDArray[np.int64]]
    boxes: RawBoxes
    image_where: Callable[[int], str]
    box_where: Callable[[int], str]
    problems: list[Problem]
    classes_declared: bool = True
