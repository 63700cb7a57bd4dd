"""Error analysis by variant: the number of errors of each type, and the AP50 that fixing them would recover.

The types are those of TIDE (`bench.evaluation.error_types`). Differences to the baseline show what a remedy fixed: an
error type with a lower dAP50 costs less AP50 than before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.bootstrap import MIN_IMAGES, bootstrap_weights, paired_interval, too_few_images
from bench.analysis.cell_errors import CellErrors, RunErrors
from bench.analysis.run_records import CellKey, Run
from bench.analysis.statistics import BOOTSTRAP, STUDENT, Interval, student
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
    ap50_gain,
    fix_errors,
)

# Fewer than for effects, because every type in every bucket of every cell is resampled. The relative error of a
# standard deviation from B replicates is 1 / sqrt(2 B), here 1/22.
REPLICATES = 250
EVERY_KIND = (*KINDS, FALSE_POSITIVES, FALSE_NEGATIVES)

COLUMNS = (
    *("variant", "seeds", "scope", "bucket", "kind", "ground_truths", "count", "dAP50", "dAP50_std"),
    *("difference", "low", "high", "method", "n", "n_of"),
)

Group = tuple[str, str, str]  # scope, bucket, kind


@dataclass(frozen=True, kw_only=True, eq=False)
class _ErrorCost:
    """One error type in one bucket of one cell. replicates: (B,) of `recovered`, if it was resampled."""

    ground_truths: int
    count: int
    recovered: float
    images: int
    replicates: NDArray[np.float64] | None = None


def errors_frame(run: Run, cell_errors: RunErrors) -> pd.DataFrame:
    """One row per variant, scope, bucket and error type; variants in plan order.

    scope and bucket: "all" and ""; "size" and small, medium or large in pixels at the network input; "condition" and
        truncated, occluded or their opposites, if the dataset annotates them; "class" and its name.
    kind: one of `KINDS`; in scope "all" also all false positives and all false negatives.
    ground_truths: number in the bucket. count: number of errors, averaged over seeds. An error has the size and
        condition of its ground truth (without one: the size of its box) and the class that it predicts; a missed
        ground truth has its own.
    dAP50: increase of AP50 if all errors of this type, and no others, were fixed (fraction of 1; mean over seeds, with
        sample standard deviation). In scope "class", the increase of the class's AP50. NaN without ground truths or
        if boxes were not kept.
    difference: dAP50 minus that of the baseline, over the seeds they share; low, high: 95% interval; method, or the
        reason for a missing interval; n and n_of ("seeds" or "images"). All exploratory.
    """
    seeds = {variant: _shared_seeds(run, cell_errors, variant) for variant in run.variants}
    single_seed = {
        key
        for variant in run.variants
        if variant != run.baseline and len(seeds[variant]) <= 1
        for seed in seeds[variant]
        for key in ((variant, seed), (str(run.baseline), seed))
    }
    costs = {
        key: dict(_costs(cell, resampled=key in single_seed))
        for key, cell in cell_errors.cells.items()
        if cell.types is not None
    }
    groups = list(dict.fromkeys(group for of_cell in costs.values() for group in of_cell))
    rows = [_row(run, costs, variant, group) for variant in run.variants for group in groups or [("all", "", "")]]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _shared_seeds(run: Run, cell_errors: RunErrors, variant: str) -> list[int]:
    """Seeds with error types of both the variant and the baseline."""
    with_types = {key for key, cell in cell_errors.cells.items() if cell.types is not None}
    return [seed for seed in run.seeds if {(variant, seed), (run.baseline, seed)} <= with_types]


def _costs(cell: CellErrors, *, resampled: bool) -> Iterator[tuple[Group, _ErrorCost]]:
    matches, types = cell.matches, cell.types
    assert types is not None
    weights = bootstrap_weights(len(matches.image_ids), REPLICATES if resampled else 0)  # first row: all images once
    before = ap50(matches, weights)
    scored = ~matches.truth_ignored[0]
    images = len(np.unique(matches.truth_image[scored]))
    for kind in EVERY_KIND:
        errors = _errors(cell, kind)
        gains = ap50_gain(before, ap50(fix_errors(matches, types, kind), weights))
        yield (
            ("all", "", kind),
            _mean_cost(gains, ground_truths=int(scored.sum()), count=int(errors.sum()), images=images),
        )
        if kind not in KINDS:
            continue
        labels = matches.truth_label if kind == MISSED else matches.label
        of_class = np.bincount(labels[errors], minlength=len(matches.classes))
        for label, (name, truths) in enumerate(zip(matches.classes, matches.ground_truths().tolist(), strict=True)):
            yield (
                ("class", name, kind),
                _ErrorCost(
                    ground_truths=truths, count=int(of_class[label]), recovered=float(gains[0, label]), images=images
                ),
            )
        for name, bucket in cell.buckets.items():
            size = name in NETWORK_SIZES
            number = int((errors & (bucket.truths if kind == MISSED else bucket.detections)).sum())
            truths = int(bucket.truths.sum())
            bucket_gains = np.where(np.isnan(before), np.nan, 0.0)
            if number:
                after = fix_errors(matches, types, kind, detections=bucket.detections, truths=bucket.truths)
                # Conditions give many differences that are rarely needed: compute them without intervals.
                sampled = weights if size else weights[:1]
                bucket_gains = ap50_gain(before[: len(sampled)], ap50(after, sampled))
            cost = _mean_cost(
                bucket_gains,
                ground_truths=truths,
                count=number,
                images=len(np.unique(matches.truth_image[bucket.truths])),
            )
            scope, shown = ("size", name.removesuffix("_network")) if size else ("condition", name)
            yield (scope, shown, kind), cost


def _errors(cell: CellErrors, kind: str) -> NDArray[np.bool_]:
    """(D,) bool: the errors of a type; (M,) for `MISSED` and `FALSE_NEGATIVES`."""
    assert cell.types is not None
    verdict = cell.types.verdict
    if kind == MISSED:
        return cell.types.missed
    if kind == FALSE_POSITIVES:
        return np.asarray(verdict >= CLASSIFICATION)
    if kind == FALSE_NEGATIVES:
        unmatched = ~cell.matches.truth_ignored[0]
        unmatched[cell.types.truth[verdict == TRUE]] = False
        return unmatched
    return np.asarray(verdict == VERDICTS.index(kind))


def _mean_cost(gains: NDArray[np.float64], *, ground_truths: int, count: int, images: int) -> _ErrorCost:
    """Average the (1 + B, C) gains over the classes with ground truths."""
    valid = ~np.isnan(gains)
    number = valid.sum(axis=1)
    means = np.where(valid, gains, 0.0).sum(axis=1) / np.where(number, number, 1)
    means = np.where(number, means, np.nan)
    return _ErrorCost(
        ground_truths=ground_truths,
        count=count,
        recovered=float(means[0]) if ground_truths else math.nan,
        images=images,
        replicates=means[1:] if len(means) > 1 else None,
    )


def _row(
    run: Run, costs: Mapping[CellKey, Mapping[Group, _ErrorCost]], variant: str, group: Group
) -> dict[str, object]:
    own, base = (
        {seed: costs[name, seed][group] for seed in run.seeds if group in costs.get((name, seed), {})}
        for name in (variant, str(run.baseline))
    )
    gains = [cost.recovered for cost in own.values()]
    shared = [seed for seed in own if seed in base] if variant != run.baseline else []
    differences = [own[seed].recovered - base[seed].recovered for seed in shared]
    interval, method = _interval([own[seed] for seed in shared], [base[seed] for seed in shared], differences)
    return {
        "variant": variant,
        "seeds": len(own),
        **dict(zip(("scope", "bucket", "kind"), group, strict=True)),
        "ground_truths": next((cost.ground_truths for cost in own.values()), None),
        "count": float(np.mean([cost.count for cost in own.values()])) if own else math.nan,
        "dAP50": float(np.mean(gains)) if gains else math.nan,
        "dAP50_std": float(np.std(gains, ddof=1)) if len(gains) > 1 else math.nan,
        "difference": float(np.mean(differences)) if differences else math.nan,
        "low": interval.low if interval else math.nan,
        "high": interval.high if interval else math.nan,
        "method": method,
        "n": (own[shared[0]].images if method == BOOTSTRAP else len(shared)) if shared else None,
        "n_of": ("images" if method == BOOTSTRAP else "seeds") if shared else "",
    }


def _interval(own: list[_ErrorCost], base: list[_ErrorCost], differences: list[float]) -> tuple[Interval | None, str]:
    """The interval of the mean difference or None, and its method or the reason for None."""
    if not differences or any(math.isnan(difference) for difference in differences):
        return None, ""
    if len(differences) > 1:
        return student(differences), STUDENT
    if own[0].replicates is None or base[0].replicates is None:
        return None, "none: not resampled"
    if own[0].images < MIN_IMAGES:
        return None, too_few_images(own[0].images)
    return paired_interval(differences[0], own[0].replicates - base[0].replicates, own[0].images), BOOTSTRAP
