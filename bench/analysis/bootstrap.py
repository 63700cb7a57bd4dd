"""Bootstrap over validation images: the metrics of each cell, recomputed exactly for every resample.

Matching depends on single images only, so resampling reweights the stored matches. All cells share the same
resamples: image difficulty cancels in differences between cells. Use the replicates for differences only, because
AP over fewer distinct images is biased upward (in all cells alike).
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
from bench.storage.run_folder import MATCHES

REPLICATES = 1000
SEED = 0  # fixed, so that rebuilding a report gives identical files
MIN_IMAGES = 10  # with ground truths of a metric; below that it gets no interval
TOLERANCE = 1e-9  # between the AP in a record and the AP of its matches

Metric = tuple[str, str]  # measure, class ("" for all classes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """Bootstrap replicates of the cells that have matches.

    replicates: (B,) fractions of 1 by cell id and metric; NaN where a resample has no relevant ground truth.
    support: number of images with relevant ground truths, by metric.
    images: N, the size of the validation split.
    """

    replicates: Mapping[str, Mapping[Metric, NDArray[np.float64]]]
    support: Mapping[Metric, int]
    images: int


def resample(run: Run, cell_ids: Iterable[str], *, replicates: int = REPLICATES) -> Resampled:
    """Compute the metrics of all cells on the same `replicates` resamples of N images with replacement.

    Skips cells without ``matches.npz`` (where only records were kept). Raises UserError if matches cannot be read or
    do not belong to their record, or if cells were evaluated on different ground truths.
    """
    paths = {cell_id: run.folder_of(cell_id) / MATCHES for cell_id in cell_ids}
    paths = {cell_id: path for cell_id, path in paths.items() if path.is_file()}
    if not paths:
        return Resampled(replicates={}, support={}, images=0)
    first = next(iter(paths.values()))
    truths = read_matches(first)
    weights = bootstrap_weights(len(truths.image_ids), replicates)

    def replicates_of(cell_id: str) -> dict[Metric, NDArray[np.float64]]:
        path = paths[cell_id]
        matches = read_matches(path)
        require_same_ground_truths(first, truths, path, matches)
        metrics = weighted_metrics(matches, weights)
        _check(path, run.records[cell_id], metrics)
        return {metric: values[1:] for metric, values in metrics.items()}

    # NumPy releases the GIL during the sums.
    with ThreadPoolExecutor(joblib.cpu_count()) as threads:
        by_cell = dict(zip(paths, threads.map(replicates_of, paths), strict=True))
    return Resampled(replicates=by_cell, support=support(truths), images=len(truths.image_ids))


def bootstrap_weights(images: int, replicates: int) -> NDArray[np.float64]:
    """(1 + B, N) image weights: a row of ones, then the counts of B resamples with replacement."""
    if not images:
        return np.ones((1 + replicates, 0))
    drawn = np.random.default_rng(SEED).multinomial(images, np.full(images, 1 / images), size=replicates)
    return np.concatenate((np.ones((1, images)), drawn.astype(np.float64)))


def weighted_metrics(matches: Matches, weights: NDArray[np.float64]) -> dict[Metric, NDArray[np.float64]]:
    """(B,) values of each metric for image weights (B, N), as pycocotools computes them.

    AP, AP50, AP75, AP of every other area range (``AP_small``), and AP of each class. As in pycocotools, the mean
    skips classes without ground truths; these are the same classes in all cells.
    """
    metrics: dict[Metric, NDArray[np.float64]] = {}
    for area in matches.areas:
        precision = average_precision(matches, weights, area=area)
        if area == "all":
            metrics["AP", ""] = _mean(precision, axis=(1, 2))
            for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
                place = np.flatnonzero(np.isclose(matches.thresholds, threshold))
                metrics[name, ""] = _mean(precision[..., place], axis=(1, 2))
            metrics |= {("AP", name): precision[:, label].mean(axis=1) for label, name in enumerate(matches.classes)}
        else:
            metrics[f"AP_{area}", ""] = _mean(precision, axis=(1, 2))
    return metrics


def support(matches: Matches) -> dict[Metric, int]:
    """Number of images with ground truths of each metric of `weighted_metrics`."""
    used = ~matches.truth_ignored
    images = {
        (f"AP_{area}" if area != "all" else "AP", ""): matches.truth_image[used[row]]
        for row, area in enumerate(matches.areas)
    }
    any_size = used[matches.areas.index("all")]
    images |= {
        ("AP", name): matches.truth_image[any_size & (matches.truth_label == label)]
        for label, name in enumerate(matches.classes)
    }
    images |= {(name, ""): images["AP", ""] for name in ("AP50", "AP75")}
    return {metric: len(np.unique(rows)) for metric, rows in images.items()}


def paired_interval(estimate: float, replicates: NDArray[np.float64], images: int) -> Interval:
    """The confidence interval of a difference from its (B,) paired replicates.

    images: number of images with ground truths of the metric, at least 2. They set the degrees of freedom, not all
        images of the split.

    Student's t with the replicates' standard deviation as standard error: of the usual bootstrap intervals, this one
    had the best coverage in simulation (docs/statistics.md). The factor n / (n - 1) corrects the bootstrap variance,
    which is (n - 1) / n of the sample variance.
    """
    existing = replicates[np.isfinite(replicates)]
    error = float(existing.std(ddof=1)) * (images / (images - 1)) ** 0.5
    return t_interval(estimate, error, images - 1)


def too_few_images(images: int) -> str:
    """The reason for a missing interval, as the tables show it."""
    return f"none: ground truths in {images} images, {MIN_IMAGES} are needed"


def read_matches(path: Path) -> Matches:
    """Load the matches of a cell. Raises UserError if the file cannot be read."""
    try:
        return Matches.load(path)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {error}); delete the cell's folder and repeat the "
            "command to rerun the cell, or delete only the file: effects then have no intervals"
        ) from error


def require_same_ground_truths(one_path: Path, one: Matches, other_path: Path, other: Matches) -> None:
    """Raise UserError if two cells were evaluated on different ground truths and so cannot be compared."""
    names = ("image_ids", "truth_image", "truth_label", "truth_ignored", "thresholds")
    if (one.classes, one.areas) != (other.classes, other.areas) or not all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in names
    ):
        raise UserError(
            f"{other_path} and {one_path} were evaluated on different ground truths, so their cells cannot be "
            "compared; rerun in a new folder"
        )


def _mean(values: NDArray[np.float64], *, axis: tuple[int, ...]) -> NDArray[np.float64]:
    """`numpy.nanmean` without its warning for empty slices: suppressing warnings is not thread-safe."""
    valid = ~np.isnan(values)
    number = valid.sum(axis=axis)
    total = np.where(valid, values, 0.0).sum(axis=axis)
    return np.asarray(np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0))


def _check(path: Path, record: Mapping[str, Any], metrics: Mapping[Metric, NDArray[np.float64]]) -> None:
    recorded = (record.get("accuracy") or {}).get("AP")
    computed = float(metrics["AP", ""][0])
    if (recorded is None) != np.isnan(computed) or (recorded is not None and abs(recorded - computed) > TOLERANCE):
        raise UserError(
            f"{path} gives AP {computed:.6f}, but the record next to it says {recorded}: they come from two "
            "evaluations; delete the cell's folder and repeat the command to rerun the cell"
        )
