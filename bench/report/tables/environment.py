"""The table of plan, hardware and software."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.analysis.run_records import Run
from bench.report.notes import subject, text_of
from bench.report.tables.typeset import Entry, Heading, Table


def environment_table(run: Run) -> Table:
    """Names and values of plan, device and software. If cells differ in a value, all its values are listed."""
    values: dict[str, list[str]] = {}
    for name in ("data", "backbone", "profile", "axes", "seeds"):
        values[name] = [text_of(run.plan.get(name))]
    for record in run.records.values():
        content = dict(record.get("environment") or {})
        content |= {name: (record.get("speed") or {}).get(name) for name in ("device", "threads", "precision")}
        for name, text in flatten(content):
            if text not in values.setdefault(name, []):
                values[name].append(text)
    return name_value_table(
        name="environment",
        caption=f"Environment of {subject(run)}.",
        lines=[(name, "; ".join(texts)) for name, texts in values.items() if any(texts)],
    )


def name_value_table(*, name: str, caption: str, lines: Sequence[tuple[str, str]]) -> Table:
    """A table of names and values."""
    return Table(
        name=name,
        caption=caption,
        frame=pd.DataFrame(lines, columns=["name", "value"], dtype=object),
        headings=(Heading(name="name", text="name", left=True), Heading(name="value", text="value", left=True)),
        rows=tuple((Entry(key), Entry(value)) for key, value in lines),
    )


def flatten(content: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Leaves of nested content as (dotted path, text), without None."""
    lines = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            lines += flatten(value, f"{path}{name}.")
        elif value is not None:
            lines.append((f"{path}{name}", text_of(value)))
    return lines
