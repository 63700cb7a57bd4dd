"""The effect of every axis, interaction and control on every metric, with a confidence interval.

With several finished seeds, each seed gives one effect, and Student's t covers retraining on this dataset. With one
seed, images are resampled, and the interval covers these trained models only. Speed and training time cannot be
resampled over images: with one seed they have no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.analysis.bootstrap import MIN_IMAGES, Metric, Resampled, paired_interval, resample, too_few_images
from bench.analysis.factorial import Contrast, contrasts_of
from bench.analysis.run_records import CellKey, Run, cells_frame, classes_frame
from bench.analysis.statistics import BOOTSTRAP, LEVEL, STUDENT, Interval, holm, seeds_needed, student
from bench.data.subsets import NETWORK_SIZES, SIZES
from bench.storage.run_folder import MATCHES

ACCURACY = ("AP", "AP50", "AP75", *(f"AP_{size}" for size in (*SIZES, *NETWORK_SIZES)))
TIMED = {"images_per_second": ("speed.images_per_second", "images/s"), "train_seconds": ("cost.train_seconds", "s")}

COLUMNS = (
    *("contrast", "kind", "measure", "class", "unit", "effect", "low", "high", "p", "p_holm"),
    *("method", "n", "n_of", "verdict", "exploratory", "seeds_needed"),
)
NO_CLAIM = "no claim"
THESE_MODELS = "these models: "
FRACTION = "fraction of 1"  # unit of accuracy metrics


def effects_frame(run: Run) -> pd.DataFrame:
    """One row per metric and contrast: AP first, then the other accuracy metrics, AP by class, speed and training time.

    contrast, kind ("main effect", "interaction", "control"), measure, class ("": all), unit;
    effect, low, high (95% interval), p, p_holm (main effects on AP, adjusted for all of them; NaN elsewhere);
    method, or the reason for a missing interval; n and n_of ("seeds" or "images");
    verdict: "higher" or "lower" if the interval excludes zero and p_holm, where it exists, is below 0.05. With one
        seed "these models: higher". Otherwise "no claim", or "" without an interval;
    exploratory: False only for main effects on AP, the primary family;
    seeds_needed: seeds for 80% power at the observed difference and spread; None with one seed or above 1000.
    Missing values are NaN or None. A contrast needs all its variants in the same seed.

    Raises UserError like `bench.analysis.bootstrap.resample`.
    """
    contrasts = contrasts_of(run)
    effects = [
        _Effect.of(run, metric, contrast, values) for metric, values in _metrics(run).items() for contrast in contrasts
    ]
    ids = {cell.key: cell.id for cell in run.cells}
    single_seed = {ids[key] for effect in effects for key in effect.to_resample}
    resampled = resample(run, sorted(single_seed))
    frame = pd.DataFrame([effect.row(resampled, ids) for effect in effects], columns=list(COLUMNS))
    primary = ~frame["exploratory"].astype(bool)
    frame.loc[primary, "p_holm"] = holm(frame.loc[primary, "p"].astype(float).tolist())
    frame.loc[primary & frame["p_holm"].ge(LEVEL), "verdict"] = NO_CLAIM
    return frame


@dataclass(frozen=True, kw_only=True, eq=False)
class _Effect:
    """One contrast of one metric. by_seed: its value in every seed that has the metric for all its variants."""

    metric: Metric
    contrast: Contrast
    by_seed: Mapping[int, float]
    missing: tuple[CellKey, ...]

    @classmethod
    def of(cls, run: Run, metric: Metric, contrast: Contrast, values: Mapping[CellKey, float]) -> _Effect:
        order = {name: place for place, name in enumerate(run.variants)}
        needed = sorted(contrast.variants, key=lambda name: order.get(name, len(order)))
        missing = {seed: [name for name in needed if (name, seed) not in values] for seed in run.seeds}
        return cls(
            metric=metric,
            contrast=contrast,
            by_seed={
                seed: float(contrast.value({name: values[name, seed] for name in contrast.variants}))
                for seed, names in missing.items()
                if not names
            },
            missing=tuple((name, seed) for seed, names in missing.items() for name in names),
        )

    @property
    def to_resample(self) -> tuple[CellKey, ...]:
        """The cells to resample over images: those of an accuracy effect with a single seed."""
        if len(self.by_seed) != 1 or self.metric[0] in TIMED:
            return ()
        return tuple((name, seed) for seed in self.by_seed for name in self.contrast.variants)

    def row(self, resampled: Resampled, ids: Mapping[CellKey, str]) -> dict[str, object]:
        """The row of `effects_frame`, still without `p_holm`."""
        measure, name = self.metric
        values = list(self.by_seed.values())
        effect = float(np.mean(values)) if values else math.nan
        interval, method, n = self._interval(effect, resampled, ids)
        several = len(values) > 1
        return {
            "contrast": self.contrast.name,
            "kind": self.contrast.kind,
            "measure": measure,
            "class": name,
            "unit": TIMED[measure][1] if measure in TIMED else FRACTION,
            "effect": effect,
            "low": interval.low if interval else math.nan,
            "high": interval.high if interval else math.nan,
            "p": interval.p if interval else math.nan,
            "p_holm": math.nan,
            "method": method,
            "n": n,
            "n_of": "images" if method == BOOTSTRAP else "seeds",
            "verdict": _claim(interval, effect, several=several),
            "exploratory": (measure, name, self.contrast.kind) != ("AP", "", "main effect"),
            "seeds_needed": seeds_needed(effect, float(np.std(values, ddof=1))) if several else None,
        }

    def _interval(
        self, effect: float, resampled: Resampled, ids: Mapping[CellKey, str]
    ) -> tuple[Interval | None, str, int]:
        """The interval or None; its method or the reason for None; the number of seeds or images."""
        seeds = len(self.by_seed)
        if not seeds:
            return None, f"none: missing {', '.join(f'{name} (seed {seed})' for name, seed in self.missing)}", 0
        if seeds > 1:
            return student(list(self.by_seed.values())), STUDENT, seeds
        if self.metric[0] in TIMED:
            return None, "none: timed with one seed", seeds
        cells = {name: ids[name, seed] for name, seed in self.to_resample}
        without_matches = set(cells.values()) - resampled.replicates.keys()
        names = [name for (name, _), cell_id in ids.items() if cell_id in without_matches]
        if names:
            return None, f"none: no {MATCHES} of {', '.join(names)}", seeds
        images = resampled.support.get(self.metric, 0)
        if images < MIN_IMAGES:
            return None, too_few_images(images), seeds
        replicates = self.contrast.value(
            {name: resampled.replicates[cell_id][self.metric] for name, cell_id in cells.items()}
        )
        return paired_interval(effect, replicates, images), BOOTSTRAP, images


def _claim(interval: Interval | None, effect: float, *, several: bool) -> str:
    if interval is None:
        return ""
    if not interval.significant:
        return NO_CLAIM
    return ("" if several else THESE_MODELS) + ("higher" if effect > 0 else "lower")


def _metrics(run: Run) -> dict[Metric, dict[CellKey, float]]:
    """Every metric that some finished cell has, by variant and seed; AP even if no cell has it."""
    cells, classes = cells_frame(run), classes_frame(run)
    accuracy = {(measure, ""): f"accuracy.{measure}" for measure in ACCURACY}
    timed = {(measure, ""): path for measure, (path, _) in TIMED.items()}
    values = {metric: _by_cell(cells, path) for metric, path in accuracy.items()}
    values |= {("AP", str(name)): _by_cell(rows, "AP") for name, rows in classes.groupby("class", sort=False)}
    values |= {metric: _by_cell(cells, path) for metric, path in timed.items()}
    return {metric: by_cell for metric, by_cell in values.items() if by_cell or metric == ("AP", "")}


def _by_cell(frame: pd.DataFrame, column: str) -> dict[CellKey, float]:
    if column not in frame:
        return {}
    rows = frame.dropna(subset=column)
    return dict(zip(zip(rows["variant"], rows["seed"], strict=True), rows[column].astype(float), strict=True))
