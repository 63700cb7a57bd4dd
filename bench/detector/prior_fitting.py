"""Prior shapes fitted to boxes, and how well shapes can match boxes at all.

Everything is measured against the real grid: of all priors of one shape on one level the one in the
nearest cell overlaps a box most, so the best overlap of a box is exact without building the 8732.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import ImageIndex
from bench.spec import DetectorSpec, Shape

SAMPLE = 20_000  # boxes that the fit looks at: the shapes of more do not move
ROUNDS = 40
RESEEDS = 200
PART = 100_000  # boxes whose overlaps with all shapes are in memory at a time

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the shapes of a detector stand: for each of K shapes its level's step and side, as fractions."""

    level: NDArray[np.int64]
    step: Floats
    side: NDArray[np.int64]

    @classmethod
    def of(cls, spec: DetectorSpec) -> Grid:
        counts = [len(level) for level in spec.priors]
        return cls(
            level=np.repeat(np.arange(len(counts)), counts),
            step=np.repeat(np.array(spec.steps) / spec.size, counts),
            side=np.repeat(np.array(spec.feature_maps), counts),
        )

    def row(self, shape: int) -> Grid:
        """Where one shape stands, and any other in its stead: best_overlaps takes one row for all shapes."""
        return Grid(level=self.level[[shape]], step=self.step[[shape]], side=self.side[[shape]])


def best_overlaps(boxes: Floats, shapes: Floats, grid: Grid) -> Floats:
    """(M, K) IoU of each box (M, 4) xyxy with the best-placed prior of each shape (K, 2) on its grid."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = boxes[:, 2:] - boxes[:, :2]
    shared = np.ones((len(boxes), len(shapes)))
    for axis in range(2):
        cell = np.clip(np.floor(centre[:, axis, None] / grid.step), 0, grid.side - 1)
        distance = np.abs(centre[:, axis, None] - (cell + 0.5) * grid.step)
        reach = (size[:, axis, None] + shapes[:, axis]) / 2 - distance
        shared *= np.clip(np.minimum(reach, np.minimum(size[:, axis, None], shapes[:, axis])), 0, None)
    union = size.prod(axis=1)[:, None] + shapes.prod(axis=1) - shared
    return shared / np.maximum(union, np.finfo(np.float64).tiny)


def matchable_boxes(index: ImageIndex) -> Floats:
    """(M, 4) boxes that priors are matched and fitted to, xyxy as fractions of their images: all but crowds."""
    return index.fractions()[~index.crowd]


def flat(priors: Sequence[Sequence[Shape]]) -> Floats:
    """(K, 2) shapes of all levels, in order."""
    return np.array([shape for level in priors for shape in level], dtype=np.float64)


def fit_shapes(boxes: Floats, spec: DetectorSpec) -> tuple[tuple[Shape, ...], ...]:
    """Shapes for `spec`'s levels fitted to boxes (M, 4): as many on each level as before.

    k-means with the distance 1 - IoU (Redmon and Farhadi 2017), over all levels at once and on the real
    grid: a box belongs to the shape and level that match it best, which sorts boxes by size. Then the
    shape that is missed least is moved to boxes that nothing matches, as long as more are matched.
    A shape that no box belongs to stays as it was. Deterministic.
    """
    if not len(boxes):
        return spec.priors
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), SAMPLE)).astype(np.int64)]
    grid = Grid.of(spec)
    threshold = spec.match_threshold
    shapes = _settle(boxes, flat(spec.priors), grid, threshold)
    score = _score(best_overlaps(boxes, shapes, grid), threshold)
    least_side = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    refused: set[int] = set()
    for _ in range(RESEEDS):
        overlap = best_overlaps(boxes, shapes, grid)
        unmatched = overlap.max(axis=1) < threshold
        if unmatched.mean() < 0.002 or len(refused) == len(shapes):
            break
        spare = _least_missed(overlap, threshold, refused)
        # What is smaller than half a step is left to finer maps: a match by chance is not learnt.
        within_reach = boxes[unmatched & (least_side >= grid.step[spare] / 2)]
        if not len(within_reach):
            refused.add(spare)
            continue
        trial = shapes.copy()
        trial[spare] = _most_matching(within_reach, grid.row(spare), threshold)
        trial = _settle(boxes, trial, grid, threshold)
        trial_score = _score(best_overlaps(boxes, trial, grid), threshold)
        if trial_score > score:
            shapes, score, refused = trial, trial_score, set()
        else:
            refused.add(spare)
    fitted = _by_level(shapes, grid)
    # The score also counts mean IoU; what is promised is that no fewer boxes are matched.
    matched = [(best_overlaps(boxes, flat(p), grid).max(axis=1) >= threshold).mean() for p in (spec.priors, fitted)]
    return fitted if matched[1] >= matched[0] else spec.priors


@dataclass(frozen=True, kw_only=True, eq=False)
class Coverage:
    """How K shapes match M boxes on their real grid.

    best: (M,) IoU of each box with its best prior; shape: (M,) which shape that is; matches: (M, K) bool,
    whether a prior of the shape reaches the threshold.
    """

    best: Floats
    shape: NDArray[np.int64]
    matches: NDArray[np.bool_]

    @classmethod
    def of(cls, boxes: Floats, spec: DetectorSpec) -> Coverage:
        """The coverage of boxes (M, 4), xyxy in fractions, by the detector's shapes."""
        grid, shapes = Grid.of(spec), flat(spec.priors)
        best, shape, matches = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros((0, len(shapes)), bool)]
        for start in range(0, len(boxes), PART):  # COCO's 860,000 boxes at once would take gigabytes
            overlap = best_overlaps(boxes[start : start + PART], shapes, grid)
            best.append(overlap.max(axis=1))
            shape.append(overlap.argmax(axis=1))
            matches.append(overlap >= spec.match_threshold)
        return cls(best=np.concatenate(best), shape=np.concatenate(shape), matches=np.concatenate(matches))


def recall(boxes: Floats, spec: DetectorSpec) -> dict[str, Any]:
    """Share of boxes (M, 4) xyxy in fractions that some prior matches at the threshold; JSON data.

    boxes: M; without any there is nothing else. matched: the share; mean_best_iou: of all boxes.
    matched_by_level: the share that each level's own priors match, which overlap; best_by_level: matched,
        and the best prior is on that level, which add up to `matched`; only_by_level: no other level
        matches it, what would be lost without the level's priors.
    by_size_network: boxes and matched of "small" (under 32^2 pixels of the network's input), "medium" and
        "large" (over 96^2) ones.
    """
    if not len(boxes):
        return {"boxes": 0}
    found = Coverage.of(boxes, spec)
    level = Grid.of(spec).level
    matched = np.asarray(found.matches.any(axis=1))
    levels = np.stack([found.matches[:, level == each].any(axis=1) for each in range(len(spec.priors))], axis=1)
    only = levels & (levels.sum(axis=1, keepdims=True) == 1)
    best = np.bincount(level[found.shape[matched]], minlength=levels.shape[1]) / len(boxes)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) * spec.size**2
    sizes = {"small": area < 32**2, "medium": (area >= 32**2) & (area <= 96**2), "large": area > 96**2}
    return {
        "boxes": len(boxes),
        "matched": float(matched.mean()),
        "mean_best_iou": float(found.best.mean()),
        "matched_by_level": levels.mean(axis=0).tolist(),
        "best_by_level": best.tolist(),
        "only_by_level": only.mean(axis=0).tolist(),
        "by_size_network": {
            name: {"boxes": int(of_size.sum()), "matched": float(matched[of_size].mean()) if of_size.any() else None}
            for name, of_size in sizes.items()
        },
    }


def recall_by_shape(boxes: Floats, spec: DetectorSpec) -> list[list[dict[str, float]]]:
    """For each level and shape the shares of boxes (M, 4) that it is needed for; empty without boxes.

    best: it matches the box, and no shape does so better; these add up to `recall`'s `matched`.
    only: no other shape matches the box, of this level or another: what would be lost without it.
    """
    if not len(boxes):
        return []
    found = Coverage.of(boxes, spec)
    shapes = found.matches.shape[1]
    best = np.bincount(found.shape[found.matches.any(axis=1)], minlength=shapes) / len(boxes)
    only = (found.matches & (found.matches.sum(axis=1, keepdims=True) == 1)).mean(axis=0)
    pairs = iter(zip(best.tolist(), only.tolist(), strict=True))
    return [[{"best": b, "only": o} for b, o in islice(pairs, len(level))] for level in spec.priors]


def _score(overlap: Floats, threshold: float) -> float:
    """What the fit maximises: matched share first, mean best IoU to tell equal ones apart."""
    best = overlap.max(axis=1)
    return float((best >= threshold).mean() + 0.25 * best.mean())


def _settle(boxes: Floats, shapes: Floats, grid: Grid, threshold: float) -> Floats:
    """Lloyd's iterations from `shapes`; the best state that was passed."""
    size = boxes[:, 2:] - boxes[:, :2]
    best, best_score = shapes, -1.0
    for _ in range(ROUNDS):
        overlap = best_overlaps(boxes, shapes, grid)
        score = _score(overlap, threshold)
        if score <= best_score + 1e-4:
            break
        best, best_score = shapes, score
        member = overlap.argmax(axis=1)
        counts = np.bincount(member, minlength=len(shapes))
        # Geometric means: half and double a side are equally far in IoU.
        sums = [np.bincount(member, np.log(size[:, axis]), minlength=len(shapes)) for axis in range(2)]
        means = np.exp(np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None])
        shapes = np.where(counts[:, None] > 0, means, shapes)
    return best


def _least_missed(overlap: Floats, threshold: float, refused: set[int]) -> int:
    """The shape without which the fewest boxes lose their match."""
    matched = overlap >= threshold
    alone = matched & (matched.sum(axis=1, keepdims=True) == 1)
    cost = alone.sum(axis=0) + len(overlap) * np.isin(np.arange(overlap.shape[1]), list(refused))
    return int(cost.argmin())


def _most_matching(boxes: Floats, place: Grid, threshold: float) -> Floats:
    """Of the shapes of boxes (M, 4) the one that matches most of them on the grid of `place`, which has one row.

    Counted on the real grid: on a coarse one a small shape misses most boxes of its own size.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    candidates = size[np.linspace(0, len(size) - 1, min(len(size), 200)).astype(np.int64)]
    some = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), 5000)).astype(np.int64)]
    overlap = best_overlaps(some, candidates, place)
    return candidates[((overlap >= threshold).sum(axis=0) + 0.25 * overlap.mean(axis=0)).argmax()]


def _by_level(shapes: Floats, grid: Grid) -> tuple[tuple[Shape, ...], ...]:
    """Shapes (K, 2) by level, each level by area; rounded so that their file reads back the same."""
    levels = []
    for level in range(int(grid.level.max()) + 1):
        rows = np.round(shapes[grid.level == level], 6)
        rows = rows[np.argsort(rows.prod(axis=1), kind="stable")]
        levels.append(tuple((float(w), float(h)) for w, h in rows))
    return tuple(levels)
