"""A data set in memory: flat arrays without a Python object per box.

All readers (VOC, COCO, YOLO, the built-in scenes) produce this form, and everything after them (split, batches, anchor
fitting, evaluation) uses it. COCO train2017 (118k images, 860k boxes) takes about 80 MB.

Box format in the whole project: `xyxy`, float, in pixels of the original image after its EXIF orientation is applied;
coordinates of formats that count from 1 are used as written.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1  # value of `truncated` and `occluded` if the source does not state them


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageIndex:
    """N images and their M boxes; the boxes of image i are rows ``offsets[i]:offsets[i + 1]``.

    root: folder that `files` are relative to.
    classes: C names; label k is ``classes[k]``, the network's class k + 1 (0 is background).
    category_ids: (C,) int64, the class ids of the source (1..C if it has none).
    files: N file names relative to `root`, with forward slashes.
    image_ids: (N,) int64, the image ids of the source (1..N if it has none).
    sizes: (N, 2) int32, width and height in pixels, from the annotation or else from the image header.
    offsets: (N + 1,) int64.
    boxes: (M, 4) float64, xyxy in pixels, inside the image, with positive width and height.
    labels: (M,) int32 in [0, C).
    areas: (M,) float64, pixels squared: the source's `area` (in COCO, of the segment) or the area of the box.
    crowd: (M,) bool, COCO `iscrowd`: a region of many objects; never matched as an ordinary box.
    difficult: (M,) bool, VOC `difficult`: trained on, ignored by the evaluation.
    truncated, occluded: (M,) int8: 1, 0, or UNKNOWN.
    """

    root: Path
    classes: tuple[str, ...]
    category_ids: NDArray[np.int64]
    files: tuple[str, ...]
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int32]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    truncated: NDArray[np.int8]
    occluded: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def image_of_box(self) -> NDArray[np.int64]:
        """(M,) row of each box's image."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def fractions(self) -> NDArray[np.float64]:
        """(M, 4) boxes as fractions of their image's width and height."""
        return self.boxes / np.tile(self.sizes, 2)[self.image_of_box]

    def take(self, rows: NDArray[np.int64]) -> ImageIndex:
        """The images at `rows`, in that order, with their boxes."""
        rows = np.asarray(rows, dtype=np.int64)
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(counts)))
        # Box rows without a loop: the first row of each image plus a running count within the image.
        picked = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return replace(
            self,
            files=tuple(self.files[row] for row in rows.tolist()),
            image_ids=self.image_ids[rows],
            sizes=self.sizes[rows],
            offsets=offsets,
            **{name: getattr(self, name)[picked] for name in BOX_FIELDS},
        )

    def fingerprint(self) -> str:
        """Hash of everything that training and evaluation see.

        It excludes `root` and the source's ids, so the same images and boxes have the same fingerprint in any folder
        and in any format (VOC, COCO or YOLO).
        """
        digest = hashlib.sha256()
        digest.update("\0".join(self.classes).encode())
        digest.update("\0".join(Path(name).name for name in self.files).encode())
        for name in ("sizes", "offsets", *BOX_FIELDS):
            values = getattr(self, name)
            # A text round trip (YOLO's six decimals) preserves coordinates to a hundredth of a pixel.
            digest.update(np.ascontiguousarray(values if values.dtype.kind != "f" else np.round(values, 2)).tobytes())
        return digest.hexdigest()[:16]


BOX_FIELDS = ("boxes", "labels", "areas", "crowd", "difficult", "truncated", "occluded")
assert set(BOX_FIELDS) <= {field.name for field in fields(ImageIndex)}
