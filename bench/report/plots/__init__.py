"""The plots of a run as PNG and SVG: AP by variant, size and speed, curves, effects, interactions, errors, priors.

A variant has the same marker and colour in every plot. Markers and dashes tell the variants apart in
grey; the colours are seaborn's "colorblind". Figures are made without pyplot, so no global state is
touched, and drawing the same run twice gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from bench.analysis.results import Analysis
from bench.analysis.run_records import Run
from bench.report.plots.ablation import ap_against_throughput, ap_by_size, ap_by_variant
from bench.report.plots.confusion import confusion_matrices
from bench.report.plots.curves import learning_curves
from bench.report.plots.detections import ap_against_iou, calibration, precision_recall
from bench.report.plots.effects import effect_intervals
from bench.report.plots.error_costs import ap50_given_back
from bench.report.plots.interactions import interaction_lines
from bench.report.plots.priors import priors_over_ground_truths
from bench.report.plots.saving import draw_into
from bench.storage.run_folder import PLOTS


def write_plots(analysis: Analysis) -> list[Path]:
    """Every plot as PNG (200 dpi) and SVG in the run's folder ``plots``; the files, in order."""
    run, found = analysis.run, analysis.cell_errors
    plots: dict[str, Callable[[Run], Figure]] = {
        "ap_by_variant": ap_by_variant,
        "ap_by_size": ap_by_size,
        "ap_against_throughput": ap_against_throughput,
        "learning_curves": learning_curves,
        "effects": partial(effect_intervals, effects=analysis.effects),
        "interactions": partial(interaction_lines, effects=analysis.effects),
        "errors": partial(ap50_given_back, cell_errors=found, errors=analysis.errors),
        "ap_against_iou": partial(ap_against_iou, cell_errors=found),
        "precision_recall": partial(precision_recall, cell_errors=found),
        "calibration": partial(calibration, cell_errors=found),
        "confusion": partial(confusion_matrices, cell_errors=found),
        "priors_over_ground_truths": priors_over_ground_truths,
    }
    return draw_into(run.folder / PLOTS, {name: partial(draw, run) for name, draw in plots.items()})
