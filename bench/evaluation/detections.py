"""The final boxes of a detector on a whole split, the input of all metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import ImageIndex


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """D final boxes of a split, in any order.

    image: (D,) int64, row in the index. boxes: (D, 4) float32, xyxy in pixels of the original image.
    scores: (D,) float32. labels: (D,) int32 in [0, C), without background.

    Raises ValueError if lengths differ or a number is not finite, as after divergence.
    """

    image: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]

    def __post_init__(self) -> None:
        count = len(self.image)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.labels.shape != (count,):
            raise ValueError(
                f"detections have different lengths: image {self.image.shape}, boxes {self.boxes.shape}, "
                f"scores {self.scores.shape}, labels {self.labels.shape}"
            )
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("detections have boxes or scores that are not finite")

    def take(self, rows: NDArray[Any]) -> Detections:
        """The detections at `rows`: indices, or (D,) bool."""
        return Detections(
            image=self.image[rows], boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows]
        )


def check_rows(index: ImageIndex, detections: Detections) -> None:
    """Raise ValueError if detections have images or classes not in `index`: pycocotools would drop them silently."""
    for name, values, end in (
        ("image rows", detections.image, len(index)),
        ("labels", detections.labels, len(index.classes)),
    ):
        if len(values) and not (values.min() >= 0 and values.max() < end):
            raise ValueError(f"detections have {name} {values.min()} to {values.max()}, but there are only {end}")


def xywh(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """Convert (D, 4) boxes from xyxy to xywh in double precision, without +1."""
    corners = boxes.astype(np.float64)
    return np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
