"""The tables of throughput.json: stages of inference, training steps, torchvision beside ours, environment."""

from __future__ import annotations

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


@dataclass(frozen=True)
class _Column:
    """A figure of the rows: its name there and in CSV, its heading, and how it is printed (None: as text).

    narrow: whether it is shown in the terminal too.
    """

    name: str
    heading: str
    show: Callable[[float], str] | None = None
    narrow: bool = True


_TIMES = (
    _Column("p50_ms", "p50\nms", three_digits),
    _Column("p90_ms", "p90\nms", three_digits, narrow=False),
    _Column("p99_ms", "p99\nms", three_digits),
    _Column("samples", "n", whole),
)
_STAGES = (
    _Column("stage", "stage"),
    _Column("precision", "precision"),
    _Column("batch", "batch", whole),
    _Column("images_per_second", "speed\nimages/s", three_digits),
    *_TIMES,
    _Column("workers", "workers", whole, narrow=False),
    _Column("peak_memory_MiB", "memory\nMiB", whole),
)
_STEPS = (
    _Column("schedule", "schedule"),
    _Column("share", "steps\ndone %", per_cent),
    _Column("precision", "precision"),
    _Column("batch", "batch", whole, narrow=False),
    _Column("trainable_stages", "stages\ntrained", whole, narrow=False),
    _Column("trainable_M", "trained\nM", three_digits),
    *_TIMES,
    _Column("times_faster", "times\nas fast", three_digits),
)
_COMPARISON = (
    _Column("task", "task"),
    _Column("classes", "classes", whole),
    _Column("batch", "batch", whole),
    _Column("contender", "contender"),
    _Column("precision", "precision"),
    _Column("p50_ms", "median\nms", three_digits),
    _Column("iqr_ms", "IQR\nms", three_digits),
    _Column("samples", "n", whole),
    _Column("times_as_fast", "times\nas fast", three_digits),
    _Column("share_of_ceiling", "of\nceiling %", per_cent),
)
_PREPARATION = (
    _Column("contender", "contender"),
    _Column("batch", "batch", whole),
    _Column("images_per_second", "speed\nimages/s", three_digits),
    _Column("p50_ms", "median\nms", three_digits),
    _Column("iqr_ms", "IQR\nms", three_digits),
    _Column("samples", "n", whole),
    _Column("times_as_fast", "times\nas fast", three_digits),
)
_CELLS = (
    _Column("contender", "contender"),
    _Column("precision", "precision"),
    _Column("steps", "steps", whole),
    _Column("batch", "batch", whole),
    _Column("scored_images", "images\nscored", whole),
    _Column("p50_ms", "median\nms", three_digits),
    _Column("iqr_ms", "IQR\nms", three_digits),
    _Column("samples", "n", whole),
    _Column("times_as_fast", "times\nas fast", three_digits),
)
_COLUMNS = {
    "throughput": _STAGES,
    "training_steps": _STEPS,
    "comparison": _COMPARISON,
    "preparation": _PREPARATION,
    "cells": _CELLS,
}


def speed_tables(content: Mapping[str, Any]) -> list[Table]:
    """The tables of a throughput.json, in the order in which they are shown; that of torchvision where it was asked."""
    subject = _subject(content)
    notes = tuple(str(note) for note in content["notes"])
    batches = " or ".join(map(str, sorted({row["batch"] for row in content["training_steps"]})))
    tables = [
        _table(
            "throughput",
            f"Inference stage by stage on {subject}. p50, p90 and p99 of n calls of a whole batch; "
            f"{content['images']} real images, stages in turn.",
            _STAGES,
            content["stages"],
            notes=notes,
            keys=3,
        ),
        _table(
            "training_steps",
            f"A training step of {batches} images (forward, loss, backward, update; data not waited for) on {subject}, "
            "at shares of the schedule. Times as fast: as the step of the same schedule with everything trained.",
            _STEPS,
            content["training_steps"],
            keys=3,
        ),
    ]
    comparison = content.get("comparison")
    if comparison is not None:
        ceiling = ", ".join(f"{row['precision']} {row['GFLOP_per_second']:.0f}" for row in comparison["ceiling"])
        tables.append(
            _table(
                "comparison",
                "torchvision's SSD, as shipped and at its best (our precision, channels last, fused update), beside "
                f"ours on {subject}. Median and interquartile range of n calls in turn; times as fast as torchvision "
                "as shipped; classes: outputs, background among them; inference: tensors to final boxes; ceiling: "
                f"GFLOP/s of one large dense convolution ({ceiling or 'not measured'}).",
                _COMPARISON,
                comparison["rows"],
                notes=tuple(comparison["notes"]),
                keys=5,
            )
        )
        tables.append(
            _table(
                "preparation",
                f"Training batches from files, augmented as SSD's are, on one core; {subject}. Median and "
                "interquartile range of n batches in turn.",
                _PREPARATION,
                comparison["preparation"],
                keys=1,
            )
        )
        tables.append(
            _table(
                "cells",
                "A cell in miniature: steps of training from image files, and final boxes of validation images; "
                f"{subject}. Median and interquartile range of n cells in turn.",
                _CELLS,
                comparison["cells"],
                keys=2,
            )
        )
    return [*tables, _environment(content)]


def write_speed_tables(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Every table as CSV, Markdown and LaTeX in `folder`/tables; the files, in order."""
    return write_tables(speed_tables(content), folder / TABLES)


def print_speed(content: Mapping[str, Any], console: Console) -> None:
    """The tables in the terminal, and beneath them what must be known to read them."""
    for table in speed_tables(content)[:-1]:
        console.print(Text(f"\n{table.caption}"))
        shown = Shown(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        narrow = [column.name for column in _COLUMNS[table.name] if column.narrow]
        places = [place for place, heading in enumerate(table.headings) if heading.name in narrow]
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
        rows=tuple(tuple(Entry(_printed(row.get(column.name), column.show)) for column in columns) for row in rows),
        notes=notes,
        keys=keys,
    )


def _printed(value: Any, show: Callable[[float], str] | None) -> str:
    if value is None:
        return MISSING
    return text_of(value) if show is None else show(value)


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
        caption=f"What the figures were made with: {_subject(content)}.",
        frame=pd.DataFrame(lines, columns=["name", "value"], dtype=object),
        headings=(Heading(name="name", text="name", left=True), Heading(name="value", text="value", left=True)),
        rows=tuple((Entry(name), Entry(value)) for name, value in lines),
    )
