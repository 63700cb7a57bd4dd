"""The plots of a run as PNG and SVG: AP by variant, by size, against speed, curves, effects, and priors.

A variant has the same marker and colour in every plot. Markers and dashes tell the variants apart in
grey; the colours are seaborn's "colorblind". Figures are made without pyplot, so no global state is
touched, and drawing the same run twice gives the same bytes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from bench.analysis.effects import BOOTSTRAP, STUDENT, effects_frame
from bench.analysis.frame import Run, cells_frame, log_frame
from bench.analysis.prior_shapes import PriorSet, ground_truth_shapes, prior_sets
from bench.report.columns import SIZES
from bench.report.effects import points
from bench.report.figures import summary
from bench.report.sentences import one_line, status, subject

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 3)))
GREY = "0.45"
MOST_TRUTHS = 4000  # ground truths that a plot shows: more are a black cloud
WIDTH = 7.0  # inches: a text width, so that 8 pt in the figure is 8 pt in the paper


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a variant is drawn."""

    marker: str
    colour: tuple[float, float, float]
    dash: str | tuple[int, tuple[float, ...]]


# Blue, orange and green of the "colorblind" palette: of three kinds of contrast.
KINDS = {
    kind: Look(marker=marker, colour=sns.color_palette("colorblind")[place], dash="-")
    for place, (kind, marker) in enumerate((("main effect", "o"), ("interaction", "s"), ("control", "D")))
}
NAMES_OF_MARKERS = {"o": "circle", "s": "square", "D": "diamond"}


def write_plots(run: Run, effects: pd.DataFrame | None = None) -> list[Path]:
    """Every plot as PNG (200 dpi) and SVG in the run's folder ``plots``; the files, in order.

    effects: `effects_frame(run)`, where it has been computed already.
    """
    computed = effects_frame(run) if effects is None else effects
    folder = run.folder / "plots"
    folder.mkdir(exist_ok=True)
    plots: dict[str, Callable[[Run], Figure]] = {
        "ap_by_variant": ap_by_variant,
        "ap_by_size": ap_by_size,
        "ap_against_throughput": ap_against_throughput,
        "learning_curves": learning_curves,
        "effects": partial(effect_intervals, effects=computed),
        "priors_over_ground_truths": priors_over_ground_truths,
    }
    written = []
    # The salt and the missing date make equal figures equal files.
    with (
        sns.axes_style("whitegrid"),
        sns.plotting_context("paper"),
        mpl.rc_context({"svg.hashsalt": "ablation"}),
    ):
        for name, draw in plots.items():
            figure = draw(run)
            for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
                path = folder / f"{name}.{ending}"
                figure.savefig(path, dpi=200, metadata=metadata)
                written.append(path)
    return written


def ap_by_variant(run: Run) -> Figure:
    """AP and AP50 of every variant: the mean with its figure, and each seed as a small point."""
    cells = cells_frame(run)
    means = summary(run, ("AP", "AP50"))
    figure, panels = _figure(run, columns=2, height=1.1 + 0.3 * len(run.variants), sharey=True)
    rows = np.arange(len(run.variants))
    plate = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    compared = False
    for axes, name, title in zip(panels, ("AP", "AP50"), ("AP (IoU .50 to .95)", "AP50"), strict=True):
        axes.set_xlabel(f"{title}, %")
        axes.grid(axis="y", visible=False)
        values = 100 * means[name].to_numpy(dtype=float)
        reference = 100 * _value(means[name].get(run.baseline))
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
        low, high = _limits(100 * cells.get(f"accuracy.{name}", pd.Series(dtype=float)))
        axes.set_xlim(low, high + 0.16 * (high - low))
        axes.xaxis.set_major_locator(MaxNLocator(6))
    panels[0].set_yticks(rows, run.variants)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    legend = f"dashed line: {run.baseline}" if compared else ""
    if len(run.seeds) > 1:
        legend += ("; " if legend else "") + "strokes: single seeds"
    _annotate(figure, run, legend)
    return figure


def ap_by_size(run: Run) -> Figure:
    """AP of small, medium and large objects, in pixels of the original image and of the network's input."""
    figure, panels = _figure(run, columns=2, height=3.4 + 0.12 * len(run.variants), sharey=True)
    offsets = np.linspace(-0.36, 0.36, len(run.variants)) if len(run.variants) > 1 else np.zeros(1)
    for axes, where, title in zip(
        panels, ("", "_network"), ("size in the original image", "size at the network's input"), strict=True
    ):
        names = [f"AP_{size}{where}" for size in SIZES]
        counts = [f"ground_truths_{size}{where}" for size in SIZES]
        figures = summary(run, (*names, *counts))
        for offset, (variant, look) in zip(offsets, looks(run).items(), strict=True):
            heights = [100 * _value(figures.loc[variant, name]) for name in names]
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
                label=_named(run, variant),
            )
            if len(run.seeds) > 1:
                deviations = [100 * _value(figures.loc[variant, f"{name}_std"]) for name in names]
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
    _legend(figure, panels[0])
    legend = "small: under 32² pixels, large: over 96² pixels"
    _annotate(figure, run, legend + ("; bars: sample standard deviation over seeds" if len(run.seeds) > 1 else ""))
    return figure


def ap_against_throughput(run: Run) -> Figure:
    """AP against images per second and against the latency at batch 1, with the best trade-offs joined."""
    figures = summary(run, ("AP", "images_per_second", "latency_p50_ms", "latency_samples"))
    figure, panels = _figure(run, rows=2, height=6.4)
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
            _nothing(axes, "no finished cell has both figures")
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
        axes.set_xlim(_wider(_limits(speeds), 0.14))
        axes.set_ylim(_wider(_limits(accuracies), 0.16))
        if len(front) > 1:
            axes.legend(loc="best", frameon=True, fontsize="small")
    _annotate(figure, run)
    figure.draw_without_rendering()
    for axes, (name, _, _) in zip(panels, faster, strict=True):
        known = figures[figures["AP"].notna() & figures[name].notna()]
        _label_points(
            axes,
            known[name].to_numpy(dtype=float),
            100 * known["AP"].to_numpy(dtype=float),
            known.index.tolist(),
        )
    return figure


def learning_curves(run: Run) -> Figure:
    """Smoothed training loss of every variant (mean of its seeds), failed and unfinished cells too."""
    logs = log_frame(run)
    figure, panels = _figure(run, height=3.2 + 0.12 * len(run.variants))
    axes = panels[0]
    drawn = []
    for variant, look in looks(run).items():
        curves = [
            pd.Series(smoothed(cell["loss"].to_numpy(dtype=float)), index=cell["step"])
            for _, cell in logs[logs["variant"] == variant].groupby("seed")
        ]
        if not curves:
            continue
        # Up to the last step that every seed has reached, or the mean would jump where one ends.
        curve = pd.concat(curves, axis=1).interpolate(limit_area="inside").dropna(how="any").mean(axis=1)
        if not len(curve):
            continue
        drawn.append(curve)
        axes.plot(
            curve.index,
            curve,
            color=look.colour,
            linestyle=look.dash,
            linewidth=1.4,
            marker=look.marker,
            markersize=5,
            mec="black",
            mew=0.5,
            markevery=(0.0, 0.12) if len(curve) > 10 else 1,
            label=_named(run, variant),
        )
    axes.set_xlabel("optimisation step")
    axes.set_ylabel("training loss (class + box), smoothed")
    if drawn:
        if (top := max(curve.max() for curve in drawn)) > 4 * (low := min(curve.min() for curve in drawn)) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if top < 100 * low else (1,)))
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        _legend(figure, axes)
    else:
        _nothing(axes, "no cell has logged a step")
    _annotate(figure, run)
    return figure


def effect_intervals(run: Run, effects: pd.DataFrame) -> Figure:
    """Effect of each contrast on AP in points, with its 95% interval: main effects, interactions, controls.

    effects: what `effects_frame(run)` gives.
    """
    rows = effects[(effects["measure"] == "AP") & (effects["class"] == "")].reset_index(drop=True)
    figure, panels = _figure(run, height=1.2 + 0.32 * max(1, len(rows)))
    axes = panels[0]
    axes.axvline(0, color=GREY, linestyle="--", linewidth=0.9, zorder=1)
    for place, (_, row) in enumerate(rows.iterrows()):
        look = KINDS[row["kind"]]
        low, effect, high = (100 * float(row[name]) for name in ("low", "effect", "high"))
        if math.isnan(effect):
            said = "n/a"
        elif math.isnan(low):
            axes.plot(effect, place, look.marker, mfc="white", mec=look.colour, markersize=7, mew=1.2, zorder=3)
            said = f"{points(effect / 100)}  no interval"
        else:
            axes.plot([low, high], [place, place], color=look.colour, linewidth=2.2, solid_capstyle="butt", zorder=2)
            axes.plot(effect, place, look.marker, color=look.colour, markersize=7, mec="black", mew=0.6, zorder=3)
            said = f"{points(effect / 100)}  [{points(low / 100)}, {points(high / 100)}]"
        axes.annotate(
            said,
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
    axes.set_xlabel("effect on AP, points (1/100)")
    ends = [100 * float(value) for name in ("low", "effect", "high") for value in rows[name].dropna()]
    reach = 1.08 * max((abs(end) for end in ends), default=1.0) or 1.0
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(8))
    if not len(rows):
        _nothing(axes, "one variant alone has no effects")
    _annotate(figure, run, _meaning(rows))
    return figure


def _meaning(effects: pd.DataFrame) -> str:
    """What bars and points stand for."""
    kinds = [kind for kind in KINDS if kind in set(effects["kind"])]
    said = []
    for method, what in (
        (BOOTSTRAP, "over {} images, of these trained models alone"),
        (STUDENT, "over {} seeds"),
    ):
        counts = sorted(set(effects.loc[effects["method"] == method, "n"]))
        if counts:
            said.append(f"{method.split(' over ')[0]} {what.format(' or '.join(map(str, counts)))}")
    bars = f"bars: 95% intervals, each for itself ({'; '.join(said)})" if said else ""
    shapes = ", ".join(f"{NAMES_OF_MARKERS[KINDS[kind].marker]}: {kind}" for kind in kinds)
    return "; ".join(part for part in (shapes, bars) if part)


def priors_over_ground_truths(run: Run) -> Figure:
    """The priors of each level over the shapes of the validation ground truths, before and after they change.

    Width and height at the network's input, in pixels, on logarithmic axes: equal distances are equal
    factors, which is how IoU sees them. One panel where no finished variant has other priors.
    """
    sets = prior_sets(run)
    figure, panels = _figure(run, columns=max(1, len(sets)), height=3.9 if len(sets) > 1 else 5.2, sharey=True)
    if not sets:
        _nothing(panels[0], "no finished cell has said its priors")
        _annotate(figure, run)
        return figure
    truths = [ground_truth_shapes(run, each.size) for each in sets]
    sides = pd.concat([*(each.shapes[["width", "height"]] for each in sets), *truths]).to_numpy(dtype=float)
    limits = sides.min() / 1.25, sides.max() * 1.25
    for axes, each, truth, when in zip(panels, sets, truths, ("before", "after"), strict=False):
        _draw_priors(axes, each, truth)
        named = f"{when}: {each.variant}" if len(sets) > 1 else each.variant
        axes.set_title(f"{named}\n{_matched(each)}", fontsize="small").set_parse_math(False)
        axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal")
        axes.plot(limits, limits, color=GREY, linestyle=":", linewidth=0.9, zorder=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"width at {each.size} × {each.size}, pixels")
    panels[0].set_ylabel(f"height at {sets[0].size} × {sets[0].size}, pixels")
    _legend(figure, panels[0])
    most = max(len(truth) for truth in truths)
    shown = f"{MOST_TRUTHS} of {most} ground truths" if most > MOST_TRUTHS else "ground truths"
    _annotate(figure, run, f"grey: {shown} of the validation split, to which nothing is fitted; dotted: squares")
    return figure


def _draw_priors(axes: Axes, priors: PriorSet, truth: pd.DataFrame) -> None:
    """Ground truths as a light cloud, and the shapes with a marker and a colour for each level."""
    seen = truth.iloc[np.linspace(0, len(truth) - 1, min(len(truth), MOST_TRUTHS)).astype(int)]
    # A cloud of thousands would make the SVG megabytes: it is a picture within it.
    axes.scatter(seen["width"], seen["height"], s=5, color="0.55", alpha=0.35, linewidths=0, zorder=2, rasterized=True)
    colours = [colour for place, colour in enumerate(sns.color_palette("colorblind")) if place != 8]
    for place, (side, level) in enumerate(priors.shapes.groupby("side", sort=False)):
        axes.plot(
            level["width"],
            level["height"],
            MARKERS[place % len(MARKERS)],
            color=colours[place % len(colours)],
            markersize=5.5,
            mec="black",
            mew=0.6,
            zorder=3,
            label=f"{side} × {side} map",
        )


def _matched(priors: PriorSet) -> str:
    """What share of the validation ground truths the priors match, in words for a title."""
    if priors.matched is None:
        return "validation ground truths matched: n/a"
    counted = f"{100 * priors.matched:.1f}% of {priors.boxes} validation ground truths"
    return f"{counted}\nhave a prior of IoU ≥ {priors.threshold:g}"


def looks(run: Run) -> dict[str, Look]:
    """Marker, colour and dash of each variant, by its place in the plan."""
    # The palette's yellow is left out: on white it is not seen.
    colours = [colour for place, colour in enumerate(sns.color_palette("colorblind")) if place != 8]
    return {
        variant: Look(
            marker=MARKERS[place % len(MARKERS)],
            colour=colours[place % len(colours)],
            dash=DASHES[place % len(DASHES)],
        )
        for place, variant in enumerate(run.variants)
    }


def pareto(speeds: NDArray[np.float64], accuracies: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of the points that no other beats, in speed (more is better) and accuracy, fastest first.

    A point is beaten by one that is at least as good in both and better in one.
    """
    order = np.lexsort((-accuracies, -speeds))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(accuracies[order])[:-1]))
    kept = order[accuracies[order] > best_before]
    return kept.astype(np.int64)


def smoothed(losses: NDArray[np.float64], span: float = 0.08) -> NDArray[np.float64]:
    """Exponential moving average of about `span` of the curve, without a bias to its start; NaN stays out."""
    window = max(1.0, span * len(losses))
    smooth = pd.Series(losses).ewm(span=window, adjust=True, ignore_na=True).mean()
    return np.where(np.isnan(losses), np.nan, smooth.to_numpy(dtype=float))


def _figure(
    run: Run, *, height: float, rows: int = 1, columns: int = 1, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    unfinished = sum(run.status(cell) != "done" for cell in run.cells)
    figure = Figure(figsize=(WIDTH, height + 0.6 + 0.12 * min(unfinished, 12)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, sharey=sharey, squeeze=False).flat)


def _annotate(figure: Figure, run: Run, legend: str = "") -> None:
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


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize="small", markerscale=1.1)


def _named(run: Run, variant: str) -> str:
    """For a legend: the variant, with its state unless that is done."""
    state = status(run, variant)
    return variant if state == "done" else f"{variant}\n({state})"


def _nothing(axes: Axes, why: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", color=GREY, style="italic")


def _limits(values: Iterable[float]) -> tuple[float, float]:
    """Limits of an axis that shows `values` without touching its edges, also for one value or none."""
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return max(0.0, low - margin), high + margin


def _wider(limits: tuple[float, float], share: float) -> tuple[float, float]:
    low, high = limits
    return low - share * (high - low), high + share * (high - low)


def _value(figure: object) -> float:
    return math.nan if figure is None else float(figure)  # type: ignore[arg-type]


def _label_points(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], names: Sequence[str]) -> None:
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
