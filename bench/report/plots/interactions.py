"""Interactions between axes: one panel per pair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations, product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis.run_records import Run, cells_frame
from bench.report.plots.canvas import COLOURS, annotate, new_figure, padded_limits, show_empty
from bench.report.tables.formats import points

PANELS_PER_ROW = 3
LINES = (("off", "o", "-", COLOURS[0]), ("on", "s", "--", COLOURS[1]))

Means = Mapping[tuple[bool, bool], float]  # keys: whether the first and the second axis are on


def interaction_lines(run: Run, effects: pd.DataFrame) -> Figure:
    """Mean AP with one axis off and on, with one line for a second axis off and one for on. Parallel: no interaction.

    effects: result of `effects_frame(run)`; the title of a panel gives the interaction with its 95% interval. A pair is
    shown if every combination of all axes is done in at least one seed.
    """
    pairs = list(combinations(run.axes, 2))
    columns = min(PANELS_PER_ROW, max(1, len(pairs)))
    rows = max(1, -(-len(pairs) // columns))
    figure, panels = new_figure(run, height=2.3 * rows, rows=rows, columns=columns, sharey=True)
    means = {pair: means_of(run, *pair) for pair in pairs}
    for panel, pair in zip(panels, pairs, strict=False):
        _draw(panel, pair, means[pair], _title(effects, " × ".join(pair)))
    for panel in panels[len(pairs) :]:
        panel.set_axis_off()
    if not pairs:
        show_empty(panels[0], "interactions need two axes")
    elif any(pair_means is not None for pair_means in means.values()):
        values = [100 * value for pair_means in means.values() if pair_means for value in pair_means.values()]
        panels[0].set_ylim(*padded_limits(values))
    for panel in panels[::columns]:
        panel.set_ylabel("mean AP, %" if pairs else "")
    annotate(
        figure,
        run,
        "parallel lines: no interaction; titles: interaction with 95% interval, points of AP" if pairs else "",
    )
    return figure


def means_of(run: Run, first: str, second: str) -> Means | None:
    """AP with each of the two axes off and on, averaged over the other axes; None if a combination is missing."""
    cells = cells_frame(run)
    cells = cells[cells["control"].isna()]
    if "accuracy.AP" not in cells:
        return None
    by_factors = cells.groupby([f"factors.{axis}" for axis in run.axes])["accuracy.AP"].mean()
    whole = {level: by_factors.get(level, math.nan) for level in product((False, True), repeat=len(run.axes))}
    if any(math.isnan(value) for value in whole.values()):
        return None
    one, two = run.axes.index(first), run.axes.index(second)
    return {
        (a, b): float(np.mean([value for level, value in whole.items() if (level[one], level[two]) == (a, b)]))
        for a in (False, True)
        for b in (False, True)
    }


def _draw(panel: Axes, pair: tuple[str, str], means: Means | None, title: str) -> None:
    first, second = pair
    panel.set_title(title, fontsize="small").set_parse_math(False)
    if means is None:
        show_empty(panel, "not all combinations are done")
        return
    for on, (state, marker, dash, colour) in zip((False, True), LINES, strict=True):
        panel.plot(
            [0, 1],
            [100 * means[False, on], 100 * means[True, on]],
            linestyle=dash,
            marker=marker,
            color=colour,
            mec="black",
            mew=0.6,
            label=f"{second} {state}",
        )
    panel.set_xticks([0, 1], [f"{first} off", f"{first} on"])
    panel.set_xlim(-0.25, 1.25)
    panel.grid(axis="x", visible=False)
    for text in panel.legend(fontsize="x-small", frameon=True, framealpha=0.8).get_texts():
        text.set_parse_math(False)


def _title(effects: pd.DataFrame, contrast: str) -> str:
    """The contrast, its effect on AP in points, and the interval."""
    rows = effects[(effects["measure"] == "AP") & (effects["class"] == "") & (effects["contrast"] == contrast)]
    if rows.empty or math.isnan(rows["effect"].iloc[0]):
        return contrast
    low, effect, high = (float(rows[name].iloc[0]) for name in ("low", "effect", "high"))
    interval = "no interval" if math.isnan(low) else f"[{points(low)}, {points(high)}]"
    return f"{contrast}\n{points(effect)} {interval}"
