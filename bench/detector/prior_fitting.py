"""Fitting prior shapes to boxes, and measuring how many boxes prior shapes can match.

IoUs are those on the real grid: of all priors of one shape, the one in the cell nearest to a box overlaps it most. So
the best IoU of a box is exact without building all 8732 priors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import ImageIndex
from bench.data.subsets import SIZES, size_of_area
from bench.spec import DetectorSpec, Shape

SAMPLE = 20_000  # most boxes used for fitting; more do not change the shapes
KMEANS_ITERATIONS = 100
LEAST_BOXES = 10  # per shape of a level
UPWARD = 1.6
CHUNK = 100_000  # boxes at a time: the IoUs of COCO's 860,000 boxes with all shapes would take gigabytes

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The feature map of each of K prior shapes.

    level: (K,) index of the level. step: (K,) distance of neighbouring cells, as a fraction of the input.
    side: (K,) cells in a row of the map.
    """

    level: NDArray[np.int64]
    step: Floats
    side: NDArray[np.int64]

    @classmethod
    def of(cls, spec: DetectorSpec) -> Grid:
        """The grid of a detector's shapes, level by level."""
        counts = [len(level) for level in spec.priors]
        return cls(
            level=np.repeat(np.arange(len(counts)), counts),
            step=np.repeat(np.array(spec.steps) / spec.size, counts),
            side=np.repeat(np.array(spec.feature_maps), counts),
        )


def best_overlaps(boxes: Floats, shapes: Floats, grid: Grid) -> Floats:
    """(M, K) IoU of each box (M, 4), xyxy in fractions, with the best prior of each shape (K, 2) on its grid."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = boxes[:, 2:] - boxes[:, :2]
    intersection = np.ones((len(boxes), len(shapes)))
    for axis in range(2):
        cell = np.clip(np.floor(centre[:, axis, None] / grid.step), 0, grid.side - 1)
        distance = np.abs(centre[:, axis, None] - (cell + 0.5) * grid.step)
        overlap = (size[:, axis, None] + shapes[:, axis]) / 2 - distance
        intersection *= np.clip(np.minimum(overlap, np.minimum(size[:, axis, None], shapes[:, axis])), 0, None)
    union = size.prod(axis=1)[:, None] + shapes.prod(axis=1) - intersection
    return intersection / np.maximum(union, np.finfo(np.float64).tiny)


def matchable_boxes(index: ImageIndex) -> Floats:
    """(M, 4) boxes to match and fit priors to, xyxy as fractions of their images: all except crowds."""
    return index.fractions()[~index.crowd]


def flat_shapes(priors: Sequence[Sequence[Shape]]) -> Floats:
    """(K, 2) shapes of all levels, in order."""
    return np.array([shape for level in priors for shape in level], dtype=np.float64)


def fit_shapes(boxes: Floats, spec: DetectorSpec) -> tuple[tuple[Shape, ...], ...]:
    """Fit shapes to boxes (M, 4), xyxy in fractions, level by level; each level keeps its number of shapes.

    k-means with the distance 1 - IoU (Redmon and Farhadi 2017) among the boxes that `boxes_of_levels` gives to a level.
    A level keeps its shapes if it has few boxes, or if the fitted ones lower the mean IoU of all boxes with their best
    priors on the real grid. Deterministic.
    docs/remedies.md has what was tried.
    """
    if not len(boxes):
        return spec.priors
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), SAMPLE)).astype(np.int64)]
    sizes = boxes[:, 2:] - boxes[:, :2]
    priors, overlap = list(spec.priors), recall(boxes, spec)["mean_best_iou"]
    for place, own in enumerate(boxes_of_levels(sizes, spec.priors)):
        before = priors[place]
        if own.sum() < LEAST_BOXES * len(before):
            continue
        priors[place] = _fit_level(sizes[own], before)
        now = recall(boxes, replace(spec, priors=tuple(priors)))["mean_best_iou"]
        if now < overlap:
            priors[place] = before
        else:
            overlap = now
    return tuple(priors)


def boxes_of_levels(sizes: Floats, priors: Sequence[Sequence[Shape]]) -> list[NDArray[np.bool_]]:
    """For each level, which of the boxes with these sizes (M, 2) its shapes should serve.

    Each box has its own level, by its size: the geometric mean of its sides, or half of the longer one if that is more,
    so that the cells of a slender box's level see all of it. The levels meet in the geometric middle of their scales.
    Levels above the finest also serve boxes up to `UPWARD` times larger than their own, so that these have more
    positive priors. The finest does not: its cells see little more than boxes of its own size.
    """
    scales = [float(np.median([np.sqrt(width * height) for width, height in level])) for level in priors]
    edges = [0.0, *(float(np.sqrt(one * other)) for one, other in pairwise(scales)), np.inf]
    mean, half = np.sqrt(sizes.prod(axis=1)), sizes.max(axis=1) / 2
    own = np.maximum(mean, half)
    return [
        (own >= low) & (half < high) & (mean < high * (UPWARD if place else 1))
        for place, (low, high) in enumerate(pairwise(edges))
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Coverage:
    """How K shapes match M boxes on the real grid.

    best: (M,) IoU of each box with its best prior. shape: (M,) index of that prior's shape.
    matches: (M, K) bool, whether a prior of the shape reaches the matching threshold.
    """

    best: Floats
    shape: NDArray[np.int64]
    matches: NDArray[np.bool_]

    @classmethod
    def of(cls, boxes: Floats, spec: DetectorSpec) -> Coverage:
        """The coverage of boxes (M, 4), xyxy in fractions, by the detector's shapes."""
        grid, shapes = Grid.of(spec), flat_shapes(spec.priors)
        best, shape, matches = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros((0, len(shapes)), bool)]
        for start in range(0, len(boxes), CHUNK):
            overlap = best_overlaps(boxes[start : start + CHUNK], shapes, grid)
            best.append(overlap.max(axis=1))
            shape.append(overlap.argmax(axis=1))
            matches.append(overlap >= spec.match_threshold)
        return cls(best=np.concatenate(best), shape=np.concatenate(shape), matches=np.concatenate(matches))


def recall(boxes: Floats, spec: DetectorSpec) -> dict[str, Any]:
    """The share of boxes (M, 4), xyxy in fractions, that some prior matches, as JSON data.

    boxes: M; the only entry if there are none. matched: the share. mean_best_iou: over all boxes.
    matched_by_level: the share that each level matches; a box may count for several levels.
    best_by_level: the share matched with the best prior on that level; these add up to `matched`.
    only_by_level: the share that only this level matches.
    by_size_network: boxes and matched by size at the network's resolution.
    """
    if not len(boxes):
        return {"boxes": 0}
    coverage = Coverage.of(boxes, spec)
    level = Grid.of(spec).level
    matched = np.asarray(coverage.matches.any(axis=1))
    levels = np.stack([coverage.matches[:, level == each].any(axis=1) for each in range(len(spec.priors))], axis=1)
    only = levels & (levels.sum(axis=1, keepdims=True) == 1)
    best = np.bincount(level[coverage.shape[matched]], minlength=levels.shape[1]) / len(boxes)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * spec.size**2
    size_index = size_of_area(area)
    return {
        "boxes": len(boxes),
        "matched": float(matched.mean()),
        "mean_best_iou": float(coverage.best.mean()),
        "matched_by_level": levels.mean(axis=0).tolist(),
        "best_by_level": best.tolist(),
        "only_by_level": only.mean(axis=0).tolist(),
        "by_size_network": {
            name: {"boxes": int(of_size.sum()), "matched": float(matched[of_size].mean()) if of_size.any() else None}
            for name, of_size in ((name, size_index == index) for index, name in enumerate(SIZES))
        },
    }


def recall_by_shape(boxes: Floats, spec: DetectorSpec) -> list[list[dict[str, float]]]:
    """For each level and shape, the shares of boxes (M, 4) that need it; empty without boxes.

    best: boxes that it matches best; these add up to the `matched` of `recall`.
    only: boxes that no other shape matches, on any level.
    """
    if not len(boxes):
        return []
    coverage = Coverage.of(boxes, spec)
    shapes = coverage.matches.shape[1]
    best = np.bincount(coverage.shape[coverage.matches.any(axis=1)], minlength=shapes) / len(boxes)
    only = (coverage.matches & (coverage.matches.sum(axis=1, keepdims=True) == 1)).mean(axis=0)
    pairs = iter(zip(best.tolist(), only.tolist(), strict=True))
    return [[{"best": b, "only": o} for b, o in islice(pairs, len(level))] for level in spec.priors]


def _fit_level(sizes: Floats, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    """The shapes of a level fitted to the sizes (M, 2) of its boxes, sorted by area.

    k-means starts from the level's shapes, and from sizes drawn far from one another (k-means++); the result with the
    higher mean IoU is kept. Rounded, so that a file of them reads back the same.
    """
    found = [_kmeans(sizes, start) for start in (np.array(shapes, dtype=np.float64), _spread(sizes, len(shapes)))]
    best = max(found, key=lambda each: float(_iou(sizes, each).max(axis=1).mean()))
    rows = np.round(best[np.argsort(best.prod(axis=1), kind="stable")], 6)
    return tuple((float(width), float(height)) for width, height in rows)


def _kmeans(sizes: Floats, shapes: Floats) -> Floats:
    """Lloyd's algorithm from `shapes` (K, 2); a shape without boxes stays. Returns the shapes with the highest IoU."""
    best, highest = shapes, -1.0
    for _ in range(KMEANS_ITERATIONS):
        overlap = _iou(sizes, shapes)
        mean = float(overlap.max(axis=1).mean())
        if mean <= highest + 1e-6:
            break
        best, highest = shapes, mean
        owner = overlap.argmax(axis=1)
        counts = np.bincount(owner, minlength=len(shapes))
        # Geometric means, since half and twice a side have the same IoU
        sums = [np.bincount(owner, np.log(sizes[:, axis]), minlength=len(shapes)) for axis in range(2)]
        means = np.exp(np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None])
        shapes = np.where(counts[:, None] > 0, means, shapes)
    return best


def _spread(sizes: Floats, count: int) -> Floats:
    """(count, 2) of the sizes: the median, then draws with a probability of the squared distance 1 - IoU."""
    generator = np.random.default_rng(0)
    chosen = np.exp(np.median(np.log(sizes), axis=0))[None]
    while len(chosen) < count:
        weights = (1 - _iou(sizes, chosen).max(axis=1)) ** 2 + np.finfo(np.float64).tiny
        chosen = np.concatenate((chosen, sizes[[generator.choice(len(sizes), p=weights / weights.sum())]]))
    return chosen


def _iou(sizes: Floats, shapes: Floats) -> Floats:
    """(M, K) IoU of boxes of sizes (M, 2) with shapes (K, 2), centres aligned."""
    intersection = np.minimum(sizes[:, None], shapes).prod(axis=2)
    return intersection / (sizes.prod(axis=1)[:, None] + shapes.prod(axis=1) - intersection)
