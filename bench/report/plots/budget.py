"""The budget of each variant as a stacked bar of 100 points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.analysis.budget import PARTS, budget_frame
from bench.analysis.cell_errors import RunErrors
from bench.analysis.error_costs import ACHIEVED, IMPRECISE, REMAINDER
from bench.analysis.run_records import Run
from bench.report.notes import status
from bench.report.plots.canvas import GREY, annotate, new_figure, show_empty
from bench.report.plots.errors import why_empty
from bench.report.tables.formats import percent, points

_, ORANGE, GREEN, VERMILION, _, BROWN, PINK, _, _, SKY = sns.color_palette("colorblind")
HEIGHT = 0.7  # of a bar; bars are 1 apart
LEGEND_COLUMNS = 5


@dataclass(frozen=True, kw_only=True)
class Fill:
    """Colour and hatch of a part. Neighbours differ in lightness or hatch, so they differ in greyscale too."""

    colour: tuple[float, float, float] | str
    hatch: str = ""

    @property
    def style(self) -> dict[str, Any]:
        """Arguments of a patch."""
        return {"facecolor": self.colour, "hatch": self.hatch, "edgecolor": "black", "linewidth": 0.5}


FILLS: Mapping[str, Fill] = {
    ACHIEVED: Fill(colour="0.3"),
    IMPRECISE: Fill(colour=SKY),
    "classification": Fill(colour=ORANGE, hatch="////"),
    "localisation": Fill(colour=PINK),
    "both": Fill(colour=BROWN, hatch="xxxx"),
    "duplicate": Fill(colour="0.85"),
    "background": Fill(colour=GREEN, hatch="\\\\\\\\"),
    "missed": Fill(colour=VERMILION),
    REMAINDER: Fill(colour="white", hatch="...."),
}


def budget_bars(run: Run, cell_errors: RunErrors, errors: pd.DataFrame) -> Figure:
    """One bar per variant, with a segment for each part of its budget; negative parts lie left of zero.

    cell_errors, errors: results of `load_run_errors(run)` and `errors_frame(run, cell_errors)`.
    """
    frame = budget_frame(run, errors).pivot(index="variant", columns="part", values="points")
    budget = 100 * frame.reindex(run.variants, columns=PARTS)
    figure, (axes,) = new_figure(run, height=1.2 + 0.3 * len(run.variants))
    if budget.isna().all(axis=None):
        show_empty(axes, why_empty(cell_errors))
        annotate(figure, run)
        return figure
    for row, (variant, parts) in enumerate(budget.iterrows()):
        if parts.isna().any():
            axes.text(
                1, row, f"n/a ({status(run, str(variant))})", va="center", color=GREY, style="italic", fontsize="small"
            )
        else:
            _draw_bar(axes, row, parts)
    below = -float(budget.clip(upper=0).sum(axis=1).min())
    axes.set_xlim(-1.1 * below, 100 + 1.1 * below)
    axes.axvline(0, color="black", linewidth=0.9)
    axes.set_xlabel("points")
    axes.set_yticks(range(len(run.variants)), run.variants)
    axes.set_ylim(len(run.variants) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_axisbelow(True)
    _legend_above(axes)
    annotate(figure, run, _explanation(run, negative=below >= 0.05))
    _keep_numbers_that_fit(figure, axes)
    return figure


def _draw_bar(axes: Axes, row: int, parts: pd.Series) -> None:
    """Stack the positive parts to the right of zero and the negative ones to the left, each with its number."""
    right = left = 0.0
    for part, value in parts.items():
        fill = FILLS[str(part)]
        start = right if value >= 0 else left
        axes.barh(row, value, HEIGHT, left=start, label=str(part), **fill.style)
        axes.text(
            start + value / 2,
            row,
            percent(value / 100) if value >= 0 else points(value / 100),
            ha="center",
            va="center",
            fontsize="x-small",
            color="white" if part == ACHIEVED else "black",
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"} if fill.hatch else None,
        ).set_in_layout(False)
        right, left = right + max(0.0, value), left + min(0.0, value)


def _keep_numbers_that_fit(figure: Figure, axes: Axes) -> None:
    figure.draw_without_rendering()  # the layout decides how wide a segment is
    numbers = [text for text in axes.texts if text.get_horizontalalignment() == "center"]
    segments = [bar for bars in axes.containers for bar in bars]
    for text, segment in zip(numbers, segments, strict=True):
        if text.get_window_extent().width > 0.95 * segment.get_window_extent().width:
            text.remove()


def _legend_above(axes: Axes) -> None:
    """The parts in their order from left to right; matplotlib fills a legend by columns."""
    by_column = [PARTS[place] for first in range(LEGEND_COLUMNS) for place in range(first, len(PARTS), LEGEND_COLUMNS)]
    handles = [Patch(label=part, **FILLS[part].style) for part in by_column]
    axes.legend(
        handles=handles,
        loc="lower right",  # so that it may lie above the names, too
        bbox_to_anchor=(1.0, 1.0),
        ncols=LEGEND_COLUMNS,
        frameon=False,
        fontsize="small",
    )


def _explanation(run: Run, *, negative: bool) -> str:
    parts = ["imprecise boxes: AP50 minus AP; error types: AP50 gained by fixing one type alone"]
    parts += ["a bar's parts right of zero minus those left of it make 100"] if negative else []
    parts += ["means over seeds"] if len(run.seeds) > 1 else []
    return "; ".join(parts)
