"""Bootstrap over validation images: the metrics of each cell, recomputed exactly for every resample.

Matching depends on single images only, so resampling reweights the stored matches. Groups of near-duplicates are drawn
as a whole. All cells share the same resamples: image difficulty cancels in differences between cells. Use the
replicates for differences only, because AP over fewer distinct images is biased upward (in all cells alike).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from bench.analysis.image_groups import independent_groups, validation_groups, variance_factor
from bench.analysis.run_records import Run
from bench.errors import UserError
from bench.evaluation.matches import Matches, average_precision
from bench.storage.reading import RERUN_CELL
from bench.storage.run_folder import MATCHES

REPLICATES = 1000
SEED = 0  # fixed, so that rebuilding a report gives identical files
MIN_IMAGES = 10  # independent images with ground truths: a metric with fewer gets no interval, a class is weak
MANY_WEAK = 0.25  # share of weak classes from which the tables warn
TOLERANCE = 1e-9  # between the AP in a record and the AP of its matches

Metric = tuple[str, str]  # measure, class ("" for all classes)
SUPPORTED: Metric = ("AP_supported", "")  # AP over the classes that are not weak


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """Bootstrap replicates of the cells that have matches.

    replicates: (B,) fractions of 1 by cell id and metric; NaN where a resample has no relevant ground truth.
    supported: AP over the `supported_classes` on the images as they are, by cell id; empty without such classes.
    support: number of images with relevant ground truths, by metric.
    groups: number of independent ones among these images, by metric: near-duplicates count once. A difference has
        groups - 1 degrees of freedom.
    factor: by what the variance of replicates is multiplied to be unbiased, by metric.
    weak_classes: number of classes with ground truths in fewer than MIN_IMAGES independent images, and of all classes
        with ground truths.
    images: N, the size of the validation split.
    """

    replicates: Mapping[str, Mapping[Metric, NDArray[np.float64]]]
    supported: Mapping[str, float]
    support: Mapping[Metric, int]
    groups: Mapping[Metric, int]
    factor: Mapping[Metric, float]
    weak_classes: tuple[int, int]
    images: int


def resample(run: Run, cell_ids: Iterable[str], *, replicates: int = REPLICATES) -> Resampled:
    """Compute the metrics of all cells on the same `replicates` resamples of the groups of images with replacement.

    Skips cells without ``matches.npz`` (where only records were kept). Raises UserError if matches cannot be read or
    do not belong to their record, or if cells were evaluated on different ground truths.
    """
    paths = {cell_id: run.folder_of(cell_id) / MATCHES for cell_id in cell_ids}
    paths = {cell_id: path for cell_id, path in paths.items() if path.is_file()}
    if not paths:
        return Resampled(replicates={}, supported={}, support={}, groups={}, factor={}, weak_classes=(0, 0), images=0)
    first = next(iter(paths.values()))
    truths = read_matches(first)
    groups = validation_groups(run, truths.image_ids)
    weights = bootstrap_weights(groups, replicates)

    def metrics_of(cell_id: str) -> dict[Metric, NDArray[np.float64]]:
        path = paths[cell_id]
        matches = read_matches(path)
        require_same_ground_truths(first, truths, path, matches)
        metrics = weighted_metrics(matches, weights, groups)
        _check(path, run.records[cell_id], metrics)
        return metrics

    return _resampled(paths, metrics_of, truths, groups, weights)


def resample_matches(
    matches: Mapping[str, Matches], groups: NDArray[np.int64], *, replicates: int = REPLICATES
) -> Resampled:
    """The same for matches in memory, by cell id; at least one, all of the same ground truths.

    groups: (N,) near-duplicates among the images, from 0.
    """
    weights = bootstrap_weights(groups, replicates)
    return _resampled(
        matches,
        lambda cell_id: weighted_metrics(matches[cell_id], weights, groups),
        next(iter(matches.values())),
        groups,
        weights,
    )


def _resampled(
    cell_ids: Iterable[str],
    metrics_of: Callable[[str], dict[Metric, NDArray[np.float64]]],
    truths: Matches,
    groups: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> Resampled:
    """metrics_of: called in threads. truths: matches of any cell. groups: (N,). weights: (1 + B, N)."""
    ids = list(cell_ids)
    # NumPy releases the GIL during the sums.
    with ThreadPoolExecutor(joblib.cpu_count()) as threads:
        by_cell = dict(zip(ids, threads.map(metrics_of, ids), strict=True))
    return Resampled(
        replicates={cell: {metric: row[1:] for metric, row in metrics.items()} for cell, metrics in by_cell.items()},
        supported={cell: float(metrics[SUPPORTED][0]) for cell, metrics in by_cell.items() if SUPPORTED in metrics},
        support=support(truths, groups),
        groups=group_support(truths, groups),
        factor=variance_factors(truths, groups, weights),
        weak_classes=weak_classes(truths, groups),
        images=len(truths.image_ids),
    )


def bootstrap_weights(groups: NDArray[np.int64], replicates: int) -> NDArray[np.float64]:
    """(1 + B, N) image weights: a row of ones, then the counts of B resamples with replacement.

    groups: (N,) group of each image, from 0 to G - 1. A resample draws G of the G groups; an image counts as often as
        its group.
    """
    if not len(groups):
        return np.ones((1 + replicates, 0))
    number = int(groups.max()) + 1
    drawn = np.random.default_rng(SEED).multinomial(number, np.full(number, 1 / number), size=replicates)
    return np.concatenate((np.ones((1, len(groups))), drawn[:, groups].astype(np.float64)))


def weighted_metrics(
    matches: Matches, weights: NDArray[np.float64], groups: NDArray[np.int64] | None = None
) -> dict[Metric, NDArray[np.float64]]:
    """(B,) values of each metric for image weights (B, N), as pycocotools computes them.

    AP, AP50, AP75, AP of every other area range (``AP_small``), and AP of each class. As in pycocotools, the mean
    skips classes without ground truths; these are the same classes in all cells. If only some classes are weak
    (`supported_classes`), also their AP without these, ``AP_supported``.

    groups: (N,) near-duplicates. By default every image is its own group.
    """
    metrics: dict[Metric, NDArray[np.float64]] = {}
    for area in matches.areas:
        precision = average_precision(matches, weights, area=area)
        if area == "all":
            metrics["AP", ""] = _mean(precision, axis=(1, 2))
            for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
                place = np.flatnonzero(np.isclose(matches.thresholds, threshold))
                metrics[name, ""] = _mean(precision[..., place], axis=(1, 2))
            supported = supported_classes(matches, groups)
            if len(supported):
                metrics[SUPPORTED] = _mean(precision[:, supported], axis=(1, 2))
            metrics |= {("AP", name): precision[:, label].mean(axis=1) for label, name in enumerate(matches.classes)}
        else:
            metrics[f"AP_{area}", ""] = _mean(precision, axis=(1, 2))
    return metrics


def support(matches: Matches, groups: NDArray[np.int64] | None = None) -> dict[Metric, int]:
    """Number of images with ground truths of each metric of `weighted_metrics`."""
    return {metric: int(present.any(axis=1).sum()) for metric, present in _presence(matches, groups).items()}


def group_support(matches: Matches, groups: NDArray[np.int64]) -> dict[Metric, int]:
    """Number of independent images with ground truths of each metric (`independent_groups`)."""
    return {
        metric: int(independent_groups(present.max(axis=1, keepdims=True, initial=False), groups)[0])
        for metric, present in _presence(matches, groups).items()
    }


def variance_factors(matches: Matches, groups: NDArray[np.int64], weights: NDArray[np.float64]) -> dict[Metric, float]:
    """By what the variance of the replicates of each metric is multiplied to be unbiased (`variance_factor`).

    weights: (1 + B, N) of `bootstrap_weights`. NaN without ground truths or replicates.
    """
    presence = _presence(matches, groups)
    by_array = {id(present): variance_factor(present, groups, weights[1:]) for present in presence.values()}
    return {metric: by_array[id(present)] for metric, present in presence.items()}


def supported_classes(matches: Matches, groups: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Labels of the classes with ground truths in at least MIN_IMAGES independent images.

    Empty if these are all classes with ground truths: then AP itself is the AP of well-supported classes.
    """
    counts = _class_counts(matches, groups)
    supported = counts >= MIN_IMAGES
    return np.flatnonzero(supported & (supported.sum() < (counts > 0).sum()))


def weak_classes(matches: Matches, groups: NDArray[np.int64] | None = None) -> tuple[int, int]:
    """Number of classes with ground truths in 1 to MIN_IMAGES - 1 independent images, and with any ground truths."""
    counts = _class_counts(matches, groups)
    return int(((counts > 0) & (counts < MIN_IMAGES)).sum()), int((counts > 0).sum())


def weak_classes_note(weak: int, classes: int) -> str | None:
    """A warning for the tables if many classes are weak; None otherwise.

    weak, classes: as from `weak_classes`.
    """
    if not classes or weak < MANY_WEAK * classes:
        return None
    note = (
        f"{weak} of {classes} classes have ground truths in fewer than {MIN_IMAGES} validation images. Their AP is "
        "uncertain, which widens the intervals of AP."
    )
    return note + (f" {SUPPORTED[0]} is the AP without these classes." if weak < classes else "")


def too_few_images(groups: int) -> str:
    """The reason for a missing interval, as the tables show it. groups: number of independent images."""
    return f"none: ground truths in {groups} independent images, {MIN_IMAGES} are needed"


def read_matches(path: Path) -> Matches:
    """Load the matches of a cell. Raises UserError if the file cannot be read."""
    return Matches.load(path, remedy=f"{RERUN_CELL}, or delete only the file: effects then have no intervals")


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


def _presence(matches: Matches, groups: NDArray[np.int64] | None) -> dict[Metric, NDArray[np.bool_]]:
    """(N, K) which images have ground truths of each of the K classes that a metric averages over."""
    by_area = {area: _present(matches, area) for area in matches.areas}
    everywhere = by_area["all"]
    result = {(f"AP_{area}" if area != "all" else "AP", ""): present for area, present in by_area.items()}
    result |= {("AP", name): everywhere[:, [label]] for label, name in enumerate(matches.classes)}
    result |= {(name, ""): everywhere for name in ("AP50", "AP75")}
    supported = supported_classes(matches, groups)
    return result | ({SUPPORTED: everywhere[:, supported]} if len(supported) else {})


def _present(matches: Matches, area: str = "all") -> NDArray[np.bool_]:
    """(N, C) which images have ground truths of which class in a subset."""
    scored = ~matches.truth_ignored[matches.areas.index(area)]
    present = np.zeros((len(matches.image_ids), len(matches.classes)), dtype=np.bool_)
    present[matches.truth_image[scored], matches.truth_label[scored]] = True
    return present


def _class_counts(matches: Matches, groups: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """(C,) number of independent images with ground truths of each class."""
    own = np.arange(len(matches.image_ids)) if groups is None else groups
    return independent_groups(_present(matches), own)


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
