"""The plots of a run as PNG and SVG: one plot per file, listed in `PLOTS`.

A variant has the same marker and colour in every plot. Markers and dashes distinguish variants in greyscale; the
colours are seaborn's "colorblind". Plots do not use pyplot and so touch no global state, and drawing the same run twice
gives identical files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from bench.analysis.lengths import lengths_of
from bench.analysis.results import Analysis
from bench.report.plots.ap_against_iou import ap_against_iou
from bench.report.plots.ap_against_throughput import ap_against_throughput
from bench.report.plots.ap_by_size import ap_by_size
from bench.report.plots.ap_by_variant import ap_by_variant
from bench.report.plots.budget import budget_bars
from bench.report.plots.calibration import calibration
from bench.report.plots.confusion import confusion_matrices
from bench.report.plots.effects import effect_intervals
from bench.report.plots.errors import error_costs
from bench.report.plots.interactions import interaction_lines
from bench.report.plots.learning_curves import learning_curves
from bench.report.plots.lengths import ap_against_length
from bench.report.plots.precision_recall import precision_recall
from bench.report.plots.priors import priors_over_ground_truths
from bench.report.plots.saving import draw_into
from bench.storage.run_folder import PLOTS as FOLDER

# By file name, in the order of the report.
PLOTS: Mapping[str, Callable[[Analysis], Figure]] = {
    "ap_by_variant": lambda analysis: ap_by_variant(analysis.run),
    "ap_by_size": lambda analysis: ap_by_size(analysis.run),
    "ap_against_throughput": lambda analysis: ap_against_throughput(analysis.run),
    "learning_curves": lambda analysis: learning_curves(analysis.run),
    "effects": lambda analysis: effect_intervals(analysis.run, analysis.effects),
    "lengths": ap_against_length,
    "interactions": lambda analysis: interaction_lines(analysis.run, analysis.effects),
    "budget": lambda analysis: budget_bars(analysis.run, analysis.cell_errors, analysis.errors),
    "errors": lambda analysis: error_costs(analysis.run, analysis.cell_errors, analysis.errors),
    "ap_against_iou": lambda analysis: ap_against_iou(analysis.run, analysis.cell_errors),
    "precision_recall": lambda analysis: precision_recall(analysis.run, analysis.cell_errors),
    "calibration": lambda analysis: calibration(analysis.run, analysis.cell_errors),
    "confusion": lambda analysis: confusion_matrices(analysis.run, analysis.cell_errors),
    "priors_over_ground_truths": lambda analysis: priors_over_ground_truths(analysis.run),
}


def write_plots(analysis: Analysis) -> list[Path]:
    """Write every plot as PNG (200 dpi) and SVG to the run's folder ``plots``; returns the files in order.

    `lengths` is drawn only if the run continues another.
    """
    several = len(lengths_of(analysis.lengths)) > 1
    drawn = {name: partial(draw, analysis) for name, draw in PLOTS.items() if several or name != "lengths"}
    return draw_into(analysis.run.folder / FOLDER, drawn)
