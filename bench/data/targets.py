"""The padded ground truths of a batch, which the data pipeline passes to the loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """Ground truths of a batch, padded to G boxes per image.

    boxes: (B, G, 4) float32 xyxy, as fractions of the input; padding is all zeros.
    labels: (B, G) int64, 1..C for objects, 0 for padding and crowds.
    crowd: (B, G) bool, regions where a prior is neither positive nor negative.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor

    def to(self, device: str) -> Targets:
        """The same on another device."""
        moved = (value.to(device, non_blocking=True) for value in (self.boxes, self.labels, self.crowd))
        return Targets(*moved)

    def split(self, count: int) -> list[Targets]:
        """The targets of `count` parts of the batch, in order and of nearly equal size."""
        parts = (value.tensor_split(count) for value in (self.boxes, self.labels, self.crowd))
        return [Targets(*part) for part in zip(*parts, strict=True)]
