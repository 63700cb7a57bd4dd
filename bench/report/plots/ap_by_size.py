"""AP by object size."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from bench.analysis.run_records import Run
from bench.data.subsets import SIZES
from bench.report.plots.canvas import GREY, annotate, as_float, draw_stems, legend_beside, new_figure
from bench.report.tables.entries import metrics_by_variant


def ap_by_size(run: Run) -> Figure:
    """AP of small, medium and large objects, by size in the original image and at the network input."""
    figure, panels = new_figure(run, columns=2, height=3.4 + 0.12 * len(run.variants), sharey=True)
    for axes, suffix, title in zip(
        panels, ("", "_network"), ("size in the original image", "size at the network input"), strict=True
    ):
        names = [f"AP_{size}{suffix}" for size in SIZES]
        counts = [f"ground_truths_{size}{suffix}" for size in SIZES]
        metrics = metrics_by_variant(run, (*names, *counts))
        labels = []
        for size, count in zip(SIZES, counts, strict=True):
            numbers = metrics[count].dropna()
            labels.append(f"{size}\nn = {numbers.iloc[0]}" if len(numbers) else size)
        stems = {}
        for variant in run.variants:
            heights, deviations = (
                np.array([100 * as_float(metrics.loc[variant].get(f"{name}{std}")) for name in names])
                for std in ("", "_std")
            )
            stems[variant] = (heights, deviations)
        draw_stems(axes, run, labels, stems)
        for place, name in enumerate(names):
            if not len(metrics[name].dropna()):
                axes.text(place, 0.5, "n/a", color=GREY, style="italic", ha="center", va="bottom")
        axes.set_title(title)
        axes.set_xlabel("ground truths")
    panels[0].set_ylabel("AP, %")
    panels[0].set_ylim(0, max(1.0, panels[0].get_ylim()[1]))
    legend_beside(figure, panels[0])
    legend = "small: area below 32² pixels, large: above 96² pixels"
    annotate(figure, run, legend + ("; bars: sample standard deviation over seeds" if len(run.seeds) > 1 else ""))
    return figure
