"""Metrics by variant: full precision for CSV, and formatted entries for printed tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from bench.analysis.effects import HIGHER, THESE_MODELS
from bench.analysis.factorial import VERSUS
from bench.analysis.run_records import Run, cells_frame
from bench.report.notes import common_value, unfinished_cells
from bench.report.tables.columns import COLUMNS, Column
from bench.report.tables.formats import formatted, is_missing
from bench.report.tables.typeset import Entry, Heading, Table


def metrics_by_variant(run: Run, names: Sequence[str]) -> pd.DataFrame:
    """Metrics of `COLUMNS` by variant (index, plan order), combined over finished seeds; None if missing.

    Columns: `names`; with several seeds, columns with a spread are followed by their ``_std``.
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
            table[name] = [common_value(seeds) for seeds in by_variant]
        else:
            table[name] = [int(seeds.min()) if len(seeds) else None for seeds in by_variant]
        if column.spread and len(run.seeds) > 1:
            table[f"{name}_std"] = [float(seeds.std(ddof=1)) if len(seeds) > 1 else None for seeds in by_variant]
    return pd.DataFrame(table, index=pd.Index(run.variants, dtype=object), dtype=object)


def variant_table(
    run: Run,
    *,
    name: str,
    caption: str,
    metrics: Sequence[str],
    counts: Sequence[str] = (),
    notes: Sequence[str] = (),
    effects: pd.DataFrame | None = None,
) -> Table:
    """A table of `metrics` with one row per variant.

    counts: ground-truth columns, shown as n in the headings.
    effects: of `bench.analysis.effects.effects_frame`; entries clearly above the baseline are bold.
    """
    values = metrics_by_variant(run, (*metrics, *counts))
    number = {count.removeprefix("ground_truths_"): common_value(values[count]) for count in counts}
    columns = [
        [Entry(variant) for variant in run.variants],
        *(column_entries(values, metric, effects) for metric in metrics),
    ]
    return Table(
        name=name,
        caption=caption,
        frame=values.reset_index(names="variant"),
        headings=(
            Heading(name="variant", text="variant", left=True),
            *(column_heading(COLUMNS[metric], number.get(metric.partition("_")[2])) for metric in metrics),
        ),
        rows=tuple(zip(*columns, strict=True)),
        notes=(*notes, *unfinished_cells(run)),
    )


def column_entries(metrics: pd.DataFrame, name: str, effects: pd.DataFrame | None = None) -> list[Entry]:
    """The printed column of a metric, in bold where it is clearly above the baseline by `effects`."""
    clear = set() if effects is None else clearly_higher(effects, name)
    return [
        Entry(with_std(row, name, COLUMNS[name].show), best=variant in clear) for variant, row in metrics.iterrows()
    ]


def clearly_higher(effects: pd.DataFrame, measure: str, label: str = "") -> set[str]:
    """The arms and controls whose metric is clearly higher than the baseline's."""
    rows = effects[
        (effects["measure"] == measure) & (effects["class"] == label) & effects["kind"].isin(("arm", "control"))
    ]
    return {
        str(contrast).split(VERSUS)[0]
        for contrast, verdict in zip(rows["contrast"], rows["verdict"], strict=True)
        if verdict.removeprefix(THESE_MODELS) == HIGHER
    }


def column_heading(column: Column, ground_truths: int | None = None) -> Heading:
    """The heading of a metric, with its number of ground truths if given."""
    count = "" if ground_truths is None else f"\nn={ground_truths}"
    return Heading(name=column.name, text=column.header + count, group=column.group)


def with_std(row: pd.Series, name: str, show: Callable[[float], str]) -> str:
    """A metric of a row in print, with its standard deviation if it has one."""
    text = formatted(row[name], show)
    deviation = row.get(f"{name}_std")
    return text if is_missing(deviation) else f"{text} ± {formatted(deviation, show)}"
