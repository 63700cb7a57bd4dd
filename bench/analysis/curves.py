"""Curves behind an AP: precision against recall, AP against the IoU threshold, scores against what they promise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.error_types import at_foreground
from bench.evaluation.matches import RECALLS, Matches, average_precision

BINS = 10  # of scores, as the reliability diagrams of Guo et al. 2017 have them


def precision_at_recalls(matches: Matches) -> NDArray[np.float64]:
    """(C, 101) precision at an IoU of 0.5 where COCO reads it; its mean over the recalls is the class's AP50.

    Interpolated: the best precision at this recall or a higher one, 0 beyond the highest that is reached. NaN
    for a class without ground truths.
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
    """(T,) AP at each IoU threshold, mean over the classes that have ground truths; NaN without any."""
    precision = average_precision(matches)
    return (
        precision[matches.ground_truths() > 0].mean(axis=0) if matches.ground_truths().any() else precision[0] + np.nan
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """How often detections of about one score are right, at an IoU of 0.5; those that are ignored are left out.

    score, precision: (BINS,) mean score of the detections of a bin and the share of them that is true, NaN for
        none. count: (BINS,) detections. error: the expected calibration error (Guo et al. 2017), the mean of
        |precision - score| over the detections; NaN for none.
    """

    score: NDArray[np.float64]
    precision: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float


def reliability(matches: Matches) -> Reliability:
    """Over bins of equal width from 0 to 1; a score on an edge belongs to the bin above it, 1 to the last."""
    half = at_foreground(matches)
    kept = ~half.ignored[0, 0]
    score, right = half.score[kept].astype(np.float64), half.matched[0, 0, kept]
    place = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    # The mean of none is NaN, on purpose.
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, score, minlength=BINS) / count
        precision = np.bincount(place, right.astype(np.float64), minlength=BINS) / count
    distance = np.abs(precision - mean)[count > 0] @ count[count > 0] / max(1, len(score))
    return Reliability(
        score=mean, precision=precision, count=count, error=float(distance) if len(score) else float("nan")
    )
