"""The plots of a comparison: its own, and those of a run that suit any detections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.error_costs import IMPRECISE
from bench.analysis.thresholds import operating_points
from bench.compare.comparison import Comparison
from bench.compare.tables import METRICS, score
from bench.evaluation.error_types import KINDS
from bench.report.plots.ap_against_iou import ap_against_iou
from bench.report.plots.budget import budget_bars
from bench.report.plots.calibration import calibration
from bench.report.plots.canvas import GREY, annotate, new_figure, show_empty, variant_styles
from bench.report.plots.confusion import confusion_matrices
from bench.report.plots.detection_curves import Curve, draw_curves
from bench.report.plots.errors import error_costs
from bench.report.plots.precision_recall import precision_recall
from bench.report.plots.saving import draw_into
from bench.report.tables.formats import points

MAX_CLASSES = 40  # rows of the plot by class; of more, those with the largest differences
POINTS = 400  # of a curve; more are not visible


def comparison_plots(comparison: Comparison) -> Mapping[str, Callable[[], Figure]]:
    """The figures by file name, in the order of the page."""
    analysis = comparison.analysis
    run, errors = analysis.run, analysis.cell_errors
    return {
        "differences": partial(differences, comparison),
        "classes": partial(class_differences, comparison),
        "error_differences": partial(error_differences, comparison),
        "errors": partial(error_costs, run, errors, analysis.errors),
        "budget": partial(budget_bars, run, errors, analysis.errors),
        "f1": partial(f1_curves, comparison),
        "calibration": partial(calibration, run, errors),
        "precision_recall": partial(precision_recall, run, errors),
        "ap_against_iou": partial(ap_against_iou, run, errors),
        "confusion": partial(confusion_matrices, run, errors),
    }


def write_plots(comparison: Comparison, folder: Path) -> list[Path]:
    """Write every plot as PNG (200 dpi) and SVG; returns the files in order."""
    return draw_into(folder, comparison_plots(comparison))


def differences(comparison: Comparison) -> Figure:
    """Differences of AP, AP50, AP75 and AP by size from the first detector, with their 95% intervals."""
    rows = {metric.replace("_", " "): _by_detector(comparison, metric) for metric in METRICS}
    return _intervals(comparison, rows, "difference, percentage points")


def class_differences(comparison: Comparison) -> Figure:
    """Differences of AP by class from the first detector, where they have intervals; the largest first."""
    frame = comparison.differences[comparison.differences["class"] != ""]
    known = frame[frame["low"].notna()]
    largest = known.assign(size=known["difference"].abs()).groupby("class")["size"].max()
    classes = largest.sort_values(ascending=False, kind="stable").index[:MAX_CLASSES].tolist()
    left_out = frame["class"].nunique() - len(classes)
    more = f"; {left_out} classes with smaller differences or without interval: in the table" if left_out else ""
    rows = {str(label): _by_detector(comparison, "AP", str(label)) for label in classes}
    return _intervals(comparison, rows, "difference in AP, percentage points", more=more)


def error_differences(comparison: Comparison) -> Figure:
    """Differences of the cost of each type of error from the first detector, with their 95% intervals."""
    frame = comparison.errors[comparison.errors["bucket"] == ""]
    rows = {
        kind: {str(row["detector"]): row for _, row in frame[frame["kind"] == kind].iterrows()}
        for kind in (IMPRECISE, *KINDS)
    }
    more = "; negative: the errors cost less"
    return _intervals(comparison, rows, "difference in cost, points", more=more)


def f1_curves(comparison: Comparison) -> Figure:
    """F1 over the score threshold, all classes together, with the best threshold in the legend."""
    curves = {}
    best = comparison.thresholds[comparison.thresholds["class"] == ""].set_index("detector")["threshold"]
    for (name, _), cell in comparison.analysis.cell_errors.cells.items():
        found = operating_points(cell.matches)
        shown = np.unique(np.linspace(0, len(found.scores) - 1, min(POINTS, len(found.scores))).astype(np.int64))
        note = "" if math.isnan(best[name]) else f"\nbest from {score(best[name])}"
        curves[name] = Curve(x=found.scores[shown], y=100 * found.f1[shown], note=note)
    legend = "IoU .50, all classes together, every object counts the same"
    figure, axes = draw_curves(comparison.analysis.run, curves, height=3.2, legend=legend, every=POINTS // 8)
    axes.set(xlabel="score threshold", ylabel="F1, %", ylim=(0, None))
    return figure


def _by_detector(comparison: Comparison, measure: str, label: str = "") -> dict[str, pd.Series]:
    rows = {name: comparison.difference(name, measure, label) for name in comparison.names[1:]}
    return {name: row for name, row in rows.items() if row is not None}


def _intervals(
    comparison: Comparison, rows: Mapping[str, Mapping[str, pd.Series]], label: str, *, more: str = ""
) -> Figure:
    """One group of intervals per row, one interval per detector other than the first.

    rows: by the text beside the axis, difference, low and high of each detector. more: added to the legend.
    """
    run, others = comparison.analysis.run, comparison.names[1:]
    shown = {text: by_name for text, by_name in rows.items() if by_name}
    figure, (axes,) = new_figure(run, height=1.1 + 0.22 * len(others) * max(1, len(shown)) + 0.08 * len(shown))
    if not shown:
        show_empty(axes, "no difference has an interval")
        annotate(figure, run)
        return figure
    axes.axvline(0, color=GREY, linestyle="--", linewidth=0.9, zorder=1)
    styles = variant_styles(run)
    step = min(0.3, 0.7 / len(others))
    offsets = step * (np.arange(len(others)) - (len(others) - 1) / 2)
    ends = [0.0]
    for place, by_name in enumerate(shown.values()):
        for offset, name in zip(offsets, others, strict=True):
            if name not in by_name:
                continue
            low, value, high = (100 * float(by_name[name][end]) for end in ("low", "difference", "high"))
            style, height = styles[name], place + offset
            known = math.isfinite(low)
            if known:
                axes.plot([low, high], [height, height], color=style.colour, linewidth=2.0, solid_capstyle="butt")
            axes.plot(
                value,
                height,
                style.marker,
                mfc=style.colour if known else "white",
                mec="black" if known else style.colour,
                mew=0.6 if known else 1.2,
                markersize=5.5,
                zorder=3,
                label=name if place == 0 else None,
            )
            interval = f"[{points(low / 100)}, {points(high / 100)}]" if known else "no interval"
            axes.annotate(
                f"{points(value / 100)}  {interval}",
                (1.01, height),
                xycoords=axes.get_yaxis_transform(),
                va="center",
                annotation_clip=False,
                fontsize="x-small",
                color="black" if known else GREY,
            )
            ends += [end for end in (low, value, high) if math.isfinite(end)]
        if place:
            axes.axhline(place - 0.5, color="0.8", linewidth=0.8)
    axes.set_yticks(range(len(shown)), list(shown))
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    reach = 1.08 * max(abs(end) for end in ends) or 1.0
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label)
    if len(others) > 1:
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside upper right", ncols=4, frameon=False, fontsize="small"
        )
    against = f"{', '.join(others) if len(others) < 2 else 'each'} minus {comparison.reference}"
    annotate(figure, run, f"{against}; bars: 95% intervals (other images, these detectors){more}")
    return figure
