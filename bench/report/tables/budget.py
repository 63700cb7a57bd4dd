"""The budget of each variant: AP, what imprecise boxes and each error type cost, and the remainder; together 100."""

from __future__ import annotations

import pandas as pd

from bench.analysis.budget import PARTS, budget_differences, budget_frame
from bench.analysis.cell_errors import RunErrors
from bench.analysis.error_costs import IMPRECISE, REMAINDER
from bench.analysis.run_records import Run
from bench.report.notes import subject, unfinished_cells
from bench.report.tables.error_differences import missing_intervals
from bench.report.tables.errors import SHORT, without_error_types
from bench.report.tables.formats import formatted, percent, points
from bench.report.tables.typeset import Entry, Heading, Table, with_integers

HEADINGS = {**SHORT, IMPRECISE: "imprecise\nboxes", REMAINDER: "re-\nmainder"}
DEFINITION = (
    "Imprecise boxes: AP50 minus AP. Error types: AP50 gained by fixing one type alone. The remainder is usually "
    "positive, because two fixes together mostly gain more than the sum of each alone."
)


def budget_table(run: Run, cell_errors: RunErrors, errors: pd.DataFrame) -> Table:
    """One row per variant and one column per part.

    cell_errors, errors: results of `load_run_errors(run)` and `errors_frame(run, cell_errors)`.
    """
    budget = budget_frame(run, errors)
    frame = budget.pivot(index="variant", columns="part", values="points").reindex(run.variants, columns=PARTS)
    frame.insert(0, "seeds", budget.groupby("variant")["seeds"].max())
    return Table(
        name="budget",
        caption=f"Where 100 points go on {subject(run)}: AP, and the cost of each kind of error in points. A row sums "
        f"to 100. {DEFINITION}",
        frame=frame.rename_axis(columns=None).reset_index(),
        headings=(Heading(name="variant", text="variant", left=True), *_part_headings()),
        rows=tuple(
            (Entry(str(variant)), *(Entry(_signed_if_negative(row[part])) for part in PARTS))
            for variant, row in frame.iterrows()
        ),
        notes=(*without_error_types(run, cell_errors), *unfinished_cells(run)),
    )


def budget_differences_table(run: Run, errors: pd.DataFrame) -> Table:
    """Three rows per variant other than the baseline: the difference of each part and its 95% interval."""
    frame = budget_differences(run, errors)
    rows: list[tuple[Entry, ...]] = []
    for variant, of_variant in frame.groupby("variant", sort=False):
        parts = of_variant.set_index("part")
        if parts["difference"].isna().all():
            continue
        for name, label in (("difference", "difference"), ("low", "95% from"), ("high", "to")):
            texts = ["" if name != "difference" and pd.isna(value) else points(value) for value in parts[name]]
            rows.append((Entry(str(variant)), Entry(label), *map(Entry, texts)))
    return Table(
        name="budget_differences",
        caption=f"The budget of each variant minus that of {run.baseline or 'the baseline'} on {subject(run)}, in "
        "points, same seeds. A row of differences sums to 0. Negative: the part costs less than in the baseline. 95% "
        "intervals, not adjusted for multiple comparisons: exploratory; that of AP is in the table of effects.",
        frame=with_integers(frame, ("n",)),
        headings=(
            Heading(name="variant", text="variant", left=True),
            Heading(name="difference", text="points", left=True),
            *_part_headings(),
        ),
        rows=tuple(rows),
        notes=(*missing_intervals(frame["method"]), *unfinished_cells(run)),
        keys=2,
    )


def _part_headings() -> list[Heading]:
    return [Heading(name=part, text=HEADINGS.get(part, part), group="budget") for part in PARTS]


def _signed_if_negative(value: float) -> str:
    return points(value) if value < 0 else formatted(value, percent)
