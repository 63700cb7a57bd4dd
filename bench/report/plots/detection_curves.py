"""Shared by the plots with one curve per variant."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.analysis.cell_errors import CellErrors, RunErrors
from bench.analysis.run_records import Run
from bench.report.plots.canvas import annotate, legend_beside, legend_label, new_figure, show_empty, variant_styles


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """The points of a variant; NaN is not drawn. note: a second line in the legend."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    note: str = ""


def cells_by_variant(run: Run, cell_errors: RunErrors) -> Iterable[tuple[str, list[CellErrors]]]:
    """The variants that have cells with matches, and these cells."""
    for variant in run.variants:
        cells = list(cell_errors.of_variant(variant).values())
        if cells:
            yield variant, cells


def mean_without_nan(rows: Iterable[NDArray[np.float64] | float]) -> NDArray[np.float64]:
    """Mean over the rows, ignoring NaN; NaN where all rows have none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # mean of an empty slice
        return np.asarray(np.nanmean(np.asarray(list(rows), dtype=np.float64), axis=0))


def draw_curves(
    run: Run, curves: Mapping[str, Curve], *, height: float, legend: str, every: int
) -> tuple[Figure, Axes]:
    """A figure with one curve per variant in its style. every: points between markers."""
    figure, (axes,) = new_figure(run, height=height + 0.12 * len(run.variants))
    styles = variant_styles(run)
    drawn = False
    for variant, curve in curves.items():
        finite = np.isfinite(curve.x) & np.isfinite(curve.y)
        if not finite.any():
            continue
        drawn = True
        axes.plot(
            curve.x[finite],
            curve.y[finite],
            color=styles[variant].colour,
            linestyle=styles[variant].dash,
            linewidth=1.3,
            marker=styles[variant].marker,
            markersize=4.5,
            mec="black",
            mew=0.5,
            markevery=every,
            label=legend_label(run, variant) + curve.note,
        )
    if drawn:
        legend_beside(figure, axes)
    else:
        show_empty(axes, "no cell has matches with anything to show")
    annotate(figure, run, legend + ("; mean over seeds" if len(run.seeds) > 1 else ""))
    return figure, axes
