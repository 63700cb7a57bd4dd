"""Shared by all plots: the style of a variant, a figure with title and notes, labels without overlap."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
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
from bench.report.notes import one_line, status, subject

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 3)))
# Without the palette's yellow, which is invisible on white.
COLOURS = [colour for place, colour in enumerate(sns.color_palette("colorblind")) if place != 8]
GREY = "0.45"
WIDTH = 7.0  # inches; the text width of a paper, so fonts keep their size


Stems = tuple[NDArray[np.float64], NDArray[np.float64]]  # heights and standard deviations


@dataclass(frozen=True, kw_only=True)
class Style:
    """Marker, colour and dash pattern of a variant."""

    marker: str
    colour: tuple[float, float, float]
    dash: str | tuple[int, tuple[float, ...]]


def variant_styles(run: Run) -> dict[str, Style]:
    """The style of each variant, by its position in the plan."""
    return {
        variant: Style(
            marker=MARKERS[place % len(MARKERS)],
            colour=COLOURS[place % len(COLOURS)],
            dash=DASHES[place % len(DASHES)],
        )
        for place, variant in enumerate(run.variants)
    }


def new_figure(
    run: Run, *, height: float, rows: int = 1, columns: int = 1, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of `height` inches plus room for title and notes, and its panels row by row."""
    unfinished = sum(run.status(cell) != "done" for cell in run.cells)
    figure = Figure(figsize=(WIDTH, height + 0.6 + 0.12 * min(unfinished, 12)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, sharey=sharey, squeeze=False).flat)


def annotate(figure: Figure, run: Run, legend: str = "", *, about: str = "") -> None:
    """Add the subject as title, and below the figure the legend and the failed and pending cells.

    about: added to the subject.
    """
    lines = [legend] if legend else []
    for cell, failure in run.failures():
        seed = f" (seed {cell.seed})" if len(run.seeds) > 1 else ""
        lines.append(f"failed: {cell.variant}{seed} ({one_line(failure.get('cause'), 110)})")
    pending = {cell.variant for cell in run.cells if run.status(cell) == "pending"}
    if pending:
        lines.append(f"pending: {', '.join(variant for variant in run.variants if variant in pending)}")
    title = figure.suptitle(textwrap.fill(", ".join(filter(None, (subject(run), about))), 100), fontsize="medium")
    texts = [title]
    if lines:
        wrapped = "\n".join(textwrap.fill(line, 118, subsequent_indent="   ") for line in lines[:12])
        more = f"\nand {len(lines) - 12} more" if len(lines) > 12 else ""
        texts.append(figure.supxlabel(wrapped + more, x=0.01, ha="left", fontsize="small", color="0.25"))
    for text in texts:
        text.set_parse_math(False)  # dollar signs in paths and messages are not formulas


def legend_beside(figure: Figure, axes: Axes) -> None:
    """Put the legend of `axes` to the right of all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize="small", markerscale=1.1)


def legend_label(run: Run, variant: str) -> str:
    """The variant, with its status unless it is done."""
    state = status(run, variant)
    return variant if state == "done" else f"{variant}\n({state})"


def show_empty(axes: Axes, why: str) -> None:
    """Write into an empty panel why it is empty."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GREY, style="italic")


def padded_limits(values: Iterable[float]) -> tuple[float, float]:
    """Axis limits around `values` with a margin; also defined for one value or none."""
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return max(0.0, low - margin), high + margin


def widened(limits: tuple[float, float], share: float) -> tuple[float, float]:
    """Limits extended on each side by a share of their distance."""
    low, high = limits
    return low - share * (high - low), high + share * (high - low)


def as_float(value: object) -> float:
    """The value as float; NaN for None."""
    return math.nan if value is None else float(value)  # type: ignore[arg-type]


def draw_stems(axes: Axes, run: Run, names: Sequence[str], values: Mapping[str, Stems]) -> None:
    """Draw one group of stems per name, with one stem per variant side by side.

    values: heights and standard deviations of each variant, one per name; deviations may be NaN.
    """
    offsets = np.linspace(-0.36, 0.36, len(run.variants)) if len(run.variants) > 1 else np.zeros(1)
    for offset, (variant, style) in zip(offsets, variant_styles(run).items(), strict=True):
        heights, deviations = values[variant]
        places = np.arange(len(names)) + offset
        axes.vlines(places, 0, heights, color="0.75", linewidth=0.9, zorder=2)
        axes.plot(
            places,
            heights,
            style.marker,
            color=style.colour,
            markersize=5.5,
            mec="black",
            mew=0.6,
            label=legend_label(run, variant),
        )
        if np.isfinite(deviations).any():
            axes.errorbar(places, heights, deviations, fmt="none", ecolor="black", elinewidth=0.8, zorder=3)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    for edge in range(1, len(names)):
        axes.axvline(edge - 0.5, color="0.8", linewidth=0.8)
    axes.grid(axis="x", visible=False)


def label_points(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], names: Sequence[str]) -> None:
    """Label each point without covering another label, a point, a line or the frame.

    Tries positions on growing rings around the point and takes the first free one. From the second ring on, a thin
    line connects label and point.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    scale = figure.dpi / 72  # pixels per point
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
            # The ring gives the distance to the edge of the label's box, not to its centre.
            cx = px + math.cos(math.radians(angle)) * (reach + size.width / 2)
            cy = py + math.sin(math.radians(angle)) * (reach + size.height / 2)
            box = Bbox.from_bounds(cx - size.width / 2, cy - size.height / 2, size.width, size.height)
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        text.remove()
        # Data coordinates keep the position at any output resolution.
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
