"""Precision against recall."""

from __future__ import annotations

from matplotlib.figure import Figure

from bench.analysis.cell_errors import RunErrors
from bench.analysis.curves import precision_at_recalls
from bench.analysis.run_records import Run
from bench.evaluation.matches import RECALLS
from bench.report.plots.detection_curves import Curve, cells_by_variant, draw_curves, mean_without_nan


def precision_recall(run: Run, cell_errors: RunErrors) -> Figure:
    """Interpolated precision against recall at IoU 0.5, mean over classes and seeds; the area below is AP50."""
    curves = {
        variant: Curve(
            x=100 * RECALLS,
            y=100 * mean_without_nan([mean_without_nan(precision_at_recalls(cell.matches)) for cell in cells]),
        )
        for variant, cells in cells_by_variant(run, cell_errors)
    }
    figure, axes = draw_curves(run, curves, height=3.6, legend="IoU .50, mean over classes", every=10)
    axes.set(xlabel="recall, %", ylabel="interpolated precision, %", xlim=(0, 100), ylim=(0, 103))
    return figure
