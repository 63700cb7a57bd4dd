"""Fitting prior shapes to boxes, and measuring how many boxes prior shapes can match.

IoUs are those on the real grid: of all priors of one shape, the one in the cell nearest to a box overlaps it most. So
the best IoU of a box is exact without building all 8732 priors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import ImageIndex
from bench.data.subsets import SIZES, size_of_area
from bench.spec import DetectorSpec, Shape

SAMPLE = 20_000  # most boxes used for fitting; more do not change the shapes
KMEANS_ITERATIONS = 40
RESEEDS = 200
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

    def row(self, shape: int) -> Grid:
        """The grid of one shape (K = 1), which `best_overlaps` broadcasts to all shapes."""
        return Grid(level=self.level[[shape]], step=self.step[[shape]], side=self.side[[shape]])


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
    """Fit shapes to boxes (M, 4), xyxy in fractions; each level keeps its number of shapes. Deterministic.

    k-means with the distance 1 - IoU (Redmon and Farhadi 2017) over all levels at once, on the real grid: a box belongs
    to the shape and level with the highest IoU. A shape without boxes stays as it is. Then the shape that is needed
    least moves to unmatched boxes, as long as this matches more boxes.
    """
    if not len(boxes):
        return spec.priors
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), SAMPLE)).astype(np.int64)]
    grid = Grid.of(spec)
    threshold = spec.match_threshold
    shapes = _kmeans(boxes, flat_shapes(spec.priors), grid, threshold)
    score = _score(best_overlaps(boxes, shapes, grid), threshold)
    least_side = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    rejected: set[int] = set()
    for _ in range(RESEEDS):
        overlap = best_overlaps(boxes, shapes, grid)
        unmatched = overlap.max(axis=1) < threshold
        if unmatched.mean() < 0.002 or len(rejected) == len(shapes):
            break
        least_needed = _least_needed_shape(overlap, threshold, rejected)
        # Boxes smaller than half a step are left to finer maps: here they would be matched only by chance
        fittable = boxes[unmatched & (least_side >= grid.step[least_needed] / 2)]
        if not len(fittable):
            rejected.add(least_needed)
            continue
        candidate = shapes.copy()
        candidate[least_needed] = _best_shape_of(fittable, grid.row(least_needed), threshold)
        candidate = _kmeans(boxes, candidate, grid, threshold)
        candidate_score = _score(best_overlaps(boxes, candidate, grid), threshold)
        if candidate_score > score:
            shapes, score, rejected = candidate, candidate_score, set()
        else:
            rejected.add(least_needed)
    fitted = _by_level(shapes, grid)
    # The score includes the mean IoU, so check that no fewer boxes are matched
    before, after = (recall(boxes, replace(spec, priors=priors))["matched"] for priors in (spec.priors, fitted))
    return fitted if after >= before else spec.priors


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


def _score(overlap: Floats, threshold: float) -> float:
    """The objective of the fit: above all the matched share, then the mean best IoU."""
    best = overlap.max(axis=1)
    return float((best >= threshold).mean() + 0.25 * best.mean())


def _kmeans(boxes: Floats, shapes: Floats, grid: Grid, threshold: float) -> Floats:
    """Lloyd's algorithm from `shapes` (K, 2); returns the shapes with the best score."""
    size = boxes[:, 2:] - boxes[:, :2]
    best, best_score = shapes, -1.0
    for _ in range(KMEANS_ITERATIONS):
        overlap = best_overlaps(boxes, shapes, grid)
        score = _score(overlap, threshold)
        if score <= best_score + 1e-4:
            break
        best, best_score = shapes, score
        assignment = overlap.argmax(axis=1)
        counts = np.bincount(assignment, minlength=len(shapes))
        # Geometric means, since half and twice a side have the same IoU
        sums = [np.bincount(assignment, np.log(size[:, axis]), minlength=len(shapes)) for axis in range(2)]
        means = np.exp(np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None])
        shapes = np.where(counts[:, None] > 0, means, shapes)
    return best


def _least_needed_shape(overlap: Floats, threshold: float, rejected: set[int]) -> int:
    """The index of the shape whose removal loses the fewest matches, except `rejected` ones."""
    matched = overlap >= threshold
    matched_once = matched & (matched.sum(axis=1, keepdims=True) == 1)
    cost = matched_once.sum(axis=0) + len(overlap) * np.isin(np.arange(overlap.shape[1]), list(rejected))
    return int(cost.argmin())


def _best_shape_of(boxes: Floats, grid: Grid, threshold: float) -> Floats:
    """The shape (2,) of one of the boxes (M, 4) that matches most of them on a grid of one row.

    It counts on the real grid: on a coarse one, a small shape misses most boxes of its own size.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    candidates = size[np.linspace(0, len(size) - 1, min(len(size), 200)).astype(np.int64)]
    sample = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), 5000)).astype(np.int64)]
    overlap = best_overlaps(sample, candidates, grid)
    return candidates[((overlap >= threshold).sum(axis=0) + 0.25 * overlap.mean(axis=0)).argmax()]


def _by_level(shapes: Floats, grid: Grid) -> tuple[tuple[Shape, ...], ...]:
    """Shapes (K, 2) by level, each level sorted by area, rounded so that a file of them reads back the same."""
    levels = []
    for level in range(int(grid.level.max()) + 1):
        rows = np.round(shapes[grid.level == level], 6)
        rows = rows[np.argsort(rows.prod(axis=1), kind="stable")]
        levels.append(tuple((float(w), float(h)) for w, h in rows))
    return tuple(levels)
