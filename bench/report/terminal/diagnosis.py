"""A diagnosis in the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from bench.report.tables.diagnosis import diagnosis_tables, diagnosis_title
from bench.report.terminal.tables import print_table

MAX_CLASSES = 12  # rows shown of a table by class
WIDTH = 110  # maximum line length of the findings, for readability
INDENT = " " * 5
STYLES = {"serious": "bold red", "notable": "yellow", "minor": "", "fine": "green"}


def print_diagnosis(content: Mapping[str, Any], console: Console) -> None:
    """Print the tables, then the findings ranked by severity. Tables by class show only the first classes."""
    for table in diagnosis_tables(content):
        shown = table
        if table.name.endswith("classes") and len(table.rows) > MAX_CLASSES:
            caption = f"{table.caption} First {MAX_CLASSES} of {len(table.rows)}; all are in diagnosis.md."
            shown = replace(table, rows=table.rows[:MAX_CLASSES], caption=caption)
        print_table(shown, console)
    console.print(Text(f"\n{diagnosis_title(content)}: findings, most severe first\n"))
    width = min(WIDTH, console.width - 1)
    for place, finding in enumerate(content["findings"], 1):
        severity, head = finding["severity"], f"{place:>3}. {finding['severity']}: "
        wrapped = Text(textwrap.fill(f"{head}{finding['sentence']}.", width, subsequent_indent=INDENT))
        wrapped.stylize(STYLES[severity], len(head) - len(severity) - 2, len(head) - 2)
        console.print(wrapped)
        remedy = f"Remedy: {finding['remedy']}."
        console.print(Text(textwrap.fill(remedy, width, initial_indent=INDENT, subsequent_indent=INDENT), style="dim"))
    if not content["findings"]:
        console.print("  nothing that would explain a low mAP")
