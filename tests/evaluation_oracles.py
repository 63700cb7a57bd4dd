"""Ground truths and detections, explicit or random, and plain pycocotools to score them."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bench.data.index import UNKNOWN, ImageIndex
from bench.evaluation.detections import Detections
from tests import index_builders
from tests.index_builders import LabelledBox


def index_of(boxes_of_images: Sequence[Sequence[LabelledBox]], *, classes: int = 2, side: int = 300) -> ImageIndex:
    """Square images of `side` pixels with these boxes, for which the conditions are unknown."""
    index = index_builders.index_of(boxes_of_images, size=(side, side), classes=classes)
    unknown = np.full(len(index.boxes), UNKNOWN, dtype=np.int8)
    return replace(index, truncated=unknown, occluded=unknown.copy())


def detections_of(*found: tuple[int, int, float, float, float, float, float]) -> Detections:
    """From (image, label, score, x1, y1, x2, y2)."""
    table = np.array(found, dtype=np.float64).reshape(-1, 7)
    return Detections(
        image=table[:, 0].astype(np.int64),
        boxes=table[:, 3:].astype(np.float32),
        scores=table[:, 2].astype(np.float32),
        labels=table[:, 1].astype(np.int32),
    )


def detections_at(index: ImageIndex, boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> Detections:
    """One detection for each ground truth, of the same class, at `boxes`."""
    return Detections(
        image=index.image_of_box,
        boxes=boxes.astype(np.float32),
        scores=scores.astype(np.float32),
        labels=index.labels,
    )


def random_boxes(rng: np.random.Generator, sizes: NDArray[np.int32], sides: tuple[float, float]) -> NDArray[np.float64]:
    """(K, 4) boxes inside images of `sizes` (K, 2), with sides uniform on a logarithmic scale."""
    extent = np.minimum(np.exp(rng.uniform(math.log(sides[0]), math.log(sides[1]), (len(sizes), 2))), sizes * 0.9)
    corner = rng.uniform(0, 1, extent.shape) * (sizes - extent)
    return np.concatenate((corner, corner + extent), axis=1)


def random_index(rng: np.random.Generator, *, images: int = 12, classes: int = 5) -> ImageIndex:
    """A random index with empty images, a class without ground truths, crowds and unordered ids."""
    counts = rng.integers(0, 6, images)
    sizes = rng.integers(200, 700, (images, 2)).astype(np.int32)
    boxes = random_boxes(rng, np.repeat(sizes, counts, axis=0), (8, 400))
    total = len(boxes)
    return replace(
        index_of([[(0, 0, 0, 1, 1)] * count for count in counts], classes=classes),
        category_ids=rng.permutation(90)[:classes] + 1,
        image_ids=rng.permutation(1000)[:images] + 1,
        sizes=sizes,
        boxes=boxes,
        labels=rng.integers(0, classes - 1, total).astype(np.int32),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * rng.uniform(0.4, 1, total),
        crowd=rng.random(total) < 0.15,
    )


def jittered(
    rng: np.random.Generator, index: ImageIndex, *, each: int = 3, wrong: int = 8, ties: bool = True
) -> Detections:
    """Slightly moved ground truths, some with a wrong label, and `wrong` random boxes per image."""
    rows = np.repeat(np.arange(len(index.boxes)), each)
    sides = np.tile(index.boxes[rows, 2:] - index.boxes[rows, :2], 2)
    moved = index.boxes[rows] + rng.normal(0, 0.08, sides.shape) * sides
    stray = np.repeat(np.arange(len(index)), wrong)
    boxes = np.concatenate((moved, random_boxes(rng, index.sizes[stray], (8, 400))))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = np.concatenate((index.labels[rows], rng.integers(0, len(index.classes), len(stray))))
    mistaken = rng.random(len(labels)) < 0.2
    labels[mistaken] = rng.integers(0, len(index.classes), mistaken.sum())
    scores = rng.random(len(labels))
    order = rng.permutation(len(labels))
    return Detections(
        image=np.concatenate((index.image_of_box[rows], stray))[order],
        boxes=boxes.astype(np.float32)[order],
        scores=(np.ceil(scores * 8) / 8 if ties else scores).astype(np.float32)[order],
        labels=labels.astype(np.int32)[order],
    )


def plain_pycocotools(
    truth: dict[str, Any], results: list[dict[str, Any]], image_ids: Sequence[int] | None = None
) -> Any:
    """COCOeval as users run it; without detections, an empty set, because `loadRes` rejects an empty list.

    image_ids: evaluate on these images only.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        empty = COCO()
        empty.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": []}
        empty.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(results) if results else empty, "bbox")
        if image_ids is not None:
            evaluator.params.imgIds = list(image_ids)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator
