"""Tables as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.report.tables.typeset import Table, csv_text, latex_text, markdown_text
from bench.storage.atomic import write_text


def write_tables(tables: Iterable[Table], folder: Path) -> list[Path]:
    """Write each table to `folder` as CSV, Markdown and LaTeX; returns the files in order."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        for ending, text in (("csv", csv_text(table.frame)), ("md", markdown_text(table)), ("tex", latex_text(table))):
            path = folder / f"{table.name}.{ending}"
            write_text(path, text)
            written.append(path)
    return written
