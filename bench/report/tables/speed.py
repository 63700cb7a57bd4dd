"""The tables of throughput.json: stages of inference, training steps, comparison with torchvision, environment."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as Shown
from rich.text import Text

from bench.report.sentences import text_of
from bench.report.tables.ablation import flat, write_tables
from bench.report.tables.columns import per_cent, three_digits, whole
from bench.report.tables.typeset import MISSING, Entry, Heading, Table
from bench.storage.run_folder import TABLES


def _ratio(value: float) -> str:
    """Two decimals: 0.94, 5.30; one from 10: 17.1."""
    return f"{value:.{2 if value < 10 else 1}f}"


@dataclass(frozen=True)
class _Column:
    """A column: its name in the rows and in CSV, its heading, and how its values are printed (None: as text).

    terminal: whether the terminal shows it too.
    """

    name: str
    heading: str
    show: Callable[[float], str] | None = None
    terminal: bool = True


_TIMES = (
    _Column("p50_ms", "p50\nms", three_digits),
    _Column("p90_ms", "p90\nms", three_digits, terminal=False),
    _Column("p99_ms", "p99\nms", three_digits),
    _Column("samples", "n", whole),
)
_STAGES = (
    _Column("stage", "stage"),
    _Column("precision", "precision"),
    _Column("batch", "batch", whole),
    _Column("images_per_second", "speed\nimages/s", three_digits),
    *_TIMES,
    _Column("workers", "workers", whole, terminal=False),
    _Column("peak_memory_MiB", "memory\nMiB", whole),
)
_STEPS = (
    _Column("schedule", "schedule"),
    _Column("share", "steps\ndone %", per_cent),
    _Column("precision", "precision"),
    _Column("batch", "batch", whole, terminal=False),
    _Column("trainable_stages", "stages\ntrained", whole, terminal=False),
    _Column("trainable_M", "trained\nM", three_digits),
    *_TIMES,
    _Column("times_faster", "times\nas fast", _ratio),
)
_COMPARISON = (
    _Column("task", "task"),
    _Column("classes", "classes", whole),
    _Column("batch", "batch", whole),
    _Column("contender", "contender"),
    _Column("precision", "precision"),
    _Column("p50_ms", "median\nms", three_digits),
    _Column("iqr_ms", "IQR\nms", three_digits, terminal=False),
    _Column("samples", "n", whole, terminal=False),
    _Column("times_as_fast", "times\nas fast", _ratio),
    _Column("share_of_ceiling", "of\nceiling %", per_cent, terminal=False),
)
_PREPARATION = (
    _Column("contender", "contender"),
    _Column("batch", "batch", whole),
    _Column("images_per_second", "speed\nimages/s", three_digits),
    _Column("p50_ms", "median\nms", three_digits),
    _Column("iqr_ms", "IQR\nms", three_digits, terminal=False),
    _Column("samples", "n", whole, terminal=False),
    _Column("times_as_fast", "times\nas fast", _ratio),
)
_CELLS = (
    _Column("contender", "contender"),
    _Column("precision", "precision"),
    _Column("steps", "steps", whole),
    _Column("batch", "batch", whole),
    _Column("scored_images", "images\nscored", whole),
    _Column("p50_ms", "median\nms", three_digits),
    _Column("iqr_ms", "IQR\nms", three_digits, terminal=False),
    _Column("samples", "n", whole, terminal=False),
    _Column("times_as_fast", "times\nas fast", _ratio),
)
_INTERVAL = " (95% interval from n paired rounds)"
_COLUMNS = {
    "throughput": _STAGES,
    "training_steps": _STEPS,
    "comparison": _COMPARISON,
    "preparation": _PREPARATION,
    "cells": _CELLS,
}


def speed_tables(content: Mapping[str, Any]) -> list[Table]:
    """The tables of a throughput.json, in order; those of the comparison if it was measured."""
    subject = _subject(content)
    notes = tuple(str(note) for note in content["notes"])
    batches = " or ".join(map(str, sorted({row["batch"] for row in content["training_steps"]})))
    tables = [
        _table(
            "throughput",
            f"Inference by stage on {subject}. p50, p90 and p99 of n calls with a whole batch; "
            f"{content['images']} real images, stages interleaved.",
            _STAGES,
            content["stages"],
            notes=notes,
            keys=3,
        ),
        _table(
            "training_steps",
            f"Training step of {batches} images (forward, loss, backward, update; without loading data), on {subject}, "
            f"at shares of the schedule. Times as fast: relative to the step that trains everything{_INTERVAL}.",
            _STEPS,
            content["training_steps"],
            notes=_precision_notes(content, content["training_steps"], "times_faster"),
            keys=3,
        ),
    ]
    comparison = content.get("comparison")
    if comparison is not None:
        ceiling = ", ".join(f"{row['precision']} {row['GFLOP_per_second']:.0f}" for row in comparison["ceiling"])
        tables.append(
            _table(
                "comparison",
                "torchvision's SSD, as shipped and at its best (our precision, channels last, fused update), and ours, "
                f"on {subject}. Median and interquartile range of n interleaved calls. Times as fast: relative to "
                f"torchvision as shipped{_INTERVAL}. Classes: outputs, including background. Inference: from tensors "
                f"to final boxes. Ceiling: GFLOP/s of one large dense convolution ({ceiling or 'not measured'}).",
                _COMPARISON,
                comparison["rows"],
                notes=(*_precision_notes(content, comparison["rows"], "times_as_fast"), *comparison["notes"]),
                keys=5,
            )
        )
        tables.append(
            _table(
                "preparation",
                f"Training batches from files, with SSD's augmentation, on one core; {subject}. Median and "
                f"interquartile range of n interleaved batches. Times as fast: relative to torchvision{_INTERVAL}.",
                _PREPARATION,
                comparison["preparation"],
                notes=_precision_notes(content, comparison["preparation"], "times_as_fast"),
                keys=1,
            )
        )
        tables.append(
            _table(
                "cells",
                "A miniature cell: training steps from image files, and final boxes of validation images; "
                f"{subject}. Median and interquartile range of n interleaved cells. Times as fast: relative to "
                f"torchvision as shipped{_INTERVAL}.",
                _CELLS,
                comparison["cells"],
                notes=_precision_notes(content, comparison["cells"], "times_as_fast"),
                keys=2,
            )
        )
    return [*tables, _environment(content)]


def write_speed_tables(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every table as CSV, Markdown and LaTeX into `folder`/tables; returns the files, in order."""
    return write_tables(speed_tables(content), folder / TABLES)


def print_speed(content: Mapping[str, Any], console: Console) -> None:
    """Print the tables and their notes in the terminal."""
    for table in speed_tables(content)[:-1]:
        console.print(Text(f"\n{table.caption}"))
        shown = Shown(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
        in_terminal = [column.name for column in _COLUMNS[table.name] if column.terminal]
        places = [place for place, heading in enumerate(table.headings) if heading.name in in_terminal]
        for heading in (table.headings[place] for place in places):
            shown.add_column(Text(heading.text), justify="left" if heading.left else "right", no_wrap=True)
        for row in table.rows:
            texts = [row[place].text for place in places]
            shown.add_row(*(Text(text, style="dim" if text == MISSING else "") for text in texts))
        console.print(shown)
    console.print()
    for note in [*content["notes"], *(content.get("comparison") or {}).get("notes", [])]:
        console.print(Text(str(note), style="dim"))


def _table(
    name: str,
    caption: str,
    columns: Sequence[_Column],
    rows: Sequence[Mapping[str, Any]],
    *,
    notes: tuple[str, ...] = (),
    keys: int,
) -> Table:
    names = [column.name for column in columns]
    further = [key for row in rows[:1] for key in row if key not in names]
    frame = pd.DataFrame(
        [[row.get(key) for key in [*names, *further]] for row in rows], columns=[*names, *further], dtype=object
    )
    return Table(
        name=name,
        caption=caption,
        frame=frame,
        headings=tuple(Heading(name=column.name, text=column.heading, left=column.show is None) for column in columns),
        rows=tuple(tuple(Entry(_printed(row, column)) for column in columns) for row in rows),
        notes=notes,
        keys=keys,
    )


def _printed(row: Mapping[str, Any], column: _Column) -> str:
    """A value of a row, with its interval and number of rounds if it has one: "5.30 (5.10 to 5.50, n = 12)"."""
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
    """The interval of a ratio; None without one (older files), or if the row is the reference itself."""
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return None if low is None or high is None or low == high else (low, high)


def _precision_notes(content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], name: str) -> tuple[str, ...]:
    """How many intervals were not narrow enough when the time was up."""
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
    plain = {name: content.get(name) for name in ("data", "backbone", "variant", "weights", "trained", "images")}
    lines = [
        (name, text)
        for name, text in flat(plain | {"precisions": content["precisions"]} | dict(content["environment"]))
        if text
    ]
    return Table(
        name="environment",
        caption=f"Environment of the measurements: {_subject(content)}.",
        frame=pd.DataFrame(lines, columns=["name", "value"], dtype=object),
        headings=(Heading(name="name", text="name", left=True), Heading(name="value", text="value", left=True)),
        rows=tuple((Entry(name), Entry(value)) for name, value in lines),
    )
