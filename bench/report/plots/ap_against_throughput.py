"""AP against speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.analysis.run_records import Run
from bench.analysis.speeds import Measure, comparable_variants, load_speeds, pareto_front, with_speeds_in_turns
from bench.report.notes import shared_networks
from bench.report.plots.canvas import (
    GREY,
    annotate,
    as_float,
    label_points,
    new_figure,
    padded_limits,
    show_empty,
    variant_styles,
    widened,
)
from bench.report.tables.entries import metrics_by_variant


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """One measure of speed. name: column of the metrics. bounds: of its interval, in the columns of `load_speeds`."""

    measure: Measure
    name: str
    bounds: str
    sign: float
    label: str


def ap_against_throughput(run: Run) -> Figure:
    """AP against images per second and against latency at batch size 1, with the Pareto front.

    With speed.json, speeds have 95% intervals, and networks that were measured on a busy machine are hollow and not
    ranked. Controls are never on the front.
    """
    speeds = load_speeds(run)
    metrics = metrics_by_variant(run, ("AP", "images_per_second", "latency_p50_ms", "latency_samples"))
    metrics = with_speeds_in_turns(metrics, speeds)
    figure, axes_of_panels = new_figure(run, rows=2, height=6.4)
    samples = metrics["latency_samples"].dropna()
    count = f", at least {min(samples)} samples" if len(samples) else ""
    panels = (
        _Panel(
            measure="throughput",
            name="images_per_second",
            bounds="images_per_second",
            sign=1.0,
            label="throughput at the best batch size, images/s (higher is better)",
        ),
        _Panel(
            measure="latency",
            name="latency_p50_ms",
            bounds="latency",
            sign=-1.0,
            label=f"median latency at batch size 1, ms (lower is better{count})",
        ),
    )
    for axes, panel in zip(axes_of_panels, panels, strict=True):
        known = metrics[metrics["AP"].notna() & metrics[panel.name].notna()]
        axes.set_xlabel(panel.label)
        axes.set_ylabel("AP, %")
        if not len(known):
            show_empty(axes, "no finished cell has both metrics")
            continue
        if speeds.empty:
            front = _front_of_cells(run, known, panel)
        else:
            front = [variant for variant in pareto_front(run, by=panel.measure) if variant in known.index]
        _draw(axes, run, known=known, panel=panel, front=front, speeds=speeds)
    annotate(figure, run, "; ".join([*_hollow(speeds), *shared_networks(run)]))
    figure.draw_without_rendering()
    for axes, panel in zip(axes_of_panels, panels, strict=True):
        known = metrics[metrics["AP"].notna() & metrics[panel.name].notna()]
        label_points(
            axes,
            known[panel.name].to_numpy(dtype=float),
            100 * known["AP"].to_numpy(dtype=float),
            known.index.tolist(),
        )
    return figure


def pareto(speeds: NDArray[np.float64], accuracies: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the Pareto-optimal points in speed (higher is better) and accuracy, fastest first.

    A point is dominated by one that is at least as good in both and better in one.
    """
    order = np.lexsort((-accuracies, -speeds))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(accuracies[order])[:-1]))
    return order[accuracies[order] > best_before].astype(np.int64)


def _front_of_cells(run: Run, known: pd.DataFrame, panel: _Panel) -> list[str]:
    """The front of speeds that the cells measured, which have no interval."""
    ranked = known.loc[[variant for variant in comparable_variants(run) if variant in known.index]]
    speeds, accuracies = (ranked[name].to_numpy(dtype=float) for name in (panel.name, "AP"))
    return [str(ranked.index[place]) for place in pareto(panel.sign * speeds, accuracies)]


def _draw(
    axes: Axes, run: Run, *, known: pd.DataFrame, panel: _Panel, front: Sequence[str], speeds: pd.DataFrame
) -> None:
    """The points of a panel with the intervals of their speeds, and the front. known: metrics of the points."""
    positions = known[panel.name].astype(float)
    accuracies = 100 * known["AP"].astype(float)
    axes.plot(
        positions[list(front)],
        accuracies[list(front)],
        color=GREY,
        linestyle="--",
        linewidth=1,
        zorder=1,
        label="Pareto front",
    )
    measured = speeds.set_index("variant")
    styles = variant_styles(run)
    ends = list(positions)
    for variant, style in styles.items():
        if variant not in known.index:
            continue
        place, height = positions[variant], accuracies[variant]
        busy = not speeds.empty and bool(measured.loc[variant, "busy"])
        face = "white" if busy else style.colour
        axes.plot(place, height, style.marker, color=face, markersize=7, mec="black", mew=0.6, zorder=3)
        if not speeds.empty:
            low, high = (as_float(measured.loc[variant, f"{panel.bounds}_{end}"]) for end in ("low", "high"))
            axes.hlines(height, low, high, color="black", linewidth=0.8, zorder=2)
            ends += [low, high]
    axes.set_xlim(widened(padded_limits(ends), 0.14))
    axes.set_ylim(widened(padded_limits(accuracies), 0.16))
    if len(front) > 1:
        axes.legend(loc="best", frameon=True, fontsize="small")


def _hollow(speeds: pd.DataFrame) -> list[str]:
    """What hollow markers mean, if there are any."""
    reasons = dict.fromkeys(speeds.loc[speeds["busy"].astype(bool), "reason"])
    return [f"hollow: measured on a busy machine, not ranked ({reason})" for reason in reasons]
