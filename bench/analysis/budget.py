"""Where the points of a variant go: AP, imprecise boxes, each error type and a remainder, which together make 1.

The terms come from `bench.analysis.error_costs`. Imprecise boxes cost AP50 - AP: they are found at an IoU of 0.5 but
not at the stricter thresholds. Each error type costs its dAP50, the gain in AP50 from fixing it alone. The remainder is
what is then missing from 1. It is usually positive, because two fixes together mostly gain more than the sum of each
alone. It is negative where either of two fixes alone would lift the precision at the same recall.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from bench.analysis.error_costs import ACHIEVED, BUDGET, IMPRECISE, REMAINDER
from bench.analysis.run_records import Run
from bench.evaluation.error_types import KINDS

PARTS = (ACHIEVED, IMPRECISE, *KINDS, REMAINDER)

# The parts as a sentence names them.
PHRASES: Mapping[str, str] = {
    ACHIEVED: "AP",
    IMPRECISE: "imprecise boxes",
    "classification": "wrong classes",
    "localisation": "misplaced boxes",
    "both": "boxes that are misplaced and of the wrong class",
    "duplicate": "duplicates",
    "background": "false positives on background",
    "missed": "missed objects",
    REMAINDER: "combinations of errors",
}


def budget_frame(run: Run, errors: pd.DataFrame) -> pd.DataFrame:
    """One row per variant and part, in the order of the plan and of `PARTS`; the points of a variant sum to 1.

    errors: result of `bench.analysis.error_costs.errors_frame`.
    points: fraction of 1, mean over the finished seeds with error types. NaN without such a seed or without ground
        truths. seeds: their number.
    """
    frame = _parts(errors).reindex(_rows(run.variants))
    frame["seeds"] = frame["seeds"].fillna(0).astype(int)
    return frame.rename(columns={"dAP50": "points"})[["points", "seeds"]].reset_index()


def budget_differences(run: Run, errors: pd.DataFrame) -> pd.DataFrame:
    """One row per part of each variant other than the baseline; the differences of a variant sum to 0.

    difference: points minus those of the baseline (fraction of 1), over the seeds with error types in both; NaN without
        such a seed. low, high, method, n and n_of: as in `bench.analysis.error_costs.errors_frame`. The interval of AP
        is not here, because the table of effects has it from more replicates.
    """
    others = [variant for variant in run.variants if variant != run.baseline]
    frame = _parts(errors).reindex(_rows(others))
    frame.loc[frame.index.get_level_values("part") == ACHIEVED, ["low", "high"]] = float("nan")
    frame[["method", "n_of"]] = frame[["method", "n_of"]].fillna("")
    return frame[["difference", "low", "high", "method", "n", "n_of"]].reset_index()


def largest_losses(budget: pd.DataFrame, variant: str) -> list[tuple[str, float]]:
    """The parts that cost a variant points, costliest first, with these (fractions of 1); without AP and remainder.

    budget: result of `budget_frame`. A part is one of `PARTS`; `PHRASES` has its name in a sentence.
    """
    losses = budget[(budget["variant"] == variant) & ~budget["part"].isin((ACHIEVED, REMAINDER))]
    ordered = losses.set_index("part")["points"].dropna().sort_values(ascending=False, kind="stable")
    return [(str(part), float(points)) for part, points in ordered.items() if points > 0]


def _parts(errors: pd.DataFrame) -> pd.DataFrame:
    """The rows of `errors` that make up the budget, by variant and part."""
    chosen = errors["scope"].eq(BUDGET) | (errors["scope"].eq("all") & errors["kind"].isin(KINDS))
    return errors[chosen].rename(columns={"kind": "part"}).set_index(["variant", "part"])


def _rows(variants: tuple[str, ...] | list[str]) -> pd.MultiIndex:
    return pd.MultiIndex.from_product((variants, PARTS), names=("variant", "part"))
