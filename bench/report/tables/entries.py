"""Figures of a run by variant, in full for CSV and as the entries of printed tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from bench.analysis.run_records import Run, cells_frame
from bench.report.sentences import common
from bench.report.tables.columns import COLUMNS, Column
from bench.report.tables.typeset import MISSING, Entry, Heading


def summary(run: Run, names: Sequence[str]) -> pd.DataFrame:
    """Figures of `COLUMNS` by variant (index, order of the plan) over the finished seeds; None where there is none.

    Columns: `names`, each that has a spread followed by its ``_std`` when the plan has several seeds.
    """
    cells = cells_frame(run)
    table: dict[str, list[Any]] = {}
    for name in names:
        column = COLUMNS[name]
        values = cells[column.path] if column.path in cells else pd.Series(math.nan, index=cells.index)
        by_variant = [values[cells["variant"] == variant].dropna() for variant in run.variants]
        if column.over_seeds == "mean":
            table[name] = [float(seeds.mean()) if len(seeds) else None for seeds in by_variant]
        elif column.over_seeds == "common":
            table[name] = [common(seeds) for seeds in by_variant]
        else:
            table[name] = [int(seeds.min()) if len(seeds) else None for seeds in by_variant]
        if column.spread and len(run.seeds) > 1:
            table[f"{name}_std"] = [float(seeds.std(ddof=1)) if len(seeds) > 1 else None for seeds in by_variant]
    return pd.DataFrame(table, index=pd.Index(run.variants, dtype=object), dtype=object)


def entries(figures: pd.DataFrame, name: str) -> list[Entry]:
    """The printed column of a figure, best AP in bold."""
    column = COLUMNS[name]
    texts = [spread(row, name, column.show) for _, row in figures.iterrows()]
    return best(texts) if column.spread else [Entry(text) for text in texts]


def best(texts: Sequence[str]) -> list[Entry]:
    """Entries with the highest figure marked, and all that print the same; nothing where there is no choice."""
    values = [float(text.split()[0]) if text != MISSING else -math.inf for text in texts]
    top = max(values, default=-math.inf)
    choice = len(set(values)) > 1 and sum(math.isfinite(value) for value in values) > 1
    return [Entry(text, best=choice and value == top) for text, value in zip(texts, values, strict=True)]


def heading(column: Column, ground_truths: int | None = None) -> Heading:
    """The heading of a column of `COLUMNS`, with the number of ground truths that its figures rest on."""
    count = "" if ground_truths is None else f"\nn={ground_truths}"
    return Heading(name=column.name, text=column.header + count, group=column.group)


def spread(row: pd.Series, name: str, show: Callable[[float], str]) -> str:
    """A figure of a row in print, with its standard deviation where there is one."""
    text = printed(row[name], show)
    deviation = row.get(f"{name}_std")
    return text if absent(deviation) else f"{text} ± {printed(deviation, show)}"


def absent(value: Any) -> bool:
    """None, or not a number."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def printed(value: Any, show: Callable[[float], str]) -> str:
    """A figure in print, n/a where it does not exist."""
    return MISSING if absent(value) else show(value)
