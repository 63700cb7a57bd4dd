"""AP and AP50 of every variant."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.run_records import Run, cells_frame
from bench.report.notes import status
from bench.report.plots.canvas import GREY, annotate, as_float, new_figure, padded_limits, variant_styles
from bench.report.tables.entries import metrics_by_variant


def ap_by_variant(run: Run) -> Figure:
    """AP and AP50 of every variant: the mean with its value, and a tick for each seed."""
    cells = cells_frame(run)
    means = metrics_by_variant(run, ("AP", "AP50"))
    figure, panels = new_figure(run, columns=2, height=1.1 + 0.3 * len(run.variants), sharey=True)
    rows = np.arange(len(run.variants))
    background = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    compared = False
    for axes, name, title in zip(panels, ("AP", "AP50"), ("AP (IoU .50 to .95)", "AP50"), strict=True):
        axes.set_xlabel(f"{title}, %")
        axes.grid(axis="y", visible=False)
        values = 100 * means[name].to_numpy(dtype=float)
        reference = 100 * as_float(means[name].get(run.baseline))
        if compared := math.isfinite(reference) and len(rows) > 1:
            axes.axvline(reference, color=GREY, linestyle="--", linewidth=0.9, zorder=1)
        for row, variant, style in zip(rows, run.variants, variant_styles(run).values(), strict=True):
            if math.isnan(values[row]):
                axes.annotate(
                    f"n/a ({status(run, variant)})",
                    (0.02, row),
                    xycoords=axes.get_yaxis_transform(),
                    va="center",
                    color=GREY,
                    style="italic",
                    bbox=background,
                )
                continue
            seeds = 100 * cells.loc[cells["variant"] == variant, f"accuracy.{name}"].dropna()
            axes.plot(values[row], row, style.marker, color=style.colour, markersize=7, mec="black", mew=0.6, zorder=3)
            if len(seeds) > 1:
                axes.plot(seeds, np.full(len(seeds), row), "|", color="black", markersize=9, mew=0.9, zorder=4)
            axes.annotate(
                f"{values[row]:.1f}",
                (max(values[row], seeds.max()), row),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                bbox=background,
                zorder=2,
            )
        # Leave room for the value to the right of the last point.
        low, high = padded_limits(100 * cells.get(f"accuracy.{name}", pd.Series(dtype=float)))
        axes.set_xlim(low, high + 0.16 * (high - low))
        axes.xaxis.set_major_locator(MaxNLocator(6))
    panels[0].set_yticks(rows, run.variants)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    legend = f"dashed line: {run.baseline}" if compared else ""
    if len(run.seeds) > 1:
        legend += ("; " if legend else "") + "ticks: single seeds"
    annotate(figure, run, legend)
    return figure
