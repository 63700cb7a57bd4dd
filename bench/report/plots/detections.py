"""The curves behind an AP: against the IoU threshold, precision against recall, and calibration."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.analysis.cell_errors import CellErrors, RunErrors
from bench.analysis.curves import BINS, ap_by_threshold, precision_at_recalls, reliability
from bench.analysis.run_records import Run
from bench.evaluation.matches import RECALLS
from bench.report.plots.canvas import GREY, Look, annotate, legend_beside, looks, named, new_figure, nothing

FEWEST = 10  # detections of a bin, for its precision to be drawn


def ap_against_iou(run: Run, cell_errors: RunErrors) -> Figure:
    """AP of every variant at each IoU threshold, mean over classes and seeds: where it falls, boxes are loose."""
    figure, panels = new_figure(run, height=3.2 + 0.12 * len(run.variants))
    axes = panels[0]
    drawn = False
    for variant, look, cells in _by_variant(run, cell_errors):
        curve = 100 * _mean([ap_by_threshold(cell.matches) for cell in cells])
        drawn |= _draw(axes, cells[0].matches.thresholds, curve, look, label=named(run, variant), every=1)
    axes.set_xlabel("IoU from which a detection is true")
    axes.set_ylabel("AP, %")
    _finish(figure, axes, drawn=drawn)
    annotate(figure, run, "mean over classes" + _seeds(run))
    return figure


def precision_recall(run: Run, cell_errors: RunErrors) -> Figure:
    """Precision against recall at an IoU of 0.5, mean over classes and seeds: the area beneath it is AP50."""
    figure, panels = new_figure(run, height=3.6 + 0.12 * len(run.variants))
    axes = panels[0]
    drawn = False
    for variant, look, cells in _by_variant(run, cell_errors):
        curve = 100 * _mean([_mean(precision_at_recalls(cell.matches)) for cell in cells])
        drawn |= _draw(axes, 100 * RECALLS, curve, look, label=named(run, variant), every=10)
    axes.set(xlabel="recall, %", ylabel="precision at this recall or more, %", xlim=(0, 100), ylim=(0, 103))
    _finish(figure, axes, drawn=drawn)
    annotate(figure, run, "IoU .50, mean over classes" + _seeds(run))
    return figure


def calibration(run: Run, cell_errors: RunErrors) -> Figure:
    """Share of true detections (IoU 0.5) against their score, with the expected calibration error (ECE)."""
    figure, panels = new_figure(run, height=3.6 + 0.12 * len(run.variants))
    axes = panels[0]
    axes.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=0.9, zorder=1)
    drawn = False
    for variant, look, cells in _by_variant(run, cell_errors):
        found = [reliability(cell.matches) for cell in cells]
        scores, shares = (
            100 * _mean([np.where(each.count >= FEWEST, values(each), np.nan) for each in found]) for values in _COLUMNS
        )
        error = 100 * float(_mean([each.error for each in found]))
        label = f"{named(run, variant)}\nECE {error:.1f}" if np.isfinite(error) else named(run, variant)
        drawn |= _draw(axes, scores, shares, look, label=label, every=1)
    axes.set(xlabel="score, %", ylabel="true detections, %", xlim=(0, 100), ylim=(0, 100))
    _finish(figure, axes, drawn=drawn)
    annotate(
        figure,
        run,
        f"IoU .50; {BINS} bins of scores, those with fewer than {FEWEST} detections are not drawn; ECE: mean distance "
        "of score and share over all detections, points; dotted: as sure as right" + _seeds(run),
    )
    return figure


_COLUMNS: tuple[Callable[..., NDArray[np.float64]], ...] = (lambda each: each.score, lambda each: each.precision)


def _by_variant(run: Run, cell_errors: RunErrors) -> Iterable[tuple[str, Look, list[CellErrors]]]:
    for variant, look in looks(run).items():
        cells = list(cell_errors.of_variant(variant).values())
        if cells:
            yield variant, look, cells


def _mean(rows: Iterable[NDArray[np.float64] | float]) -> NDArray[np.float64]:
    """Mean of the rows; of what some of them lack, over the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a mean of nothing, which is NaN
        return np.asarray(np.nanmean(np.asarray(list(rows), dtype=np.float64), axis=0))


def _draw(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], look: Look, *, label: str, every: int) -> bool:
    """A curve with the look of its variant; whether there was anything to draw."""
    exist = np.isfinite(x) & np.isfinite(y)
    if not exist.any():
        return False
    axes.plot(
        x[exist],
        y[exist],
        color=look.colour,
        linestyle=look.dash,
        linewidth=1.3,
        marker=look.marker,
        markersize=4.5,
        mec="black",
        mew=0.5,
        markevery=every,
        label=label,
    )
    return True


def _finish(figure: Figure, axes: Axes, *, drawn: bool) -> None:
    if drawn:
        legend_beside(figure, axes)
    else:
        nothing(axes, "no cell has kept its matches, or found anything to show")


def _seeds(run: Run) -> str:
    return ", mean of the seeds" if len(run.seeds) > 1 else ""
