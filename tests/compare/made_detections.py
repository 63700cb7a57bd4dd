"""Made-up detectors on small data, in memory and as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bench.compare.comparison import Comparison, compare
from bench.data.index import ImageIndex
from bench.evaluation.coco_format import detections_coco, ground_truth_coco
from bench.evaluation.detections import Detections
from tests.evaluation_oracles import index_of
from tests.index_builders import LabelledBox


def drawn_index(images: int = 24, *, seed: int = 0) -> ImageIndex:
    """Images of 300 x 300 with two to four objects of two classes, both in every image."""
    rng = np.random.default_rng(seed)
    boxes: list[list[LabelledBox]] = []
    for _ in range(images):
        own: list[LabelledBox] = []
        for place in range(int(rng.integers(2, 5))):
            left, top = rng.uniform(0, 180, 2)
            wide, high = rng.uniform(20, 115, 2)
            own.append((place % 2, float(left), float(top), float(left + wide), float(top + high)))
        boxes.append(own)
    return index_of(boxes)


def detector(index: ImageIndex, noise: float, *, seed: int, stray: int = 1) -> Detections:
    """The ground truths moved by `noise` (in sides), and `stray` wrong boxes per image; no two scores are equal."""
    rng = np.random.default_rng(seed)
    sides = np.tile(index.boxes[:, 2:] - index.boxes[:, :2], 2)
    moved = index.boxes + rng.normal(0, noise, sides.shape) * sides
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    corner = rng.uniform(0, 50, (stray * len(index), 2))
    wrong = np.concatenate((corner, corner + rng.uniform(5, 20, corner.shape)), axis=1)
    boxes = np.concatenate((moved, wrong)).astype(np.float32)
    scores = np.concatenate((rng.uniform(0.3, 1, len(moved)), rng.uniform(0, 0.6, len(wrong))))
    labels = np.concatenate((index.labels, rng.integers(0, len(index.classes), len(wrong))))
    return Detections(
        image=np.concatenate((index.image_of_box, np.repeat(np.arange(len(index)), stray))),
        boxes=boxes,
        scores=scores.astype(np.float32),
        labels=labels.astype(np.int32),
    )


def compared(
    index: ImageIndex,
    detectors: Mapping[str, Detections],
    *,
    folder: Path = Path("nowhere"),
    groups: Sequence[int] | None = None,
    replicates: int = 300,
) -> Comparison:
    """The comparison in memory; by default every image is independent."""
    return compare(
        detectors,
        index,
        np.arange(len(index)) if groups is None else np.asarray(groups, dtype=np.int64),
        folder=folder,
        data="drawn",
        worth=1.0,
        replicates=replicates,
    )


def written(path: Path, detections: Detections, index: ImageIndex) -> Path:
    """The detections as a file of results."""
    path.write_text(json.dumps(detections_coco(detections, index)))
    return path


def coco_folder(root: Path, *, trained: int = 4, validated: int = 16) -> Path:
    """A COCO folder with a list to train on and one to validate, of images that are no near-duplicates."""
    index = drawn_index(trained + validated)
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    for name in index.files:
        blocks = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((300, 300), Image.Resampling.NEAREST).save(root / "images" / name)
    sides = {"train": range(trained), "val": range(trained, trained + validated)}
    for side, rows in sides.items():
        content = ground_truth_coco(index.take(np.array(rows)))
        (root / f"annotations/instances_{side}.json").write_text(json.dumps(content))
    return root
