"""Why the AP50 of each variant is what it is: errors of each type, and what mending them would give back.

The types are TIDE's (`bench.evaluation.error_types`). Differences to the baseline say what a remedy mended: a type
whose dAP50 became smaller is one that costs less than before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.bootstrap import FEWEST_IMAGES, draws, paired_interval
from bench.analysis.error_counts import Counted, CountedCell, Trained
from bench.analysis.run_records import Run
from bench.analysis.statistics import Interval, student
from bench.data.subsets import NETWORK_SIZES
from bench.evaluation.error_types import (
    CLASSIFICATION,
    FALSE_NEGATIVES,
    FALSE_POSITIVES,
    KINDS,
    MISSED,
    TRUE,
    VERDICTS,
    ap50,
    given_back,
    mended,
)

# Fewer than for effects: every type in every bucket of every cell is resampled. A standard deviation of B draws is
# itself off by 1 / sqrt(2 B), here a twentieth.
REPLICATES = 250
EVERY_KIND = (*KINDS, FALSE_POSITIVES, FALSE_NEGATIVES)

COLUMNS = (
    *("variant", "seeds", "scope", "bucket", "kind", "ground_truths", "count", "dAP50", "dAP50_std"),
    *("difference", "low", "high", "method", "n", "n_of"),
)
STUDENT = "Student's t over seeds"
BOOTSTRAP = "paired bootstrap over images"

Question = tuple[str, str, str]  # scope, bucket, kind


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """One type of error in one bucket of one cell. replicates: (B,) of `regained`, where it was resampled."""

    ground_truths: int
    count: int
    regained: float
    images: int
    replicates: NDArray[np.float64] | None = None


def errors_frame(run: Run, counted: Counted) -> pd.DataFrame:
    """A row per variant, scope, bucket and type of error; variants in the order of the plan.

    scope and bucket: "all" and ""; "size" and small, medium or large in pixels at the network; "condition" and
        truncated, occluded or their opposites, where the data state them; "class" and its name.
    kind: one of `KINDS`; in scope "all" also every false positive and every false negative together.
    ground_truths: of the bucket. count: number of errors, a mean over the seeds. An error is of the size and
        condition of the ground truth that it is about (one about none: of the size that it claims) and of the
        class that it claims; what is missed is of its own.
    dAP50: what AP50 would gain if all of them, and nothing else, were mended (fraction of 1; mean of the seeds,
        sample standard deviation beside it). In scope "class" it is the gain of the AP50 of the class.
        NaN where there is no ground truth to ask about, or boxes were not kept.
    difference: of dAP50 to the baseline, over the `seeds` that both have; low, high: 95% interval; method, or why
        there is none; n and n_of ("seeds" or "images"). All of them exploratory.
    """
    several = {variant: len(_shared(run, counted, variant)) > 1 for variant in run.variants}
    alone = {
        trained
        for variant in run.variants
        if variant != run.baseline and not several[variant]
        for seed in _shared(run, counted, variant)
        for trained in ((variant, seed), (str(run.baseline), seed))
    }
    parts = {
        trained: dict(_parts(cell, resampled=trained in alone))
        for trained, cell in counted.cells.items()
        if cell.types is not None
    }
    questions = list(dict.fromkeys(question for of_cell in parts.values() for question in of_cell))
    rows = [
        _row(run, parts, variant, question) for variant in run.variants for question in questions or [("all", "", "")]
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _shared(run: Run, counted: Counted, variant: str) -> list[int]:
    """Seeds of which both the variant and the baseline have error types."""
    known = {trained for trained, cell in counted.cells.items() if cell.types is not None}
    return [seed for seed in run.seeds if {(variant, seed), (run.baseline, seed)} <= known]


def _parts(cell: CountedCell, *, resampled: bool) -> Iterator[tuple[Question, _Part]]:
    matches, types = cell.matches, cell.types
    assert types is not None
    weights = draws(len(matches.image_ids), REPLICATES if resampled else 0)  # the first row: every image once
    before = ap50(matches, weights)
    counts = ~matches.truth_ignored[0]
    images = len(np.unique(matches.truth_image[counts]))
    for kind in EVERY_KIND:
        errors = _errors(cell, kind)
        gains = given_back(before, ap50(mended(matches, types, kind), weights))
        yield (
            ("all", "", kind),
            _part(gains, ground_truths=int(counts.sum()), count=int(errors.sum()), images=images),
        )
        if kind not in KINDS:
            continue
        labels = matches.truth_label if kind == MISSED else matches.label
        of_class = np.bincount(labels[errors], minlength=len(matches.classes))
        for label, (name, truths) in enumerate(zip(matches.classes, matches.ground_truths().tolist(), strict=True)):
            yield (
                ("class", name, kind),
                _Part(ground_truths=truths, count=int(of_class[label]), regained=float(gains[0, label]), images=images),
            )
        for name, bucket in cell.buckets.items():
            size = name in NETWORK_SIZES
            number = int((errors & (bucket.truths if kind == MISSED else bucket.detections)).sum())
            truths = int(bucket.truths.sum())
            gains_there = np.where(np.isnan(before), np.nan, 0.0)
            if number:
                after = mended(matches, types, kind, detections=bucket.detections, truths=bucket.truths)
                # Differences between conditions are many, and seldom asked for: without intervals.
                used = weights if size else weights[:1]
                gains_there = given_back(before[: len(used)], ap50(after, used))
            part = _part(
                gains_there,
                ground_truths=truths,
                count=number,
                images=len(np.unique(matches.truth_image[bucket.truths])),
            )
            scope, shown = ("size", name.removesuffix("_network")) if size else ("condition", name)
            yield (scope, shown, kind), part


def _errors(cell: CountedCell, kind: str) -> NDArray[np.bool_]:
    """(D,) or, of `MISSED` and `FALSE_NEGATIVES`, (M,) bool: the errors of a kind."""
    assert cell.types is not None
    verdict = cell.types.verdict
    if kind == MISSED:
        return cell.types.missed
    if kind == FALSE_POSITIVES:
        return np.asarray(verdict >= CLASSIFICATION)
    if kind == FALSE_NEGATIVES:
        lost = ~cell.matches.truth_ignored[0]
        lost[cell.types.truth[verdict == TRUE]] = False
        return lost
    return np.asarray(verdict == VERDICTS.index(kind))


def _part(gains: NDArray[np.float64], *, ground_truths: int, count: int, images: int) -> _Part:
    """From the (1 + B, C) gains of the classes; their mean is over the classes that have ground truths."""
    exist = ~np.isnan(gains)
    number = exist.sum(axis=1)
    means = np.where(exist, gains, 0.0).sum(axis=1) / np.where(number, number, 1)
    means = np.where(number, means, np.nan)
    return _Part(
        ground_truths=ground_truths,
        count=count,
        regained=float(means[0]) if ground_truths else math.nan,
        images=images,
        replicates=means[1:] if len(means) > 1 else None,
    )


def _row(
    run: Run, parts: Mapping[Trained, Mapping[Question, _Part]], variant: str, question: Question
) -> dict[str, object]:
    own, base = (
        {seed: parts[name, seed][question] for seed in run.seeds if question in parts.get((name, seed), {})}
        for name in (variant, str(run.baseline))
    )
    gains = [part.regained for part in own.values()]
    shared = [seed for seed in own if seed in base] if variant != run.baseline else []
    differences = [own[seed].regained - base[seed].regained for seed in shared]
    interval, method = _interval([own[seed] for seed in shared], [base[seed] for seed in shared], differences)
    return {
        "variant": variant,
        "seeds": len(own),
        **dict(zip(("scope", "bucket", "kind"), question, strict=True)),
        "ground_truths": next((part.ground_truths for part in own.values()), None),
        "count": float(np.mean([part.count for part in own.values()])) if own else math.nan,
        "dAP50": float(np.mean(gains)) if gains else math.nan,
        "dAP50_std": float(np.std(gains, ddof=1)) if len(gains) > 1 else math.nan,
        "difference": float(np.mean(differences)) if differences else math.nan,
        "low": interval.low if interval else math.nan,
        "high": interval.high if interval else math.nan,
        "method": method,
        "n": (own[shared[0]].images if method == BOOTSTRAP else len(shared)) if shared else None,
        "n_of": ("images" if method == BOOTSTRAP else "seeds") if shared else "",
    }


def _interval(own: list[_Part], base: list[_Part], differences: list[float]) -> tuple[Interval | None, str]:
    """The interval of the mean difference, and its method or why there is none."""
    if not differences or any(math.isnan(difference) for difference in differences):
        return None, ""
    if len(differences) > 1:
        return student(differences), STUDENT
    if own[0].replicates is None or base[0].replicates is None:
        return None, "none: not resampled"
    if own[0].images < FEWEST_IMAGES:
        return None, f"none: ground truths in {own[0].images} images, {FEWEST_IMAGES} are needed"
    return paired_interval(differences[0], own[0].replicates - base[0].replicates, own[0].images), BOOTSTRAP
