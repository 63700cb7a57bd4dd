"""What all plots share: the look of a variant, a figure with its title and notes, labels that cover nothing."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from bench.analysis.run_records import Run
from bench.report.sentences import one_line, status, subject

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 3)))
# The palette's yellow is left out: on white it is not seen.
COLOURS = [colour for place, colour in enumerate(sns.color_palette("colorblind")) if place != 8]
GREY = "0.45"
WIDTH = 7.0  # inches: a text width, so that 8 pt in the figure is 8 pt in the paper


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a variant is drawn."""

    marker: str
    colour: tuple[float, float, float]
    dash: str | tuple[int, tuple[float, ...]]


def looks(run: Run) -> dict[str, Look]:
    """Marker, colour and dash of each variant, by its place in the plan."""
    return {
        variant: Look(
            marker=MARKERS[place % len(MARKERS)],
            colour=COLOURS[place % len(COLOURS)],
            dash=DASHES[place % len(DASHES)],
        )
        for place, variant in enumerate(run.variants)
    }


def new_figure(
    run: Run, *, height: float, rows: int = 1, columns: int = 1, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `height` inches, with room for what is to be said of the run, and its panels row by row."""
    unfinished = sum(run.status(cell) != "done" for cell in run.cells)
    figure = Figure(figsize=(WIDTH, height + 0.6 + 0.12 * min(unfinished, 12)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, sharey=sharey, squeeze=False).flat)


def annotate(figure: Figure, run: Run, legend: str = "") -> None:
    """What the figure is about above it; beneath it what the marks mean and what failed or is pending."""
    lines = [legend] if legend else []
    for cell, failure in run.failures():
        seed = f" (seed {cell.seed})" if len(run.seeds) > 1 else ""
        lines.append(f"failed: {cell.variant}{seed} ({one_line(failure.get('cause'), 110)})")
    pending = [variant for variant in run.variants if status(run, variant) != "done"]
    pending = [
        variant
        for variant in pending
        if any(cell.variant == variant and run.status(cell) == "pending" for cell in run.cells)
    ]
    if pending:
        lines.append(f"pending: {', '.join(pending)}")
    title = figure.suptitle(textwrap.fill(subject(run), 105), fontsize="medium")
    texts = [title]
    if lines:
        wrapped = "\n".join(textwrap.fill(line, 118, subsequent_indent="   ") for line in lines[:12])
        more = f"\nand {len(lines) - 12} more" if len(lines) > 12 else ""
        texts.append(figure.supxlabel(wrapped + more, x=0.01, ha="left", fontsize="small", color="0.25"))
    for text in texts:
        text.set_parse_math(False)  # a dollar sign in a path or a message is no formula


def legend_beside(figure: Figure, axes: Axes) -> None:
    """The legend of `axes` to the right of all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize="small", markerscale=1.1)


def named(run: Run, variant: str) -> str:
    """For a legend: the variant, with its state unless that is done."""
    state = status(run, variant)
    return variant if state == "done" else f"{variant}\n({state})"


def nothing(axes: Axes, why: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GREY, style="italic")


def limits_around(values: Iterable[float]) -> tuple[float, float]:
    """Limits of an axis that shows `values` without touching its edges, also for one value or none."""
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return max(0.0, low - margin), high + margin


def wider(limits: tuple[float, float], share: float) -> tuple[float, float]:
    """Limits moved apart by a share of their distance, each way."""
    low, high = limits
    return low - share * (high - low), high + share * (high - low)


def value_of(figure: object) -> float:
    """The figure as a number, NaN for None."""
    return math.nan if figure is None else float(figure)  # type: ignore[arg-type]


def label_points(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], names: Sequence[str]) -> None:
    """Write each point's name near it so that no name covers another name, a point, a line or the frame.

    Places are tried on growing rings around the point, and the first free one is taken; from the second
    ring on a thin line leads to the point.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    scale = figure.dpi / 72  # pixels a point
    frame = axes.get_window_extent(renderer)
    legend = axes.get_legend()
    points = axes.transData.transform(np.column_stack((x, y)))
    taken = [Bbox.from_bounds(px - 5 * scale, py - 5 * scale, 10 * scale, 10 * scale) for px, py in points]
    taken += [legend.get_window_extent(renderer)] if legend is not None else []
    for line in axes.get_lines():
        corners = axes.transData.transform(line.get_xydata())
        for start, end in pairwise(corners):
            dots = np.linspace(start, end, 2 + int(np.hypot(*(end - start)) / (4 * scale)))
            taken += [Bbox.from_bounds(dx - scale, dy - scale, 2 * scale, 2 * scale) for dx, dy in dots]
    rings = [(radius, angle) for radius, angle in product(range(8, 240, 8), range(0, 360, 30))]
    for (px, py), name in zip(points, names, strict=True):
        text = axes.annotate(
            name, (px, py), xycoords="figure pixels", fontsize="small", ha="center", va="center", zorder=5
        )
        text.set_parse_math(False)
        size = text.get_window_extent(renderer)
        for radius, angle in rings:
            reach = radius * scale
            # The centre of the label: the ring is around the label's box, not around its middle.
            cx = px + math.cos(math.radians(angle)) * (reach + size.width / 2)
            cy = py + math.sin(math.radians(angle)) * (reach + size.height / 2)
            box = Bbox.from_bounds(cx - size.width / 2, cy - size.height / 2, size.width, size.height)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        text.remove()
        # In data coordinates, so that the label stays where it is at any resolution of the file.
        place, point = axes.transData.inverted().transform([(cx, cy), (px, py)])
        label = axes.annotate(
            name,
            xy=point,
            xytext=place,
            fontsize="small",
            ha="center",
            va="center",
            zorder=5,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkB": 4} if radius > 8 else None,
        )
        label.set_parse_math(False)
        label.set_in_layout(False)
