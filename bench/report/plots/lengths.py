"""AP and effects against the length of training."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from bench.analysis.lengths import lengths_of
from bench.analysis.results import Analysis
from bench.report.plots.canvas import GREY, annotate, legend_beside, legend_label, new_figure, variant_styles


def ap_against_length(analysis: Analysis) -> Figure:
    """Left: AP of every variant after each length. Right: its difference from the baseline with the 95% interval."""
    run, frame = analysis.run, analysis.lengths
    figure, (left, right) = new_figure(run, height=3.4, columns=2)
    steps = lengths_of(frame)
    styles = variant_styles(run)
    for place, (variant, style) in enumerate(styles.items()):
        rows = frame[frame["variant"] == variant].sort_values("steps")
        line: dict[str, Any] = {
            "color": style.colour,
            "linestyle": style.dash,
            "marker": style.marker,
            "mec": "black",
            "mew": 0.5,
        }
        left.plot(rows["steps"], 100 * rows["AP"], **line, label=legend_label(run, variant))
        if variant == run.baseline:
            continue
        # Side by side, so that intervals of one length do not cover one another
        shifted = rows["steps"] * 1.03 ** (place - len(styles) / 2)
        right.plot(shifted, 100 * rows["effect"], **line)
        right.vlines(shifted, 100 * rows["low"], 100 * rows["high"], color=style.colour, linewidth=1.4)
    right.axhline(0, color=GREY, linestyle="--", linewidth=0.9, zorder=1)
    for axes, label in ((left, "AP, %"), (right, "AP minus the baseline's, points")):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(steps))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("training steps")
        axes.set_ylabel(label)
    legend_beside(figure, left)
    annotate(figure, run, "bars: 95% intervals that hold for all arms of one length together")
    return figure
