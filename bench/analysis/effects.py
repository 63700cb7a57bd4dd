"""The effect of every arm, axis, interaction and control on every accuracy metric, with intervals and adjusted tests.

With several finished seeds an interval covers training again and other validation images. With one seed only the images
can be resampled, and the interval covers these trained models. docs/statistics.md has the definitions and the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.bootstrap import MIN_IMAGES, Metric, too_few_images
from bench.analysis.components import CONSTANT, Estimate, Sample
from bench.analysis.factorial import Contrast, contrasts_of
from bench.analysis.run_records import Run, worth_of
from bench.analysis.samples import Samples
from bench.analysis.statistics import (
    BOOTSTRAP,
    JOINT,
    LEVEL,
    STUDENT,
    benjamini_hochberg,
    holm,
    simultaneous,
    t_interval,
)
from bench.data.subsets import NETWORK_SIZES, SIZES
from bench.storage.run_folder import MATCHES

COLUMNS = (
    *("contrast", "kind", "measure", "class", "effect", "low", "high", "p", "p_adjusted", "adjusted_by", "verdict"),
    *("exploratory", "method", "seeds", "images", "error_training", "error_images"),
)
HIGHER, LOWER = "higher", "lower"
SMALL = "no effect worth having"
UNDECIDED = "undecided"
DIVERGED = "a variant diverged"
THESE_MODELS = "these models: "

MAX_T, HOLM, FDR = "max-T", "Holm", "Benjamini-Hochberg"
BY_SIZE = tuple(f"AP_{size}" for size in (*SIZES, *NETWORK_SIZES))


def effects_frame(run: Run, samples: Samples) -> pd.DataFrame:
    """One row per metric and contrast: AP first, then the other accuracy metrics, then AP by class.

    contrast, kind (see `bench.analysis.factorial`), measure, class ("": all);
    effect, low, high: fractions of 1; the 95% interval, which holds for the whole family where adjusted_by is "max-T";
    p, p_adjusted, adjusted_by: the p value, alone and adjusted for its family;
    verdict: "higher" or "lower" if p_adjusted is below 0.05; "no effect worth having" if the whole interval is within
        the difference worth having (`worth_of`); otherwise "undecided". "a variant diverged" if the claim would rest on
        a variant that diverged in some seeds. With one seed "these models: higher". "" without an interval;
    exploratory: False for the families of AP (arms, main effects, interactions) and of AP by size (main effects);
    method: how the interval was computed, or the reason for a missing one;
    seeds, images: how many were used; images with ground truths of the metric;
    error_training, error_images: the two parts of the standard error, NaN where they are not known.
    Missing values are NaN. A smoke test has neither intervals nor tests, because it is not a result.
    """
    diverged = {cell.variant for cell in run.cells if run.diverged(cell)}
    effects = [
        _Effect.of(run, samples, metric, contrast) for metric in samples.by_metric for contrast in contrasts_of(run)
    ]
    frame = pd.DataFrame([effect.values() for effect in effects], columns=list(COLUMNS)).astype({"exploratory": bool})
    _adjust(frame, effects, samples)
    frame["verdict"] = [
        _verdict(row, effect, worth=worth_of(run), diverged=diverged)
        for (_, row), effect in zip(frame.iterrows(), effects, strict=True)
    ]
    return frame


@dataclass(frozen=True, kw_only=True, eq=False)
class _Effect:
    """One contrast of one metric. estimate: None if cells are missing. reason: of a missing interval, else ""."""

    metric: Metric
    contrast: Contrast
    estimate: Estimate | None
    reason: str
    method: str
    images: int

    @classmethod
    def of(cls, run: Run, samples: Samples, metric: Metric, contrast: Contrast) -> _Effect:
        sample = samples.by_metric[metric]
        known = set(contrast.variants) <= set(samples.variants)
        estimate = sample.estimate(samples.vector(contrast.weights)) if known else None
        return cls(
            metric=metric,
            contrast=contrast,
            estimate=estimate,
            reason=_reason(run, samples, metric, contrast, estimate),
            method=_method(sample),
            images=samples.images(metric),
        )

    @property
    def family(self) -> str:
        """The primary family of the contrast; "" if it is exploratory."""
        measure, name = self.metric
        if (measure, name) == ("AP", ""):
            return {"arm": "arms", "main effect": "main effects", "interaction": "interactions"}.get(
                self.contrast.kind, ""
            )
        return "sizes" if measure in BY_SIZE and self.contrast.kind == "main effect" else ""

    def values(self) -> dict[str, object]:
        """The row of `effects_frame`, still without adjustment and verdict."""
        measure, name = self.metric
        estimate = self.estimate
        interval = (
            t_interval(estimate.effect, estimate.error, estimate.degrees) if estimate and not self.reason else None
        )
        return {
            "contrast": self.contrast.name,
            "kind": self.contrast.kind,
            "measure": measure,
            "class": name,
            "effect": estimate.effect if estimate else math.nan,
            "low": interval.low if interval else math.nan,
            "high": interval.high if interval else math.nan,
            "p": interval.p if interval else math.nan,
            "p_adjusted": math.nan,
            "adjusted_by": "",
            "verdict": "",
            "exploratory": not self.family,
            "method": self.reason or self.method,
            "seeds": estimate.seeds if estimate else 0,
            "images": self.images,
            "error_training": estimate.error_training if interval and estimate else math.nan,
            "error_images": estimate.error_images if interval and estimate else math.nan,
        }


def _method(sample: Sample) -> str:
    if not sample.degrees_of_training:
        return BOOTSTRAP
    return STUDENT if sample.replicates is None else JOINT


def _reason(run: Run, samples: Samples, metric: Metric, contrast: Contrast, estimate: Estimate | None) -> str:
    """Why there is no interval; "" if there is one."""
    if run.smoke:
        return "none: a smoke test is not a result"
    sample = samples.by_metric[metric]
    if estimate is None:
        names = [name for name in (*run.variants, *contrast.variants) if name in contrast.variants]
        missing = [
            f"{name} (seed {seed})"
            for name in dict.fromkeys(names)
            for place, seed in enumerate(samples.seeds)
            if name not in samples.variants or not sample.present[samples.variants.index(name), place]
        ]
        return f"none: missing {', '.join(missing)}"
    if sample.replicates is None:
        groups = samples.resampled.groups.get(metric, 0)
        if samples.resampled.replicates and groups < MIN_IMAGES:
            return too_few_images(groups)
        if not sample.degrees_of_training:
            without = [cell.variant for cell, _ in run.done() if cell.id not in samples.resampled.replicates]
            return f"none: no {MATCHES} of {', '.join(dict.fromkeys(without))}"
    return CONSTANT if estimate.constant else ""


def _adjust(frame: pd.DataFrame, effects: Sequence[_Effect], samples: Samples) -> None:
    """Set p_adjusted, adjusted_by and, for max-T, low and high, family by family."""
    families = pd.Series([effect.family for effect in effects], index=frame.index, dtype=object)
    for family, adjust, name in (
        ("main effects", holm, HOLM),
        ("interactions", holm, HOLM),
        ("", benjamini_hochberg, FDR),
    ):
        chosen = families == family
        frame.loc[chosen, "p_adjusted"] = adjust(frame.loc[chosen, "p"].astype(float).tolist())
        frame.loc[chosen & frame["p"].notna(), "adjusted_by"] = name
    for family in ("arms", "sizes"):
        places = np.flatnonzero((families == family) & frame["p"].notna()).tolist()
        estimates = [estimate for place in places if (estimate := effects[place].estimate) is not None]
        if not estimates:
            continue
        intervals = simultaneous(
            [each.effect for each in estimates],
            [each.error for each in estimates],
            [each.degrees for each in estimates],
            _covariance([effects[place] for place in places], samples),
        )
        rows = frame.index[places]
        frame.loc[rows, ["low", "high", "p_adjusted"]] = [[each.low, each.high, each.p] for each in intervals]
        frame.loc[rows, "adjusted_by"] = MAX_T


def _covariance(effects: Sequence[_Effect], samples: Samples) -> NDArray[np.float64]:
    """(M, M) covariance of the estimates of one family. Estimates of different metrics count as independent.

    Independence is the conservative case for metrics of one sign of correlation (Sidak 1967).
    """
    metrics = list(dict.fromkeys(effect.metric for effect in effects))
    result = np.zeros((len(effects), len(effects)))
    for metric in metrics:
        places = [place for place, effect in enumerate(effects) if effect.metric == metric]
        weights = np.stack([estimate.weights for place in places if (estimate := effects[place].estimate) is not None])
        result[np.ix_(places, places)] = samples.by_metric[metric].covariance(weights)
    return result


def _verdict(row: pd.Series, effect: _Effect, *, worth: float, diverged: Set[str]) -> str:
    if math.isnan(row["low"]):
        return ""
    claim = UNDECIDED
    if row["p_adjusted"] < LEVEL:
        claim = HIGHER if row["effect"] > 0 else LOWER
    elif -worth < row["low"] and row["high"] < worth:
        claim = SMALL
    # A variant that diverges in some seeds is worse than its finished seeds say: only the opposite claim stands.
    gained = effect.contrast.plus if row["effect"] > 0 else effect.contrast.minus
    if diverged & set(gained if claim in (HIGHER, LOWER) else effect.contrast.variants) and claim != UNDECIDED:
        return DIVERGED
    single = row["method"] == BOOTSTRAP and claim != UNDECIDED
    return f"{THESE_MODELS if single else ''}{claim}"
