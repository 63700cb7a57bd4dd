"""Build small indexes from explicit boxes, for tests of everything after the readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.data.index import ImageIndex

LabelledBox = tuple[int, float, float, float, float]  # label, then xyxy in pixels


def index_of(
    boxes_of: Sequence[Sequence[LabelledBox]],
    *,
    size: tuple[int, int] = (100, 80),
    classes: int = 2,
    crowd: Sequence[int] = (),
    root: Path = Path("nowhere"),
) -> ImageIndex:
    """One image of `size` (width, height) for each list of boxes; `crowd` are rows of boxes that are crowds."""
    rows = np.array([box for boxes in boxes_of for box in boxes], dtype=np.float64).reshape(-1, 5)
    count, images = len(rows), len(boxes_of)
    boxes = rows[:, 1:]
    return ImageIndex(
        root=root,
        classes=tuple(f"class {number}" for number in range(classes)),
        category_ids=np.arange(1, classes + 1),
        files=tuple(f"{number}.png" for number in range(images)),
        image_ids=np.arange(1, images + 1),
        sizes=np.tile(np.array(size, dtype=np.int32), (images, 1)),
        offsets=np.cumsum([0, *(len(boxes) for boxes in boxes_of)]),
        boxes=boxes,
        labels=rows[:, 0].astype(np.int32),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        crowd=np.isin(np.arange(count), list(crowd)),
        difficult=np.zeros(count, dtype=np.bool_),
        truncated=np.zeros(count, dtype=np.int8),
        occluded=np.zeros(count, dtype=np.int8),
    )
