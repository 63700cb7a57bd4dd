"""AP against speed."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.analysis.run_records import Run
from bench.report.plots.canvas import (
    GREY,
    annotate,
    label_points,
    new_figure,
    padded_limits,
    show_empty,
    variant_styles,
    widened,
)
from bench.report.tables.entries import metrics_by_variant


def ap_against_throughput(run: Run) -> Figure:
    """AP against images per second and against latency at batch size 1, with the Pareto front."""
    metrics = metrics_by_variant(run, ("AP", "images_per_second", "latency_p50_ms", "latency_samples"))
    figure, panels = new_figure(run, rows=2, height=6.4)
    samples = metrics["latency_samples"].dropna()
    count = f", at least {min(samples)} samples" if len(samples) else ""
    faster = (
        ("images_per_second", 1.0, "throughput at the best batch size, images/s (higher is better)"),
        ("latency_p50_ms", -1.0, f"median latency at batch size 1, ms (lower is better{count})"),
    )
    styles = variant_styles(run)
    for axes, (name, sign, label) in zip(panels, faster, strict=True):
        known = metrics[metrics["AP"].notna() & metrics[name].notna()]
        speeds = known[name].to_numpy(dtype=float)
        accuracies = 100 * known["AP"].to_numpy(dtype=float)
        axes.set_xlabel(label)
        axes.set_ylabel("AP, %")
        if not len(known):
            show_empty(axes, "no finished cell has both metrics")
            continue
        front = pareto(sign * speeds, accuracies)
        axes.plot(
            speeds[front],
            accuracies[front],
            color=GREY,
            linestyle="--",
            linewidth=1,
            zorder=1,
            label="Pareto front",
        )
        for variant, speed, accuracy in zip(known.index, speeds, accuracies, strict=True):
            style = styles[str(variant)]
            axes.plot(speed, accuracy, style.marker, color=style.colour, markersize=7, mec="black", mew=0.6, zorder=3)
        axes.set_xlim(widened(padded_limits(speeds), 0.14))
        axes.set_ylim(widened(padded_limits(accuracies), 0.16))
        if len(front) > 1:
            axes.legend(loc="best", frameon=True, fontsize="small")
    annotate(figure, run)
    figure.draw_without_rendering()
    for axes, (name, _, _) in zip(panels, faster, strict=True):
        known = metrics[metrics["AP"].notna() & metrics[name].notna()]
        label_points(
            axes,
            known[name].to_numpy(dtype=float),
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
