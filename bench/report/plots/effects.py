"""Effects with their confidence intervals."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.factorial import TIMES, WITHOUT_WITH, simple_effect
from bench.analysis.run_records import Run
from bench.analysis.statistics import BOOTSTRAP, JOINT, LEVEL, STUDENT
from bench.report.plots.canvas import GREY, Style, annotate, new_figure, show_empty
from bench.report.tables.formats import points

# One colour of the "colorblind" palette per kind of contrast.
KINDS = {
    kind: Style(marker=marker, colour=sns.color_palette("colorblind")[place], dash="-")
    for place, (kind, marker) in enumerate(
        (("arm", "^"), ("main effect", "o"), ("interaction", "s"), ("control", "D"), ("simple effect", "v"))
    )
}
NAMES_OF_MARKERS = {"^": "triangle", "o": "circle", "s": "square", "D": "diamond", "v": "triangle down"}
COVERED = {
    BOOTSTRAP: "other images, these trained models only",
    STUDENT: "training again, these images only",
    JOINT: "training again and other images",
}


def effect_intervals(run: Run, effects: pd.DataFrame) -> Figure:
    """Effect on AP in points with its 95% interval: arms, main effects, interactions, controls.

    Simple effects are shown for the axes of an interaction that is clear.
    effects: result of `effects_frame`.
    """
    rows = _shown(effects)
    figure, panels = new_figure(run, height=1.2 + 0.32 * max(1, len(rows)))
    axes = panels[0]
    axes.axvline(0, color=GREY, linestyle="--", linewidth=0.9, zorder=1)
    for place, (_, row) in enumerate(rows.iterrows()):
        style = KINDS[row["kind"]]
        low, effect, high = (100 * float(row[name]) for name in ("low", "effect", "high"))
        if math.isnan(effect):
            text = "n/a"
        elif math.isnan(low):
            axes.plot(effect, place, style.marker, mfc="white", mec=style.colour, markersize=7, mew=1.2, zorder=3)
            text = f"{points(effect / 100)}  no interval"
        else:
            axes.plot([low, high], [place, place], color=style.colour, linewidth=2.2, solid_capstyle="butt", zorder=2)
            axes.plot(effect, place, style.marker, color=style.colour, markersize=7, mec="black", mew=0.6, zorder=3)
            text = f"{points(effect / 100)}  [{points(low / 100)}, {points(high / 100)}]"
        axes.annotate(
            text,
            (1.01, place),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            annotation_clip=False,
            fontsize="small",
            style="normal" if math.isfinite(low) else "italic",
            color="black" if math.isfinite(low) else GREY,
        )
    for last in np.flatnonzero(rows["kind"].ne(rows["kind"].shift())[1:]):
        axes.axhline(last + 0.5, color="0.8", linewidth=0.8)
    axes.set_yticks(range(len(rows)), rows["contrast"].tolist())
    axes.set_ylim(max(1, len(rows)) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("effect on AP, percentage points")
    ends = [100 * float(value) for name in ("low", "effect", "high") for value in rows[name].dropna()]
    reach = 1.08 * max((abs(end) for end in ends), default=1.0) or 1.0
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(8))
    if not len(rows):
        show_empty(axes, "a single variant has no effects")
    annotate(figure, run, _legend(rows))
    return figure


def _shown(effects: pd.DataFrame) -> pd.DataFrame:
    rows = effects[(effects["measure"] == "AP") & (effects["class"] == "")]
    clear = rows.loc[(rows["kind"] == "interaction") & (rows["p_adjusted"] < LEVEL), "contrast"]
    chosen = {
        simple_effect(axis, words, other)
        for name in clear
        for axis, other in permutations(name.split(TIMES), 2)
        for words in WITHOUT_WITH
    }
    shown = rows[(rows["kind"] != "simple effect") | rows["contrast"].isin(chosen)]
    return shown.reset_index(drop=True)


def _legend(effects: pd.DataFrame) -> str:
    """The meaning of bars and markers."""
    kinds = [kind for kind in KINDS if kind in set(effects["kind"])]
    shapes = ", ".join(f"{NAMES_OF_MARKERS[KINDS[kind].marker]}: {kind}" for kind in kinds)
    covered = " or ".join(words for method, words in COVERED.items() if method in set(effects["method"]))
    family = "; those of arms hold for all arms together" if "arm" in kinds else ""
    bars = f"bars: 95% intervals ({covered}{family})" if covered else ""
    return "; ".join(part for part in (shapes, bars) if part)
