"""The smallest detector and data on the real code paths: timm's tiny network, coloured rectangles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.index import ImageIndex
from bench.detector.backbones import Backbone
from bench.detector.prior_presets import preset_shapes
from bench.spec import Numerics, Specification
from variants.baseline import baseline, training_of

NAME = "test_efficientnet"
NUMERICS = Numerics(device="cpu", precision="float32", threads=1)


def weights_file(path: Path) -> Path:
    """Random weights of the tiny network in a file: to the suite they are pretrained."""
    torch.manual_seed(0)
    torch.save(Backbone(NAME, "none").features.state_dict(), path)
    return path


def specification(weights: str = "none", *, classes: int = 2) -> Specification:
    """The baseline of a smoke run on the tiny network."""
    return baseline(
        classes=classes,
        backbone=NAME,
        weights=weights,
        weights_fingerprint="",
        priors=preset_shapes("coco"),
        training=training_of("smoke", 8, scenes=False),
    )


class Pixels:
    """Pictures in memory, by row."""

    def __init__(self, pictures: list[NDArray[np.uint8]]) -> None:
        self.pictures = pictures

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        return self.pictures[row]


def rectangles(images: int = 6, *, empty: tuple[int, ...] = (), seed: int = 0) -> tuple[ImageIndex, Pixels]:
    """Pictures of 90 x 60 with one to three coloured rectangles, none on those in `empty`; two classes."""
    generator = np.random.default_rng(seed)
    pictures, boxes, labels, counts = [], [], [], []
    for row in range(images):
        picture = np.full((60, 90, 3), 40, dtype=np.uint8)
        count = 0 if row in empty else int(generator.integers(1, 4))
        for _ in range(count):
            left, top = generator.integers(0, 60), generator.integers(0, 35)
            wide, high = generator.integers(8, 30), generator.integers(8, 25)
            label = int(generator.integers(2))
            picture[top : top + high, left : left + wide] = ((230, 30, 30), (30, 230, 30))[label]
            boxes.append((left, top, left + wide, top + high))
            labels.append(label)
        pictures.append(picture)
        counts.append(count)
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    flags = np.zeros(len(corners), dtype=bool)
    index = ImageIndex(
        root=Path("nowhere"),
        classes=("red", "green"),
        category_ids=np.array([1, 2]),
        files=tuple(f"{row}.png" for row in range(images)),
        image_ids=np.arange(1, images + 1),
        sizes=np.tile(np.array([90, 60], dtype=np.int32), (images, 1)),
        offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        boxes=corners,
        labels=np.array(labels, dtype=np.int32),
        areas=(corners[:, 2:] - corners[:, :2]).prod(axis=1),
        crowd=flags,
        difficult=flags,
        truncated=np.full(len(corners), -1, dtype=np.int8),
        occluded=np.full(len(corners), -1, dtype=np.int8),
    )
    return index, Pixels(pictures)
