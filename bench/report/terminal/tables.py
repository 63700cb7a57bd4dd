"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.tables.formats import MISSING
from bench.report.tables.typeset import Entry, Heading, Table


def print_table(table: Table, console: Console, *, names: Collection[str] | None = None) -> None:
    """Print a table below its caption. names: of the columns to show; all by default."""
    places = [place for place, heading in enumerate(table.headings) if names is None or heading.name in names]
    shown = rich_table()
    for place in places:
        heading = table.headings[place]
        shown.add_column(Text(heading.text), justify=alignment(heading), no_wrap=names is not None)
    for row in table.rows:
        shown.add_row(*(Text(row[place].text, style=style(row[place])) for place in places))
    console.print(Text(f"\n{table.caption}"))
    console.print(shown)


def rich_table(*, gap: int = 2) -> RichTable:
    """An empty table with columns `gap` spaces apart."""
    padding = (0, gap - 1, 0, 0)  # the box adds one space
    return RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=padding, show_edge=False)


def alignment(heading: Heading) -> Literal["left", "right"]:
    return "left" if heading.left else "right"


def style(entry: Entry) -> str:
    return "bold" if entry.best else "dim" if entry.text == MISSING else ""
