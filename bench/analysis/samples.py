"""The metrics of all finished cells with their bootstrap replicates, ready for contrasts of variants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.bootstrap import MIN_IMAGES, SUPPORTED, Metric, Resampled, resample
from bench.analysis.components import Sample
from bench.analysis.run_records import CellKey, Run, cells_frame, classes_frame
from bench.data.subsets import NETWORK_SIZES, SIZES

ACCURACY = ("AP", "AP50", "AP75", *(f"AP_{size}" for size in (*SIZES, *NETWORK_SIZES)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """One `Sample` per metric.

    variants: K names in the order of the plan. seeds: S. by_metric: AP of all classes is always there.
    resampled: the replicates; `replicates` is empty where only records were kept.
    """

    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    by_metric: Mapping[Metric, Sample]
    resampled: Resampled

    def vector(self, weights: Mapping[str, float]) -> NDArray[np.float64]:
        """(K,) weights in the order of the variants. Raises KeyError for a variant that is not in the plan."""
        result = np.zeros(len(self.variants))
        for name, weight in weights.items():
            result[self.variants.index(name)] = weight
        return result

    def images(self, metric: Metric) -> int:
        """Number of validation images with ground truths of a metric."""
        return self.resampled.support.get(metric, 0)


def samples_of(run: Run) -> Samples:
    """Read the metrics of all finished cells and resample their images, except in a smoke test, which has no effects.

    Raises UserError like `bench.analysis.bootstrap.resample`.
    """
    return samples_from(run, resample(run, [] if run.smoke or len(run.variants) < 2 else _with_ap(run)))


def samples_from(run: Run, resampled: Resampled) -> Samples:
    """The samples of the finished cells, with the replicates in `resampled`."""
    values = _metrics(run)
    ids = {cell.key: cell.id for cell in run.cells}
    done = _with_ap(run)
    # Without the matches of one cell, the images cannot be resampled for all variants alike.
    complete = bool(done) and set(done) <= resampled.replicates.keys()
    if complete and resampled.supported:
        values[SUPPORTED] = {key: resampled.supported[ids[key]] for key in values["AP", ""]}
    samples = {}
    for metric, by_cell in values.items():
        own = np.full((len(run.variants), len(run.seeds)), math.nan)
        for (variant, seed), value in by_cell.items():
            own[run.variants.index(variant), run.seeds.index(seed)] = value
        groups = resampled.groups.get(metric, 0)
        usable = complete and groups >= MIN_IMAGES
        samples[metric] = Sample(
            values=own,
            replicates=_stacked(run, resampled, metric, by_cell, ids) if usable else None,
            groups=groups,
            factor=resampled.factor.get(metric, 1.0),
        )
    return Samples(variants=run.variants, seeds=run.seeds, by_metric=samples, resampled=resampled)


def _with_ap(run: Run) -> list[str]:
    """The ids of the finished cells that have an AP."""
    return [cell.id for cell, record in run.done() if (record.get("accuracy") or {}).get("AP") is not None]


def _stacked(
    run: Run, resampled: Resampled, metric: Metric, cells: Mapping[CellKey, float], ids: Mapping[CellKey, str]
) -> NDArray[np.float64]:
    """(K, S, B) replicates, NaN where a cell has no value."""
    replicates = {key: resampled.replicates[ids[key]][metric] for key in cells}
    result = np.full((len(run.variants), len(run.seeds), len(next(iter(replicates.values())))), math.nan)
    for (variant, seed), own in replicates.items():
        result[run.variants.index(variant), run.seeds.index(seed)] = own
    return result


def _metrics(run: Run) -> dict[Metric, dict[CellKey, float]]:
    """Every accuracy metric that some finished cell has, by variant and seed; AP even if no cell has it."""
    cells, classes = cells_frame(run), classes_frame(run)
    values = {(measure, ""): _by_cell(cells, f"accuracy.{measure}") for measure in ACCURACY}
    values |= {("AP", str(name)): _by_cell(rows, "AP") for name, rows in classes.groupby("class", sort=False)}
    return {metric: by_cell for metric, by_cell in values.items() if by_cell or metric == ("AP", "")}


def _by_cell(frame: pd.DataFrame, column: str) -> dict[CellKey, float]:
    if column not in frame:
        return {}
    rows = frame.dropna(subset=column)
    return dict(zip(zip(rows["variant"], rows["seed"], strict=True), rows[column].astype(float), strict=True))
