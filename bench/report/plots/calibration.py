"""Calibration of the scores."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from bench.analysis.cell_errors import CellErrors, RunErrors
from bench.analysis.curves import BINS, reliability
from bench.analysis.run_records import Run
from bench.report.plots.canvas import GREY
from bench.report.plots.detection_curves import Curve, cells_by_variant, draw_curves, mean_without_nan

MIN_DETECTIONS = 10  # in a bin, to draw its precision


def calibration(run: Run, cell_errors: RunErrors) -> Figure:
    """Precision (IoU 0.5) against score, with the expected calibration error (ECE)."""
    curves = {variant: _curve(cells) for variant, cells in cells_by_variant(run, cell_errors)}
    legend = (
        f"IoU .50; {BINS} score bins, those with fewer than {MIN_DETECTIONS} detections not drawn; ECE: mean of "
        "|precision − score| over all detections, in points; dotted: perfect calibration"
    )
    figure, axes = draw_curves(run, curves, height=3.6, legend=legend, every=1)
    axes.plot([0, 100], [0, 100], color=GREY, linestyle=":", linewidth=0.9, zorder=1)
    axes.set(xlabel="score, %", ylabel="precision, %", xlim=(0, 100), ylim=(0, 100))
    return figure


def _curve(cells: list[CellErrors]) -> Curve:
    bins = [reliability(cell.matches) for cell in cells]
    score, precision = (
        100 * mean_without_nan([np.where(each.count >= MIN_DETECTIONS, getattr(each, name), np.nan) for each in bins])
        for name in ("score", "precision")
    )
    error = 100 * float(mean_without_nan([each.error for each in bins]))
    return Curve(x=score, y=precision, note=f"\nECE {error:.1f}" if np.isfinite(error) else "")
