"""Cost of each error type."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.figure import Figure

from bench.analysis.cell_errors import RunErrors
from bench.analysis.run_records import Run
from bench.evaluation.error_types import KINDS
from bench.report.plots.canvas import annotate, draw_stems, legend_beside, new_figure, show_empty


def error_costs(run: Run, cell_errors: RunErrors, errors: pd.DataFrame) -> Figure:
    """Points of AP50 recovered by fixing all errors of a type, for every type and variant.

    cell_errors, errors: results of `load_run_errors(run)` and `errors_frame(run, cell_errors)`.
    """
    overall = errors[errors["scope"].eq("all") & errors["kind"].isin(KINDS)]
    figure, (axes,) = new_figure(run, height=3.2 + 0.12 * len(run.variants))
    if overall["dAP50"].notna().any():
        stems = {}
        for variant in run.variants:
            rows = overall[overall["variant"] == variant].set_index("kind").reindex(list(KINDS))
            heights, deviations = (100 * rows[name].to_numpy(dtype=float) for name in ("dAP50", "dAP50_std"))
            stems[variant] = (heights, deviations)
        draw_stems(axes, run, KINDS, stems)
        axes.tick_params(axis="x", labelsize="small")
        axes.set_ylim(axes.get_ylim()[0], max(1.0, axes.get_ylim()[1]))
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=1)
        axes.set_ylabel("AP50 recovered if fixed, points")
        legend_beside(figure, axes)
    else:
        show_empty(axes, why_empty(cell_errors))
    several = "; bars: sample standard deviation over seeds" if len(run.seeds) > 1 else ""
    annotate(figure, run, "TIDE error types, each fixed alone; the values do not add up" + several)
    return figure


def why_empty(cell_errors: RunErrors) -> str:
    """Why no cell has error types, for an empty plot."""
    reasons = list(dict.fromkeys(cell_errors.unavailable.values()))
    return textwrap.fill(f"no error types: {'; '.join(reasons)} kept" if reasons else "no cell is done", 60)
