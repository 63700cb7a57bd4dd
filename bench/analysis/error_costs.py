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

from bench.analysis.bootstrap import MIN_IMAGES, bootstrap_weights, too_few_images, variance_factors
from bench.analysis.cell_errors import CellErrors, RunErrors
from bench.analysis.components import CONSTANT, Estimate, Sample
from bench.analysis.image_groups import independent_groups
from bench.analysis.run_records import CellKey, Run
from bench.analysis.statistics import BOOTSTRAP, JOINT, STUDENT, Interval, t_interval
from bench.data.subsets import CONDITIONS
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
from bench.evaluation.matches import average_precision

# Fewer than for effects, because every type in every bucket of every cell is resampled. The relative error of a
# standard deviation from B replicates is 1 / sqrt(2 B), here 1/22.
REPLICATES = 250
EVERY_KIND = (*KINDS, FALSE_POSITIVES, FALSE_NEGATIVES)

# Scope "budget": what the error types leave of an AP of 1, so that these kinds and `KINDS` sum to 1.
BUDGET = "budget"
ACHIEVED, IMPRECISE, REMAINDER = "AP", "imprecise boxes", "remainder"

COLUMNS = (
    *("variant", "seeds", "scope", "bucket", "kind", "ground_truths", "count", "dAP50", "dAP50_std"),
    *("difference", "low", "high", "method", "n", "n_of"),
)

Group = tuple[str, str, str]  # scope, bucket, kind


@dataclass(frozen=True, kw_only=True, eq=False)
class _ErrorCost:
    """One error type in one bucket of one cell.

    images: number of independent images with ground truths. replicates: (B,) of `recovered`, if it was resampled.
    factor: by what the variance of replicates is multiplied to be unbiased.
    """

    ground_truths: int
    count: float
    recovered: float
    images: int
    replicates: NDArray[np.float64] | None = None
    factor: float = 1.0


def errors_frame(run: Run, cell_errors: RunErrors) -> pd.DataFrame:
    """One row per variant, scope, bucket and error type; variants in plan order.

    scope and bucket: "all" and ""; "size" and small, medium or large in pixels at the network input, or in the original
        image (`bench.analysis.cell_errors.CellErrors`); "condition" and truncated, occluded or their opposites, if the
        dataset annotates them; "class" and its name; `BUDGET` and "".
    kind: one of `KINDS`; in scope "all" also all false positives and all false negatives; in scope `BUDGET` one of
        `ACHIEVED`, `IMPRECISE` and `REMAINDER`, which have no count (see `bench.analysis.budget`).
    ground_truths: number in the bucket. count: number of errors, averaged over seeds. An error has the size and
        condition of its ground truth (without one: the size of its box) and the class that it predicts; a missed
        ground truth has its own.
    dAP50: increase of AP50 if all errors of this type, and no others, were fixed (fraction of 1; mean over seeds, with
        sample standard deviation). In scope "class", the increase of the class's AP50. In scope `BUDGET`: AP,
        AP50 - AP, and 1 - AP50 - the sum over `KINDS`. NaN without ground truths or if boxes were not kept.
    difference: dAP50 minus that of the baseline, over the seeds they share; low, high: 95% interval, as of effects
        (`bench.analysis.components`); method, or the reason for a missing interval; n and n_of ("seeds" or "images").
        All exploratory.
    """
    resampled = len(run.variants) > 1 and not run.smoke
    costs = {
        key: dict(_costs(cell, cell_errors.groups, resampled=resampled))
        for key, cell in cell_errors.cells.items()
        if cell.types is not None
    }
    groups = list(dict.fromkeys(group for of_cell in costs.values() for group in of_cell))
    by_group = {group: _GroupCosts.of(run, costs, group) for group in groups or [("all", "", "")]}
    rows = [of_group.row(variant) for variant in run.variants for of_group in by_group.values()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _costs(cell: CellErrors, duplicates: NDArray[np.int64], *, resampled: bool) -> Iterator[tuple[Group, _ErrorCost]]:
    """duplicates: (N,) group of near-duplicates of each image."""
    matches, types = cell.matches, cell.types
    assert types is not None
    weights = bootstrap_weights(duplicates, REPLICATES if resampled else 0)  # first row: all images once
    factor = variance_factors(matches, duplicates, weights)["AP50", ""]  # every cost is a mean over the same classes
    before = ap50(matches, weights)
    left = 1 - before
    scored = ~matches.truth_ignored[0]
    images = _independent_images(matches.truth_image[scored], duplicates)
    for kind in EVERY_KIND:
        errors = _errors(cell, kind)
        gains = ap50_gain(before, ap50(fix_errors(matches, types, kind), weights))
        left = left - gains if kind in KINDS else left
        yield (
            ("all", "", kind),
            _mean_cost(gains, ground_truths=int(scored.sum()), count=int(errors.sum()), images=images, factor=factor),
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
            size = name not in CONDITIONS
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
                images=_independent_images(matches.truth_image[bucket.truths], duplicates),
                factor=factor,
            )
            scope, shown = ("size", name.removesuffix("_network")) if size else ("condition", name)
            yield (scope, shown, kind), cost
    achieved = average_precision(matches, weights).mean(axis=-1)
    for kind, points in ((ACHIEVED, achieved), (IMPRECISE, before - achieved), (REMAINDER, left)):
        yield (
            (BUDGET, "", kind),
            _mean_cost(points, ground_truths=int(scored.sum()), count=math.nan, images=images, factor=factor),
        )


def _independent_images(images: NDArray[np.int64], duplicates: NDArray[np.int64]) -> int:
    """Number of independent ones among the images in `images`, which may repeat."""
    present = np.isin(np.arange(len(duplicates)), images)
    return int(independent_groups(present[:, None], duplicates)[0])


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


def _mean_cost(
    gains: NDArray[np.float64], *, ground_truths: int, count: float, images: int, factor: float
) -> _ErrorCost:
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
        factor=factor,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _GroupCosts:
    """One error type in one bucket, in all cells that have error types."""

    run: Run
    group: Group
    costs: Mapping[CellKey, _ErrorCost]
    samples: dict[frozenset[CellKey], Sample]  # by the cells left out; filled on demand

    @classmethod
    def of(cls, run: Run, costs: Mapping[CellKey, Mapping[Group, _ErrorCost]], group: Group) -> _GroupCosts:
        own = {key: of_cell[group] for key, of_cell in costs.items() if group in of_cell}
        return cls(run=run, group=group, costs=own, samples={})

    def row(self, variant: str) -> dict[str, object]:
        """The row of a variant in `errors_frame`."""
        own = [cost for (name, _), cost in self.costs.items() if name == variant]
        gains = [cost.recovered for cost in own]
        sample, estimate = self._difference(variant)
        interval, method = self._interval(sample, estimate)
        number = None
        if estimate is not None:
            number = sample.groups if method == BOOTSTRAP else estimate.seeds
        return {
            "variant": variant,
            "seeds": len(own),
            **dict(zip(("scope", "bucket", "kind"), self.group, strict=True)),
            "ground_truths": next((cost.ground_truths for cost in own), None),
            "count": float(np.mean([cost.count for cost in own])) if own else math.nan,
            "dAP50": float(np.mean(gains)) if gains else math.nan,
            "dAP50_std": float(np.std(gains, ddof=1)) if len(gains) > 1 else math.nan,
            "difference": estimate.effect if estimate else math.nan,
            "low": interval.low if interval else math.nan,
            "high": interval.high if interval else math.nan,
            "method": method,
            "n": number,
            "n_of": "" if number is None else "images" if method == BOOTSTRAP else "seeds",
        }

    def _difference(self, variant: str) -> tuple[Sample, Estimate | None]:
        """The sample without the seeds that only one of the two has, and the difference to the baseline if any."""
        baseline = self.run.baseline
        seeds = {name: {seed for other, seed in self.costs if other == name} for name in (variant, baseline)}
        single = seeds[variant] ^ seeds[baseline]
        left_out = frozenset((name, seed) for name in (variant, baseline) if name is not None for seed in single)
        if left_out not in self.samples:
            self.samples[left_out] = self._sample(left_out)
        sample = self.samples[left_out]
        if baseline is None or variant == baseline:
            return sample, None
        contrast = np.zeros(len(self.run.variants))
        contrast[[self.run.variants.index(name) for name in (variant, baseline)]] = 1, -1
        return sample, sample.estimate(contrast)

    def _sample(self, left_out: frozenset[CellKey]) -> Sample:
        values = np.full((len(self.run.variants), len(self.run.seeds)), math.nan)
        replicates: NDArray[np.float64] | None = np.full((*values.shape, REPLICATES), math.nan)
        images, factor = 0, 1.0
        for key, cost in self.costs.items():
            if key in left_out:
                continue
            place = self.run.variants.index(key[0]), self.run.seeds.index(key[1])
            values[place], images, factor = cost.recovered, cost.images, cost.factor
            if cost.replicates is None or cost.images < MIN_IMAGES:
                replicates = None
            elif replicates is not None:
                replicates[place] = cost.replicates
        return Sample(values=values, replicates=replicates, groups=images, factor=factor)

    def _interval(self, sample: Sample, estimate: Estimate | None) -> tuple[Interval | None, str]:
        """The interval of the difference or None, and its method or the reason for None."""
        if estimate is None:
            return None, ""
        if self.run.smoke:
            return None, "none: a smoke test is not a result"
        method = STUDENT if sample.replicates is None else JOINT
        if not sample.degrees_of_training:
            if sample.replicates is None:
                few = any(cost.replicates is not None for cost in self.costs.values())
                return None, too_few_images(sample.groups) if few else "none: not resampled"
            method = BOOTSTRAP
        if estimate.constant:
            return None, CONSTANT
        return t_interval(estimate.effect, estimate.error, estimate.degrees), method
