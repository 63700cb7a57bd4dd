"""Data of a given size for the benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data.index import ImageIndex
from bench.evaluation.detections import Detections


def made_split(*, images: int, classes: int, each: int) -> tuple[ImageIndex, Detections]:
    """An index with eight boxes per image, and `each` detections per image, a third of them shifted ground truths."""
    rng = np.random.default_rng(0)
    extent = np.exp(rng.uniform(np.log(10), np.log(200), (8 * images, 2)))
    corner = rng.uniform(0, 1, extent.shape) * (np.array([640, 480]) - extent)
    boxes = np.concatenate((corner, corner + extent), axis=1)
    flags = np.zeros(len(boxes), dtype=bool)
    unknown = np.full(len(boxes), -1, dtype=np.int8)
    index = ImageIndex(
        root=Path(),
        classes=tuple(f"class {label}" for label in range(classes)),
        category_ids=np.arange(1, classes + 1),
        files=tuple(f"{row}.jpg" for row in range(images)),
        image_ids=np.arange(1, images + 1),
        sizes=np.tile(np.array([640, 480], dtype=np.int32), (images, 1)),
        offsets=np.arange(images + 1) * 8,
        boxes=boxes,
        labels=rng.integers(0, classes, len(boxes)).astype(np.int32),
        areas=extent.prod(axis=1),
        crowd=flags,
        difficult=flags,
        truncated=unknown,
        occluded=unknown,
    )
    image = np.repeat(np.arange(images), each)
    near = image * 8 + rng.integers(0, 8, len(image))
    moved = boxes[near] + rng.normal(0, 6, (len(image), 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    stray = rng.integers(0, classes, len(image))
    labels = np.where(rng.random(len(image)) < 1 / 3, index.labels[near], stray)
    detections = Detections(
        image=image,
        boxes=moved.astype(np.float32),
        scores=rng.random(len(image)).astype(np.float32),
        labels=labels.astype(np.int32),
    )
    return index, detections
