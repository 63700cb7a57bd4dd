"""Prior shapes over ground-truth shapes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from bench.analysis.prior_shapes import PriorSet, ground_truth_shapes, prior_sets
from bench.analysis.run_records import Run
from bench.report.plots.canvas import COLOURS, GREY, MARKERS, annotate, legend_beside, new_figure, show_empty

MAX_TRUTHS = 4000  # ground truths shown; more would be a solid cloud


def priors_over_ground_truths(run: Run) -> Figure:
    """The priors of each level and the validation ground truths, with and without fitted priors.

    Width and height in pixels at the network input, on logarithmic axes, because IoU depends on ratios. One panel if no
    finished variant changes the priors.
    """
    sets = prior_sets(run)
    figure, panels = new_figure(run, columns=max(1, len(sets)), height=3.9 if len(sets) > 1 else 5.2, sharey=True)
    if not sets:
        show_empty(panels[0], "no finished cell has recorded its priors")
        annotate(figure, run)
        return figure
    truths = [ground_truth_shapes(run, each.size) for each in sets]
    sides = pd.concat([*(each.shapes[["width", "height"]] for each in sets), *truths]).to_numpy(dtype=float)
    limits = sides.min() / 1.25, sides.max() * 1.25
    for axes, each, truth, when in zip(panels, sets, truths, ("before", "after"), strict=False):
        draw_priors(axes, each, truth)
        logarithmic(axes, limits, each, title=f"{when}: {each.variant}" if len(sets) > 1 else each.variant)
    panels[0].set_ylabel(f"height at {sets[0].size} × {sets[0].size}, pixels")
    legend_beside(figure, panels[0])
    most = max(len(truth) for truth in truths)
    shown = f"{MAX_TRUTHS} of {most} ground truths" if most > MAX_TRUTHS else "ground truths"
    annotate(figure, run, f"grey: {shown} of the validation split, not used for fitting; dotted: squares")
    return figure


def logarithmic(axes: Axes, limits: tuple[float, float], priors: PriorSet, *, title: str) -> None:
    """Set equal logarithmic axes with a dotted line for squares, and a title with the share of matched objects."""
    axes.set_title(f"{title}\n{_matched(priors)}", fontsize="small").set_parse_math(False)
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal")
    axes.plot(limits, limits, color=GREY, linestyle=":", linewidth=0.9, zorder=1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"width at {priors.size} × {priors.size}, pixels")


def draw_priors(axes: Axes, priors: PriorSet, truth: pd.DataFrame) -> None:
    """Draw ground truths as a light cloud, and priors with one marker and colour per level."""
    seen = truth.iloc[np.linspace(0, len(truth) - 1, min(len(truth), MAX_TRUTHS)).astype(int)]
    # Rasterised, because thousands of points would make the SVG megabytes large.
    axes.scatter(seen["width"], seen["height"], s=5, color="0.55", alpha=0.35, linewidths=0, zorder=2, rasterized=True)
    for place, (side, level) in enumerate(priors.shapes.groupby("side", sort=False)):
        axes.plot(
            level["width"],
            level["height"],
            MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
            markersize=5.5,
            mec="black",
            mew=0.6,
            zorder=3,
            label=f"{side} × {side} map",
        )


def _matched(priors: PriorSet) -> str:
    """The share of validation ground truths matched by the priors, for a title."""
    if priors.matched is None:
        return "validation ground truths matched: n/a"
    matched = f"{100 * priors.matched:.1f}% of {priors.boxes} validation ground truths"
    return f"{matched}\nhave a prior of IoU ≥ {priors.threshold:g}"
