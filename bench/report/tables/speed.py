"""The tables of throughput.json: inference stages, training steps, comparison with torchvision, environment."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report.notes import text_of
from bench.report.tables.environment import flatten, name_value_table
from bench.report.tables.formats import MISSING, integer, percent, three_digits
from bench.report.tables.saving import write_tables
from bench.report.tables.typeset import Entry, Heading, Table
from bench.storage.run_folder import TABLES


def _ratio(value: float) -> str:
    """Two decimals, one from 10: 0.94, 5.30, 17.1."""
    return f"{value:.{2 if value < 10 else 1}f}"


@dataclass(frozen=True)
class _Column:
    """A value of the rows: its key, its heading, and its format (None: text). terminal: shown there too."""

    name: str
    heading: str
    show: Callable[[float], str] | None = None
    terminal: bool = True


_PERCENTILES = (
    _Column("p50_ms", "p50\nms", three_digits),
    _Column("p90_ms", "p90\nms", three_digits, terminal=False),
    _Column("p99_ms", "p99\nms", three_digits),
    _Column("samples", "n", integer),
)
_MEDIAN_AND_RATIO = (
    _Column("p50_ms", "median\nms", three_digits),
    _Column("iqr_ms", "IQR\nms", three_digits, terminal=False),
    _Column("samples", "n", integer, terminal=False),
    _Column("times_as_fast", "times\nas fast", _ratio),
)
_BATCH = _Column("batch", "batch", integer)
_CONTENDER = _Column("contender", "contender")
_IMAGES_PER_SECOND = _Column("images_per_second", "speed\nimages/s", three_digits)
_PRECISION = _Column("precision", "precision")
_COLUMNS = {
    "throughput": (
        _Column("stage", "stage"),
        *(_PRECISION, _BATCH, _IMAGES_PER_SECOND, *_PERCENTILES),
        _Column("workers", "workers", integer, terminal=False),
        _Column("peak_memory_MiB", "memory\nMiB", integer),
    ),
    "training_steps": (
        _Column("schedule", "schedule"),
        _Column("share", "steps\ndone %", percent),
        _PRECISION,
        _Column("batch", "batch", integer, terminal=False),
        _Column("trainable_stages", "stages\ntrained", integer, terminal=False),
        _Column("trainable_M", "trained\nM", three_digits),
        *_PERCENTILES,
        _Column("times_faster", "times\nas fast", _ratio),
    ),
    "comparison": (
        _Column("task", "task"),
        _Column("classes", "classes", integer),
        *(_BATCH, _CONTENDER, _PRECISION, *_MEDIAN_AND_RATIO),
        _Column("share_of_ceiling", "of\nceiling %", percent, terminal=False),
    ),
    "preparation": (_CONTENDER, _BATCH, _IMAGES_PER_SECOND, *_MEDIAN_AND_RATIO),
    "cells": (
        *(_CONTENDER, _PRECISION),
        _Column("steps", "steps", integer),
        _BATCH,
        _Column("scored_images", "images\nscored", integer),
        *_MEDIAN_AND_RATIO,
    ),
}
_INTERVAL = " (95% interval from n paired rounds)"
# By table, the names of the columns that the terminal shows.
TERMINAL_COLUMNS = {
    table: tuple(column.name for column in columns if column.terminal) for table, columns in _COLUMNS.items()
}


def speed_tables(content: Mapping[str, Any]) -> list[Table]:
    """The tables of a throughput.json; the comparison with torchvision only if it was measured."""
    subject = _subject(content)
    batches = " or ".join(map(str, sorted({row["batch"] for row in content["training_steps"]})))
    tables = [
        _table(
            "throughput",
            f"Inference by stage on {subject}. p50, p90 and p99 of n calls with a whole batch; "
            f"{content['images']} real images, stages interleaved.",
            content["stages"],
            notes=tuple(str(note) for note in content["notes"]),
            keys=3,
        ),
        _table(
            "training_steps",
            f"One training step with {batches} images (forward, loss, backward, update; without data loading) on "
            f"{subject}, at several points of the schedule. Times as fast: relative to the step of the same schedule "
            f"that trains all layers{_INTERVAL}.",
            content["training_steps"],
            notes=_precision_notes(content, content["training_steps"], "times_faster"),
            keys=3,
        ),
    ]
    comparison = content.get("comparison")
    if comparison is not None:
        ceiling = ", ".join(f"{row['precision']} {row['GFLOP_per_second']:.0f}" for row in comparison["ceiling"])
        tables += [
            _table(
                "comparison",
                "torchvision's SSD, as shipped and tuned (our precision, channels last, fused optimiser), and ours, on "
                f"{subject}. Median and interquartile range of n interleaved calls; times as fast: relative to "
                f"torchvision as shipped{_INTERVAL}; classes: outputs including background; inference: preprocessed "
                "tensors to final boxes; ceiling: GFLOP/s of one large dense convolution "
                f"({ceiling or 'not measured'}).",
                comparison["rows"],
                notes=(*_precision_notes(content, comparison["rows"], "times_as_fast"), *comparison["notes"]),
                keys=5,
            ),
            _table(
                "preparation",
                f"Training batches from files with SSD's augmentation, on one core; {subject}. Median and "
                f"interquartile range of n interleaved batches; times as fast: relative to torchvision{_INTERVAL}.",
                comparison["preparation"],
                notes=_precision_notes(content, comparison["preparation"], "times_as_fast"),
                keys=1,
            ),
            _table(
                "cells",
                "A miniature cell: training steps from image files, then final boxes of validation images; "
                f"{subject}. Median and interquartile range of n interleaved cells; times as fast: relative to "
                f"torchvision as shipped{_INTERVAL}.",
                comparison["cells"],
                notes=_precision_notes(content, comparison["cells"], "times_as_fast"),
                keys=2,
            ),
        ]
    return [*tables, _environment(content)]


def write_speed_tables(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every table as CSV, Markdown and LaTeX to `folder`/tables; returns the files in order."""
    return write_tables(speed_tables(content), folder / TABLES)


def _table(
    name: str, caption: str, rows: Sequence[Mapping[str, Any]], *, notes: tuple[str, ...] = (), keys: int
) -> Table:
    columns = _COLUMNS[name]
    names = [column.name for column in columns]
    names += [key for row in rows[:1] for key in row if key not in names]  # further values are in the CSV only
    return Table(
        name=name,
        caption=caption,
        frame=pd.DataFrame([[row.get(key) for key in names] for row in rows], columns=names, dtype=object),
        headings=tuple(Heading(name=column.name, text=column.heading, left=column.show is None) for column in columns),
        rows=tuple(tuple(Entry(_text(row, column)) for column in columns) for row in rows),
        notes=notes,
        keys=keys,
    )


def _text(row: Mapping[str, Any], column: _Column) -> str:
    """A value of a row; a ratio with its interval and number of rounds: "5.30 (5.10 to 5.50, n = 12)"."""
    value, show = row.get(column.name), column.show
    if value is None:
        return MISSING
    if show is None:
        return text_of(value)
    interval = _interval(row, column.name)
    if interval is None:
        return show(value)
    return f"{show(value)} ({show(interval[0])} to {show(interval[1])}, n = {row['rounds']})"


def _interval(row: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """The interval of a ratio. None in older files, and for the row that the others are relative to."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return None if low is None or high is None or low == high else (low, high)


def _precision_notes(content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], name: str) -> tuple[str, ...]:
    """How many intervals were still too wide when the time was up."""
    precision = content.get("ratio_precision")
    intervals = [interval for row in rows if (interval := _interval(row, name))]
    if precision is None or not intervals:
        return ()
    wide = sum(math.sqrt(high / low) > 1 + precision for low, high in intervals)
    return (
        f"{wide} of {len(intervals)} intervals did not reach ±{100 * precision:.0f}% in the time given (--seconds).",
    )


def _subject(content: Mapping[str, Any]) -> str:
    device, numerics = content["environment"]["device"], content["numerics"]
    parts = [
        text_of(content.get("data")),
        f"backbone {content['backbone']}",
        f"variant {content['variant']}" if content.get("variant") else "",
        text_of(content.get("weights")),
        text_of(device.get("name") or device.get("device")),
        f"{numerics['threads']} threads",
    ]
    return ", ".join(part for part in parts if part)


def _environment(content: Mapping[str, Any]) -> Table:
    request = {name: content.get(name) for name in ("data", "backbone", "variant", "weights", "trained", "images")}
    everything = request | {"precisions": content["precisions"]} | dict(content["environment"])
    return name_value_table(
        name="environment",
        caption=f"Environment of {_subject(content)}.",
        lines=[(name, text) for name, text in flatten(everything) if text],
    )
