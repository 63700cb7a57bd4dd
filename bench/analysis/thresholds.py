"""The score threshold with the highest F1, over all classes and by class."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.error_types import at_foreground
from bench.evaluation.matches import Matches


@dataclass(frozen=True, kw_only=True, eq=False)
class Operating:
    """K operating points at an IoU of 0.5: what remains of the detections with at least a score.

    scores: (K,) distinct scores, descending. precision, recall, f1: (K,), with ignored detections left out.
    """

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class BestThreshold:
    """The operating point with the highest F1; of equal ones that with the highest score. NaN if there is none.

    score: keep detections with at least this score.
    """

    score: float
    precision: float
    recall: float
    f1: float


NO_THRESHOLD = BestThreshold(score=math.nan, precision=math.nan, recall=math.nan, f1=math.nan)


def operating_points(matches: Matches, label: int | None = None) -> Operating:
    """The operating points of a class, or of all classes together, where every object counts the same.

    Matches of the detections above a threshold do not depend on those below it, so no search is repeated. Without
    ground truths there are no points.
    """
    half = at_foreground(matches)
    kept = ~half.ignored[0, 0]
    truths = int(half.ground_truths().sum())
    if label is not None:
        kept &= half.label == label
        truths = int(half.ground_truths()[label])
    scores, right = half.score[kept].astype(np.float64), half.matched[0, 0, kept]
    if not truths or not len(scores):
        nothing = np.zeros(0)
        return Operating(scores=nothing, precision=nothing, recall=nothing, f1=nothing)
    order = np.argsort(-scores, kind="stable")
    scores, true = scores[order], np.cumsum(right[order])
    # A threshold keeps all detections of equal score or none.
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    detected, found = last + 1, true[last]
    return Operating(
        scores=scores[last],
        precision=found / detected,
        recall=found / truths,
        f1=2 * found / (detected + truths),
    )


def best_threshold(matches: Matches, label: int | None = None) -> BestThreshold:
    """The best point of `operating_points`; none if nothing is detected correctly."""
    points = operating_points(matches, label)
    if not points.f1.any():
        return NO_THRESHOLD
    best = int(points.f1.argmax())
    values = {name: float(getattr(points, name)[best]) for name in ("precision", "recall", "f1")}
    return BestThreshold(score=float(points.scores[best]), **values)
