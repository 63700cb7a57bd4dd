"""The table of differences in error costs: what each variant fixed compared with the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from bench.analysis.error_costs import BUDGET
from bench.analysis.run_records import Run
from bench.report.notes import subject, unfinished_cells
from bench.report.tables.errors import INTEGERS
from bench.report.tables.formats import formatted, integer, points
from bench.report.tables.typeset import Entry, Heading, Table, with_integers


def error_differences_table(run: Run, errors: pd.DataFrame) -> Table:
    """Error costs minus those of the baseline; sizes, conditions and classes are in the CSV only."""
    compared = (errors["variant"] != run.baseline) & (errors["scope"] != BUDGET)
    frame = errors[compared].drop(columns=["dAP50_std"])
    shown = frame[(frame["scope"] == "all") & frame["difference"].notna()]
    return Table(
        name="error_differences",
        caption=f"Change in error cost relative to the baseline on {subject(run)}: cost of each error type in points "
        f"of AP50 minus that of {run.baseline or 'the baseline'}, same seeds. Negative: the type costs less than in "
        "the baseline. 95% intervals, not adjusted for multiple comparisons: exploratory.",
        frame=with_integers(frame, INTEGERS),
        headings=(
            Heading(name="variant", text="variant", left=True),
            Heading(name="kind", text="errors", left=True),
            Heading(name="count", text="number", group="number"),
            Heading(name="difference", text="points\nof AP50", group="difference"),
            Heading(name="low", text="95%\nfrom", group="difference"),
            Heading(name="high", text="\nto", group="difference"),
            Heading(name="method", text="interval from", left=True, group="method"),
        ),
        rows=tuple(_entries(row) for _, row in shown.iterrows()),
        notes=(*missing_intervals(shown["method"]), *unfinished_cells(run)),
        keys=2,
    )


def missing_intervals(methods: Iterable[str]) -> list[str]:
    """A note for each reason among the methods why a difference has no interval."""
    reasons = dict.fromkeys(method.removeprefix("none: ") for method in methods if method.startswith("none: "))
    return [f"No interval: {reason}." for reason in reasons]


def _entries(row: pd.Series) -> tuple[Entry, ...]:
    known = not math.isnan(row["low"])
    texts = [
        str(row["variant"]),
        str(row["kind"]),
        formatted(row["count"], integer),
        *(points(row[name]) for name in ("difference", "low", "high")),
        f"{row['method'].split(' over ')[0]}, {row['n']:.0f} {row['n_of']}" if known else "none",
    ]
    return tuple(Entry(text) for text in texts)
