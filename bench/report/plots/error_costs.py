"""What each type of error costs."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.analysis.cell_errors import RunErrors
from bench.analysis.run_records import Run
from bench.evaluation.error_types import KINDS
from bench.report.plots.canvas import annotate, legend_beside, looks, named, new_figure, nothing


def ap50_given_back(run: Run, cell_errors: RunErrors, errors: pd.DataFrame) -> Figure:
    """Points of AP50 that mending all errors of a type would give back, of every type and variant.

    cell_errors, errors: what `load_run_errors(run)` and `errors_frame(run, cell_errors)` give.
    """
    whole = errors[errors["scope"].eq("all") & errors["kind"].isin(KINDS)]
    figure, panels = new_figure(run, height=3.2 + 0.12 * len(run.variants))
    axes = panels[0]
    if whole["dAP50"].notna().any():
        offsets = np.linspace(-0.36, 0.36, len(run.variants)) if len(run.variants) > 1 else np.zeros(1)
        places = np.arange(len(KINDS))
        for offset, (variant, look) in zip(offsets, looks(run).items(), strict=True):
            own = whole[whole["variant"] == variant].set_index("kind").reindex(list(KINDS))
            heights = 100 * own["dAP50"].to_numpy(dtype=float)
            axes.vlines(places + offset, 0, heights, color="0.75", linewidth=0.9, zorder=2)
            axes.plot(
                places + offset,
                heights,
                look.marker,
                color=look.colour,
                markersize=5.5,
                mec="black",
                mew=0.6,
                label=named(run, variant),
            )
            spread = 100 * own["dAP50_std"].to_numpy(dtype=float)
            if np.isfinite(spread).any():
                axes.errorbar(places + offset, heights, spread, fmt="none", ecolor="black", elinewidth=0.8, zorder=3)
        axes.set_xticks(places, KINDS, fontsize="small")
        axes.set_xlim(-0.5, len(KINDS) - 0.5)
        for edge in range(1, len(KINDS)):
            axes.axvline(edge - 0.5, color="0.8", linewidth=0.8)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(axes.get_ylim()[0], max(1.0, axes.get_ylim()[1]))
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=1)
        axes.set_ylabel("AP50 given back if mended, points")
        legend_beside(figure, axes)
    else:
        nothing(axes, _why(cell_errors))
    several = "; bars: sample standard deviation over seeds" if len(run.seeds) > 1 else ""
    annotate(figure, run, "types of error as in TIDE, each mended alone: they do not add up" + several)
    return figure


def _why(cell_errors: RunErrors) -> str:
    reasons = list(dict.fromkeys(cell_errors.unavailable.values()))
    said = f"no error types: {'; '.join(reasons)} kept" if reasons else "no cell is done"
    return textwrap.fill(said, 60)
