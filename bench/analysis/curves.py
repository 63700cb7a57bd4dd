"""Curves behind AP: precision over recall, AP over IoU threshold, precision over score (calibration)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.error_types import at_foreground
from bench.evaluation.matches import RECALLS, Matches, average_precision

BINS = 10  # of scores, as in the reliability diagrams of Guo et al. 2017


def precision_at_recalls(matches: Matches) -> NDArray[np.float64]:
    """(C, 101) precision at IoU 0.5 and COCO's recall levels; the mean over recall is the AP50 of the class.

    Interpolated as in COCO: the highest precision at this or a higher recall, 0 beyond the highest recall reached.
    NaN for classes without ground truths.
    """
    half = at_foreground(matches)
    starts = np.searchsorted(half.label, np.arange(len(half.classes) + 1))
    curves = np.full((len(half.classes), len(RECALLS)), np.nan)
    for label, truths in enumerate(half.ground_truths().tolist()):
        if not truths:
            continue
        span = slice(starts[label], starts[label + 1])
        right = half.matched[0, 0, span][~half.ignored[0, 0, span]]
        true = np.cumsum(right)
        precision = true / (np.arange(1, len(right) + 1) + np.spacing(1))
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        curves[label] = envelope[np.searchsorted(true / truths, RECALLS, side="left")]
    return curves


def ap_by_threshold(matches: Matches) -> NDArray[np.float64]:
    """(T,) AP at each IoU threshold, averaged over classes with ground truths; NaN if there are none."""
    precision = average_precision(matches)
    return (
        precision[matches.ground_truths() > 0].mean(axis=0) if matches.ground_truths().any() else precision[0] + np.nan
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """Precision by score at IoU 0.5, without ignored detections.

    score, precision: (BINS,) mean score and precision of the detections in each bin; NaN for empty bins.
    count: (BINS,) number of detections.
    error: expected calibration error (Guo et al. 2017), the mean of |precision - score| over detections; NaN if there
        are none.

    All empty and NaN if a score is outside 0 to 1, such as a logit: it is then no probability.
    """

    score: NDArray[np.float64]
    precision: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float


def reliability(matches: Matches) -> Reliability:
    """Bins of equal width from 0 to 1. A score on an edge belongs to the upper bin; 1 belongs to the last."""
    half = at_foreground(matches)
    probabilities = bool(((half.score >= 0) & (half.score <= 1)).all())
    kept = ~half.ignored[0, 0] & probabilities
    score, right = half.score[kept].astype(np.float64), half.matched[0, 0, kept]
    bins = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    # Empty bins become NaN on purpose.
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bins, score, minlength=BINS) / count
        precision = np.bincount(bins, right.astype(np.float64), minlength=BINS) / count
    distance = np.abs(precision - mean)[count > 0] @ count[count > 0] / max(1, len(score))
    return Reliability(
        score=mean, precision=precision, count=count, error=float(distance) if len(score) else float("nan")
    )
