"""Compare detections with those of the first detector, by the statistics of a run with one seed.

Each detector takes the place of a variant and the first one that of the baseline. All of them are evaluated on the same
images, which are then resampled for all detectors at once (`bench.analysis.bootstrap`): how hard an image is cancels in
the differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.best import best_frame
from bench.analysis.bootstrap import REPLICATES, resample_matches
from bench.analysis.cell_errors import RunErrors, errors_of_cell
from bench.analysis.components import CONSTANT
from bench.analysis.curves import reliability
from bench.analysis.effects import THESE_MODELS, effects_frame
from bench.analysis.error_costs import BUDGET, IMPRECISE, errors_frame
from bench.analysis.factorial import against
from bench.analysis.lengths import lengths_frame
from bench.analysis.results import Analysis
from bench.analysis.run_records import PlannedCell, Run
from bench.analysis.samples import samples_from
from bench.analysis.statistics import BOOTSTRAP
from bench.analysis.thresholds import best_threshold
from bench.data.index import ImageIndex
from bench.errors import UserError
from bench.evaluation.coco import Evaluation, evaluate
from bench.evaluation.detections import Detections, xywh
from bench.evaluation.error_types import error_types

SEED = 0  # of every cell: nothing is trained again
EQUAL = "equal"  # verdict on a difference that is zero on the images and on every resample
DIFFERENCES = (
    *("detector", "measure", "class", "value", "reference", "difference", "low", "high", "p", "p_adjusted"),
    *("adjusted_by", "verdict", "method", "images"),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """K detectors on the same images; the first is the reference.

    analysis: the detectors as variants of a run with one seed.
    counts: number of detections of each detector. detected: number of images with any of them.
    groups: number of independent groups of images.
    differences: `differences_frame`. errors: `errors_by_detector`. thresholds: `thresholds_frame`.
    calibration: expected calibration error of each detector, NaN if its scores are no probabilities.
    """

    analysis: Analysis
    counts: Mapping[str, int]
    detected: Mapping[str, int]
    groups: int
    differences: pd.DataFrame
    errors: pd.DataFrame
    thresholds: pd.DataFrame
    calibration: Mapping[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        return self.analysis.run.variants

    @property
    def reference(self) -> str:
        return self.names[0]

    def of_ap(self, name: str) -> pd.Series:
        """The row of `differences` of a detector other than the first, for AP over all classes."""
        row = self.difference(name, "AP")
        assert row is not None, name  # `compare` requires an AP
        return row

    def difference(self, name: str, measure: str, label: str = "") -> pd.Series | None:
        """The row of `differences` of a detector; None for the first, or without ground truths. label: a class."""
        frame = self.differences
        rows = frame[(frame["detector"] == name) & (frame["measure"] == measure) & (frame["class"] == label)]
        return rows.iloc[0] if len(rows) else None


def compare(
    detectors: Mapping[str, Detections],
    index: ImageIndex,
    groups: NDArray[np.int64],
    *,
    folder: Path,
    data: str,
    worth: float,
    replicates: int = REPLICATES,
) -> Comparison:
    """Compare two or more detectors, by name, on the images of `index`.

    groups: (N,) near-duplicates among the images, from 0, which are drawn together. folder: of the results. data: name
    of the data. worth: the smallest difference worth having, in points of AP.
    Raises UserError if the images have no object that counts.
    """
    ordered = {name: in_fixed_order(each) for name, each in detectors.items()}
    evaluations = {name: evaluate(index, each, network_size=None) for name, each in ordered.items()}
    if any(each.accuracy["AP"] is None for each in evaluations.values()):
        raise UserError(
            f"None of the {len(index)} evaluated images of {data} has an object that counts; evaluate on others "
            "(--eval-list or --all-images)"
        )
    run = _as_run(evaluations, folder=folder, data=data, worth=worth)
    matches = {cell.id: evaluations[cell.variant].matches for cell in run.cells}
    truths = xywh(index.boxes)
    errors = RunErrors(
        cells={
            cell.key: errors_of_cell(
                matches[cell.id],
                error_types(matches[cell.id], xywh(ordered[cell.variant].boxes[matches[cell.id].detection]), truths),
            )
            for cell in run.cells
        },
        unavailable={},
        groups=groups,
    )
    samples = samples_from(run, resample_matches(matches, groups, replicates=replicates))
    effects = effects_frame(run, samples)
    analysis = Analysis(
        run=run,
        samples=samples,
        effects=effects,
        best=best_frame(run, samples),
        lengths=lengths_frame(run, effects),
        cell_errors=errors,
        errors=errors_frame(run, errors),
    )
    return Comparison(
        analysis=analysis,
        counts={name: len(each.image) for name, each in ordered.items()},
        detected={name: len(np.unique(each.image)) for name, each in ordered.items()},
        groups=len(np.unique(groups)),
        differences=differences_frame(analysis),
        errors=errors_by_detector(analysis),
        thresholds=thresholds_frame(analysis),
        calibration={cell.variant: reliability(matches[cell.id]).error for cell in run.cells},
    )


def in_fixed_order(detections: Detections) -> Detections:
    """Sort detections by image, class, score and box, so that ties do not depend on their order in the file."""
    columns = (*detections.boxes.T, -detections.scores, detections.labels, detections.image)
    return detections.take(np.lexsort(columns))


def differences_frame(analysis: Analysis) -> pd.DataFrame:
    """One row per metric and detector other than the first: AP first, then the other metrics, then AP by class.

    value, reference: the metric of the detector and of the first, fractions of 1. difference: value - reference.
    low, high: its 95% interval, which holds for all detectors together where adjusted_by is "max-T". The others are
        exploratory, with p values adjusted by Benjamini and Hochberg. p, p_adjusted, method, images: as in
        `bench.analysis.effects.effects_frame`.
    verdict: "higher", "lower", "no effect worth having", "undecided", `EQUAL`, or "" without an interval.
    """
    run, samples = analysis.run, analysis.samples
    reference, *others = run.variants
    detector_of = {against(name, reference, "arm").name: name for name in others}
    frame = analysis.effects[analysis.effects["kind"] == "arm"].rename(columns={"effect": "difference"})
    frame = _with_zero_intervals(frame)
    frame["detector"] = frame["contrast"].map(detector_of)
    frame["verdict"] = frame["verdict"].str.removeprefix(THESE_MODELS)
    frame.loc[(frame["low"] == 0) & (frame["high"] == 0), "verdict"] = EQUAL
    values = [samples.by_metric[key].values[:, 0] for key in zip(frame["measure"], frame["class"], strict=True)]
    places = [run.variants.index(name) for name in frame["detector"]]
    frame["value"] = [own[place] for own, place in zip(values, places, strict=True)]
    frame["reference"] = [own[0] for own in values]
    return frame.reset_index(drop=True)[list(DIFFERENCES)]


def errors_by_detector(analysis: Analysis) -> pd.DataFrame:
    """The result of `bench.analysis.error_costs.errors_frame` without the columns that only training has.

    Of the budget it keeps the imprecise boxes, which have the scope "budget" and no number of errors.
    """
    frame = analysis.errors[(analysis.errors["scope"] != BUDGET) | (analysis.errors["kind"] == IMPRECISE)]
    frame = frame.rename(columns={"variant": "detector"}).drop(columns=["seeds", "dAP50_std"])
    return _with_zero_intervals(frame.reset_index(drop=True))


def thresholds_frame(analysis: Analysis) -> pd.DataFrame:
    """One row per detector and class, "" for all classes together: ground_truths, then `BestThreshold`'s fields."""
    rows = []
    for (name, _), cell in analysis.cell_errors.cells.items():
        counts = cell.matches.ground_truths()
        rows.append(
            {"detector": name, "class": "", "ground_truths": int(counts.sum()), **asdict(best_threshold(cell.matches))}
        )
        rows += [
            {"detector": name, "class": label, "ground_truths": count, **asdict(best_threshold(cell.matches, place))}
            for place, (label, count) in enumerate(zip(cell.matches.classes, counts.tolist(), strict=True))
        ]
    return pd.DataFrame(rows).rename(columns={"score": "threshold"})


def _as_run(evaluations: Mapping[str, Evaluation], *, folder: Path, data: str, worth: float) -> Run:
    names = tuple(evaluations)
    cells = tuple(
        PlannedCell(id=f"{place:012x}", variant=name, factors={name: place > 0}, seed=SEED, control=None)
        for place, name in enumerate(names)
    )
    return Run(
        folder=folder,
        variants=names,
        axes=(),
        seeds=(SEED,),
        cells=cells,
        plan={"data": data, "worth": worth, "trained": False},
        records={cell.id: {"status": "done", "accuracy": evaluations[cell.variant].accuracy} for cell in cells},
    )


def _with_zero_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """Give differences that are zero on the images and on every resample the interval from 0 to 0."""
    frame = frame.copy()
    zero = (frame["method"] == CONSTANT) & (frame["difference"] == 0)
    frame.loc[zero, ["low", "high"]] = 0.0
    frame.loc[zero, "method"] = BOOTSTRAP
    return frame
