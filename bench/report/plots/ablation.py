"""AP of the variants: side by side, by size of the objects, and against speed."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bench.analysis.run_records import Run, cells_frame
from bench.data.subsets import SIZES
from bench.report.plots.canvas import (
    GREY,
    annotate,
    label_points,
    legend_beside,
    limits_around,
    looks,
    named,
    new_figure,
    nothing,
    value_of,
    wider,
)
from bench.report.sentences import status
from bench.report.tables.entries import summary


def ap_by_variant(run: Run) -> Figure:
    """AP and AP50 of every variant: the mean with its figure, and each seed as a small point."""
    cells = cells_frame(run)
    means = summary(run, ("AP", "AP50"))
    figure, panels = new_figure(run, columns=2, height=1.1 + 0.3 * len(run.variants), sharey=True)
    rows = np.arange(len(run.variants))
    plate = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    compared = False
    for axes, name, title in zip(panels, ("AP", "AP50"), ("AP (IoU .50 to .95)", "AP50"), strict=True):
        axes.set_xlabel(f"{title}, %")
        axes.grid(axis="y", visible=False)
        values = 100 * means[name].to_numpy(dtype=float)
        reference = 100 * value_of(means[name].get(run.baseline))
        if compared := math.isfinite(reference) and len(rows) > 1:
            axes.axvline(reference, color=GREY, linestyle="--", linewidth=0.9, zorder=1)
        for row, variant, look in zip(rows, run.variants, looks(run).values(), strict=True):
            if math.isnan(values[row]):
                axes.annotate(
                    f"n/a ({status(run, variant)})",
                    (0.02, row),
                    xycoords=axes.get_yaxis_transform(),
                    va="center",
                    color=GREY,
                    style="italic",
                    bbox=plate,
                )
                continue
            seeds = 100 * cells.loc[cells["variant"] == variant, f"accuracy.{name}"].dropna()
            axes.plot(values[row], row, look.marker, color=look.colour, markersize=7, mec="black", mew=0.6, zorder=3)
            if len(seeds) > 1:
                axes.plot(seeds, np.full(len(seeds), row), "|", color="black", markersize=9, mew=0.9, zorder=4)
            axes.annotate(
                f"{values[row]:.1f}",
                (max(values[row], seeds.max()), row),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                bbox=plate,
                zorder=2,
            )
        # Room on the right for the figure beside the last point.
        low, high = limits_around(100 * cells.get(f"accuracy.{name}", pd.Series(dtype=float)))
        axes.set_xlim(low, high + 0.16 * (high - low))
        axes.xaxis.set_major_locator(MaxNLocator(6))
    panels[0].set_yticks(rows, run.variants)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    legend = f"dashed line: {run.baseline}" if compared else ""
    if len(run.seeds) > 1:
        legend += ("; " if legend else "") + "strokes: single seeds"
    annotate(figure, run, legend)
    return figure


def ap_by_size(run: Run) -> Figure:
    """AP of small, medium and large objects, in pixels of the original image and of the network's input."""
    figure, panels = new_figure(run, columns=2, height=3.4 + 0.12 * len(run.variants), sharey=True)
    offsets = np.linspace(-0.36, 0.36, len(run.variants)) if len(run.variants) > 1 else np.zeros(1)
    for axes, where, title in zip(
        panels, ("", "_network"), ("size in the original image", "size at the network's input"), strict=True
    ):
        names = [f"AP_{size}{where}" for size in SIZES]
        counts = [f"ground_truths_{size}{where}" for size in SIZES]
        figures = summary(run, (*names, *counts))
        for offset, (variant, look) in zip(offsets, looks(run).items(), strict=True):
            heights = [100 * value_of(figures.loc[variant, name]) for name in names]
            places = np.arange(len(SIZES)) + offset
            axes.vlines(places, 0, heights, color="0.75", linewidth=0.9, zorder=2)
            axes.plot(
                places,
                heights,
                look.marker,
                color=look.colour,
                markersize=5.5,
                mec="black",
                mew=0.6,
                label=named(run, variant),
            )
            if len(run.seeds) > 1:
                deviations = [100 * value_of(figures.loc[variant, f"{name}_std"]) for name in names]
                axes.errorbar(places, heights, deviations, fmt="none", ecolor="black", elinewidth=0.8, zorder=3)
        labels = []
        for place, (size, name, count) in enumerate(zip(SIZES, names, counts, strict=True)):
            numbers = figures[count].dropna()
            labels.append(f"{size}\nn = {numbers.iloc[0]}" if len(numbers) else size)
            if not len(figures[name].dropna()):
                axes.text(place, 0.5, "n/a", color=GREY, style="italic", ha="center", va="bottom")
        axes.set_xticks(range(len(SIZES)), labels)
        axes.set_xlim(-0.5, len(SIZES) - 0.5)
        for edge in range(1, len(SIZES)):
            axes.axvline(edge - 0.5, color="0.8", linewidth=0.8)
        axes.grid(axis="x", visible=False)
        axes.set_title(title)
        axes.set_xlabel("ground truths")
    panels[0].set_ylabel("AP, %")
    panels[0].set_ylim(0, max(1.0, panels[0].get_ylim()[1]))
    legend_beside(figure, panels[0])
    legend = "small: under 32² pixels, large: over 96² pixels"
    annotate(figure, run, legend + ("; bars: sample standard deviation over seeds" if len(run.seeds) > 1 else ""))
    return figure


def ap_against_throughput(run: Run) -> Figure:
    """AP against images per second and against the latency at batch 1, with the best trade-offs joined."""
    figures = summary(run, ("AP", "images_per_second", "latency_p50_ms", "latency_samples"))
    figure, panels = new_figure(run, rows=2, height=6.4)
    samples = figures["latency_samples"].dropna()
    count = f", at least {min(samples)} samples" if len(samples) else ""
    faster = (
        ("images_per_second", 1.0, "throughput at the best batch, images/s (more is better)"),
        ("latency_p50_ms", -1.0, f"median latency at batch 1, ms (less is better{count})"),
    )
    styles = looks(run)
    for axes, (name, sign, label) in zip(panels, faster, strict=True):
        known = figures[figures["AP"].notna() & figures[name].notna()]
        speeds = known[name].to_numpy(dtype=float)
        accuracies = 100 * known["AP"].to_numpy(dtype=float)
        axes.set_xlabel(label)
        axes.set_ylabel("AP, %")
        if not len(known):
            nothing(axes, "no finished cell has both figures")
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
            look = styles[str(variant)]
            axes.plot(speed, accuracy, look.marker, color=look.colour, markersize=7, mec="black", mew=0.6, zorder=3)
        axes.set_xlim(wider(limits_around(speeds), 0.14))
        axes.set_ylim(wider(limits_around(accuracies), 0.16))
        if len(front) > 1:
            axes.legend(loc="best", frameon=True, fontsize="small")
    annotate(figure, run)
    figure.draw_without_rendering()
    for axes, (name, _, _) in zip(panels, faster, strict=True):
        known = figures[figures["AP"].notna() & figures[name].notna()]
        label_points(
            axes,
            known[name].to_numpy(dtype=float),
            100 * known["AP"].to_numpy(dtype=float),
            known.index.tolist(),
        )
    return figure


def pareto(speeds: NDArray[np.float64], accuracies: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of the points that no other beats, in speed (more is better) and accuracy, fastest first.

    A point is beaten by one that is at least as good in both and better in one.
    """
    order = np.lexsort((-accuracies, -speeds))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(accuracies[order])[:-1]))
    kept = order[accuracies[order] > best_before]
    return kept.astype(np.int64)
