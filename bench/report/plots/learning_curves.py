"""Learning curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from numpy.typing import NDArray

from bench.analysis.run_records import Run, log_frame
from bench.analysis.training_fit import fit_by_variant, training_fit_frame
from bench.report.plots.canvas import annotate, legend_beside, legend_label, new_figure, show_empty, variant_styles


def learning_curves(run: Run) -> Figure:
    """Smoothed training loss of every variant (mean over seeds), including failed and unfinished cells."""
    logs = log_frame(run)
    figure, panels = new_figure(run, height=3.2 + 0.12 * len(run.variants))
    axes = panels[0]
    drawn = []
    for variant, style in variant_styles(run).items():
        curves = [
            pd.Series(smoothed(cell["loss"].to_numpy(dtype=float)), index=cell["step"])
            for _, cell in logs[logs["variant"] == variant].groupby("seed")
        ]
        if not curves:
            continue
        # Stop at the last step that every seed has reached; beyond it the mean would jump.
        curve = pd.concat(curves, axis=1).interpolate(limit_area="inside").dropna(how="any").mean(axis=1)
        if not len(curve):
            continue
        drawn.append(curve)
        axes.plot(
            curve.index,
            curve,
            color=style.colour,
            linestyle=style.dash,
            linewidth=1.4,
            marker=style.marker,
            markersize=5,
            mec="black",
            mew=0.5,
            markevery=(0.0, 0.12) if len(curve) > 10 else 1,
            label=legend_label(run, variant),
        )
    axes.set_xlabel("training step")
    axes.set_ylabel("training loss (class + box), smoothed")
    if drawn:
        if (top := max(curve.max() for curve in drawn)) > 4 * (low := min(curve.min() for curve in drawn)) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if top < 100 * low else (1,)))
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        legend_beside(figure, axes)
    else:
        show_empty(axes, "no cell has logged a step")
    annotate(figure, run, about=still_falling(run))
    return figure


def still_falling(run: Run) -> str:
    """Whether the loss of the finished variants was still falling at the end; "" if that is unknown."""
    fits = fit_by_variant(training_fit_frame(run)).dropna(subset=["still_falling"])
    falling = [str(variant) for variant in fits.loc[fits["still_falling"].astype(bool), "variant"]]
    if not len(fits):
        return ""
    if not falling:
        return "no loss was still falling at the end"
    if len(falling) == len(fits):
        return "the loss was still falling at the end"
    return f"the loss was still falling at the end of {len(falling)} of {len(fits)} variants"


def smoothed(losses: NDArray[np.float64], span: float = 0.08) -> NDArray[np.float64]:
    """Exponential moving average over about `span` of the curve, bias-corrected at the start; NaN is kept as NaN."""
    window = max(1.0, span * len(losses))
    smooth = pd.Series(losses).ewm(span=window, adjust=True, ignore_na=True).mean()
    return np.where(np.isnan(losses), np.nan, smooth.to_numpy(dtype=float))
