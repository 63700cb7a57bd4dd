"""AP against the IoU threshold."""

from __future__ import annotations

from matplotlib.figure import Figure

from bench.analysis.cell_errors import RunErrors
from bench.analysis.curves import ap_by_threshold
from bench.analysis.run_records import Run
from bench.report.plots.detection_curves import Curve, cells_by_variant, draw_curves, mean_without_nan


def ap_against_iou(run: Run, cell_errors: RunErrors) -> Figure:
    """AP of every variant at each IoU threshold, mean over classes and seeds. A steep drop means loose boxes."""
    curves = {
        variant: Curve(
            x=cells[0].matches.thresholds,
            y=100 * mean_without_nan([ap_by_threshold(cell.matches) for cell in cells]),
        )
        for variant, cells in cells_by_variant(run, cell_errors)
    }
    figure, axes = draw_curves(run, curves, height=3.2, legend="mean over classes", every=1)
    axes.set(xlabel="IoU threshold", ylabel="AP, %")
    return figure
