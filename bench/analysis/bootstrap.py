"""Figures of a cell under resampled images: exact, since the evaluator's matching does not depend on weights.

All cells are given the same draws of images, so what makes an image hard for every cell cancels in a
difference between them. Differences alone are read off the replicates: an AP of fewer distinct images is
biased upwards, in all cells alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import joblib
import numpy as np
from numpy.typing import NDArray

from bench.analysis.run_records import Run
from bench.analysis.statistics import Interval, t_interval
from bench.errors import UserError
from bench.evaluation.matches import Matches, average_precision

REPLICATES = 1000
SEED = 0  # of the draws: the same report twice is the same to the last bit
FEWEST_IMAGES = 10  # that hold ground truths of a figure, for an interval of it
TOLERANCE = 1e-9  # between the AP of a record and that of its matches

Figure = tuple[str, str]  # measure, class ("" for all)


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """What the draws give for the cells of a run that have matches.

    replicates: by cell id and figure, (B,) fractions of 1; NaN where a draw holds no ground truth to ask about.
    support: by figure, the number of images that hold such ground truths.
    images: N, of the validation split.
    """

    replicates: Mapping[str, Mapping[Figure, NDArray[np.float64]]]
    support: Mapping[Figure, int]
    images: int


def resample(run: Run, cell_ids: Iterable[str], *, replicates: int = REPLICATES) -> Resampled:
    """The figures of cells under `replicates` draws of N images with replacement, the same draws for all.

    Cells without a ``matches.npz`` (records alone were kept) are left out.
    Raises UserError for matches that cannot be read, that are not those of the record, and where two
    cells saw different ground truths.
    """
    paths = {cell_id: run.folder_of(cell_id) / "matches.npz" for cell_id in cell_ids}
    paths = {cell_id: path for cell_id, path in paths.items() if path.is_file()}
    if not paths:
        return Resampled(replicates={}, support={}, images=0)
    first = next(iter(paths.values()))
    truths = read_matches(first)
    weights = draws(len(truths.image_ids), replicates)

    def of_cell(cell_id: str) -> dict[Figure, NDArray[np.float64]]:
        path = paths[cell_id]
        matches = read_matches(path)
        if not same_truths(truths, matches):
            raise UserError(
                f"{path} and {first} were counted on different ground truths, so their cells cannot be compared; "
                "start the run again in a folder of its own"
            )
        figures = weighted_figures(matches, weights)
        _check(path, run.records[cell_id], figures)
        return {figure: values[1:] for figure, values in figures.items()}

    # Their sums let go of the interpreter
    with ThreadPoolExecutor(joblib.cpu_count()) as threads:
        found = dict(zip(paths, threads.map(of_cell, paths), strict=True))
    return Resampled(replicates=found, support=support(truths), images=len(truths.image_ids))


def draws(images: int, replicates: int) -> NDArray[np.float64]:
    """(1 + B, N) weights of images: all once, and how often each was drawn in B draws with replacement."""
    if not images:
        return np.ones((1 + replicates, 0))
    drawn = np.random.default_rng(SEED).multinomial(images, np.full(images, 1 / images), size=replicates)
    return np.concatenate((np.ones((1, images)), drawn.astype(np.float64)))


def weighted_figures(matches: Matches, weights: NDArray[np.float64]) -> dict[Figure, NDArray[np.float64]]:
    """(B,) each figure of a cell under the weights (B, N) of its images, as pycocotools would give it.

    AP, AP50, AP75, AP of every other area range (``AP_small``), and AP of each class. As there, a class
    without ground truths drops out of the mean; it does so in all cells at once.
    """
    figures: dict[Figure, NDArray[np.float64]] = {}
    for area in matches.areas:
        precision = average_precision(matches, weights, area=area)
        if area == "all":
            figures["AP", ""] = _mean(precision, axis=(1, 2))
            for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
                place = np.flatnonzero(np.isclose(matches.thresholds, threshold))
                figures[name, ""] = _mean(precision[..., place], axis=(1, 2))
            figures |= {("AP", name): precision[:, label].mean(axis=1) for label, name in enumerate(matches.classes)}
        else:
            figures[f"AP_{area}", ""] = _mean(precision, axis=(1, 2))
    return figures


def support(matches: Matches) -> dict[Figure, int]:
    """Number of images that hold ground truths of each figure of `weighted_figures`."""
    counted = ~matches.truth_ignored
    images = {
        (f"AP_{area}" if area != "all" else "AP", ""): matches.truth_image[counted[row]]
        for row, area in enumerate(matches.areas)
    }
    everywhere = counted[matches.areas.index("all")]
    images |= {
        ("AP", name): matches.truth_image[everywhere & (matches.truth_label == label)]
        for label, name in enumerate(matches.classes)
    }
    images |= {(name, ""): images["AP", ""] for name in ("AP50", "AP75")}
    return {figure: len(np.unique(rows)) for figure, rows in images.items()}


def paired_interval(estimate: float, replicates: NDArray[np.float64], images: int) -> Interval:
    """The interval of a difference from its (B,) paired replicates.

    images: how many hold ground truths of the figure, at least 2. They, and not all that were drawn from, are what
    the error rests on.

    Student's t with the replicates' standard deviation for the error: of the usual intervals the one whose
    coverage was best where the truth was known (docs/statistics.md). The root mends that resampling n
    observations spreads by (n - 1) / n of their sample variance.
    """
    existing = replicates[np.isfinite(replicates)]
    error = float(existing.std(ddof=1)) * (images / (images - 1)) ** 0.5
    return t_interval(estimate, error, images - 1)


def read_matches(path: Path) -> Matches:
    """The matches of a cell. Raises UserError where they cannot be read."""
    try:
        return Matches.load(path)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}); delete the folder of its cell and start the "
            "run again with the same command, or delete the file alone: effects then have no intervals"
        ) from error


def same_truths(one: Matches, other: Matches) -> bool:
    """Whether two cells were counted on the same ground truths, so that they can be compared."""
    names = ("image_ids", "truth_image", "truth_label", "truth_ignored", "thresholds")
    return (one.classes, one.areas) == (other.classes, other.areas) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in names
    )


def _mean(values: NDArray[np.float64], *, axis: tuple[int, ...]) -> NDArray[np.float64]:
    """`numpy.nanmean`, but that of nothing without a warning: to catch it is not safe among threads."""
    there = ~np.isnan(values)
    number = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis)
    return np.asarray(np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0))


def _check(path: Path, record: Mapping[str, Any], figures: Mapping[Figure, NDArray[np.float64]]) -> None:
    recorded = (record.get("accuracy") or {}).get("AP")
    counted = float(figures["AP", ""][0])
    if (recorded is None) != np.isnan(counted) or (recorded is not None and abs(recorded - counted) > TOLERANCE):
        raise UserError(
            f"{path} gives AP {counted:.6f} and the record beside it {recorded}: they are of two evaluations; "
            "delete the folder of the cell and start the run again with the same command"
        )
