"""The tables of throughput.json in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from bench.report.tables.speed import TERMINAL_COLUMNS, speed_tables
from bench.report.terminal.tables import print_table


def print_speed(content: Mapping[str, Any], console: Console) -> None:
    """Print the tables without the environment, then the notes needed to read them."""
    for table in speed_tables(content):
        if table.name in TERMINAL_COLUMNS:
            print_table(table, console, names=TERMINAL_COLUMNS[table.name])
    console.print()
    for note in [*content["notes"], *(content.get("comparison") or {}).get("notes", [])]:
        console.print(Text(str(note), style="dim"))
