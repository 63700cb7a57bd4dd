"""Confusion matrices."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.analysis.cell_errors import RunErrors
from bench.analysis.confusion import THRESHOLD, confusion_matrix
from bench.analysis.run_records import Run
from bench.report.plots.canvas import annotate, as_float, new_figure, show_empty
from bench.report.tables.entries import metrics_by_variant

MAX_CLASSES = 30  # that fit on a page
MAX_NAME_LENGTH = 18


def confusion_matrices(run: Run, cell_errors: RunErrors) -> Figure:
    """The confusion matrices of the baseline and of the best other variant by AP, summed over seeds.

    Shades are shares of a row. With more than `MAX_CLASSES` classes, shows those with the most ground truths.
    """
    shown = _shown(run, cell_errors)
    tables = {variant: _table(cell_errors, variant) for variant in shown}
    classes = next((cell.matches.classes for cell in cell_errors.cells.values()), ())
    number = min(len(classes), MAX_CLASSES)
    height = 1.6 + 0.19 * (number + 1)
    figure, panels = new_figure(run, rows=max(1, len(shown)), height=max(1, len(shown)) * max(3.0, height))
    for axes, (variant, table) in zip(panels, tables.items(), strict=False):
        kept = np.sort(np.argsort(-table[:-1].sum(axis=1), kind="stable")[:MAX_CLASSES])
        rows = [*kept.tolist(), len(classes)]
        names = [_short(classes[label]) for label in kept]
        _draw(axes, table[np.ix_(rows, rows)], names)
        axes.set_title(variant, fontsize="small").set_parse_math(False)
    legend = ""
    if shown:
        legend = (
            f"detections with a score of at least {THRESHOLD:g}, IoU .50; numbers: objects; shades: share of the row"
        )
        if len(classes) > number:
            legend += f"; the {number} of {len(classes)} classes with the most ground truths"
    else:
        show_empty(panels[0], "no cell has error types")
    annotate(figure, run, legend)
    return figure


def _shown(run: Run, cell_errors: RunErrors) -> list[str]:
    """The baseline and the best other variant, among variants with error types."""
    ap = metrics_by_variant(run, ("AP",))["AP"]
    known = [v for v in run.variants if any(cell.types is not None for cell in cell_errors.of_variant(v).values())]
    others = sorted((v for v in known if v != run.baseline), key=lambda v: -np.nan_to_num(as_float(ap[v])))
    return [v for v in known if v == run.baseline] + others[:1]


def _table(cell_errors: RunErrors, variant: str) -> NDArray[np.int64]:
    tables = [
        confusion_matrix(cell.matches, cell.types)
        for cell in cell_errors.of_variant(variant).values()
        if cell.types is not None
    ]
    return np.asarray(np.sum(tables, axis=0))


def _draw(axes: Axes, table: NDArray[np.int64], names: list[str]) -> None:
    """Draw shades and numbers; zeros stay empty."""
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    size = 7.0 if len(table) <= 14 else 5.0
    for row, column in zip(*np.nonzero(table), strict=True):
        dark = shares[row, column] > 0.55
        axes.text(
            column,
            row,
            str(table[row, column]),
            ha="center",
            va="center",
            fontsize=size,
            color="white" if dark else "black",
        )
    axes.set_xticks(range(len(table)), [*names, "missed"], rotation=90, fontsize=size + 1)
    axes.set_yticks(range(len(table)), [*names, "no object"], fontsize=size + 1)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("ground-truth class")
    axes.grid(visible=False)
    # Separate the classes from missed objects and from detections without an object.
    axes.axhline(len(names) - 0.5, color="0.3", linewidth=0.8)
    axes.axvline(len(names) - 0.5, color="0.3", linewidth=0.8)


def _short(name: str) -> str:
    """Shorten in the middle, because related names often differ at the end."""
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 8]}…{name[-7:]}"
