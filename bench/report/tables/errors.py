"""The table of errors by type: what each type costs every variant."""

from __future__ import annotations

import math

import pandas as pd

from bench.analysis.cell_errors import RunErrors
from bench.analysis.error_costs import BUDGET
from bench.analysis.run_records import Run
from bench.evaluation.error_types import FALSE_NEGATIVES, FALSE_POSITIVES, KINDS
from bench.report.notes import subject, unfinished_cells
from bench.report.tables.entries import metrics_by_variant
from bench.report.tables.formats import MISSING, formatted, integer, percent
from bench.report.tables.typeset import Entry, Heading, Table, with_integers

INTEGERS = ("ground_truths", "n")
# Hyphenated where the heading would be wider than the column.
SHORT = {
    "classification": "classi-\nfication",
    "localisation": "locali-\nsation",
    "duplicate": "dupli-\ncate",
    "background": "back-\nground",
    FALSE_POSITIVES: "false\npositives",
    FALSE_NEGATIVES: "false\nnegatives",
}
DEFINITIONS = (
    "Types as in TIDE: classification (IoU of at least .5 with another class), localisation (correct class, IoU .1 "
    "to .5), both, duplicate, background (IoU up to .1), missed; false positives and false negatives: all of them."
)


def errors_table(run: Run, cell_errors: RunErrors, errors: pd.DataFrame) -> Table:
    """The result of `bench.analysis.error_costs.errors_frame`; single classes and differences are in the CSV only."""
    shown = errors[errors["scope"].isin(("all", "size", "condition"))]
    ap50 = metrics_by_variant(run, ("AP50",))["AP50"]
    kinds = (*KINDS, FALSE_POSITIVES, FALSE_NEGATIVES)
    rows = []
    for (_, scope, bucket), part in shown.groupby(["variant", "scope", "bucket"], sort=False):
        variant = str(part["variant"].iloc[0])
        by_kind = {str(row["kind"]): row for _, row in part.iterrows()}
        truths = part["ground_truths"].dropna()
        rows.append(
            (
                Entry(variant),
                Entry(str(bucket) or "all"),
                Entry(formatted(truths.iloc[0] if len(truths) else None, integer)),
                Entry("" if bucket else formatted(ap50[variant], percent)),
                *(Entry(_cost(by_kind.get(kind)) if kind in KINDS or scope == "all" else "") for kind in kinds),
            )
        )
    return Table(
        name="errors",
        caption=f"Errors on {subject(run)}: points of AP50 recovered by fixing all errors of one type and no others, "
        f"with the number of errors in parentheses. {DEFINITIONS} Sizes in pixels of the network input; n: ground "
        "truths. Single classes are in errors.csv.",
        frame=with_integers(errors[errors["scope"] != BUDGET], INTEGERS),
        headings=(
            Heading(name="variant", text="variant", left=True),
            Heading(name="bucket", text="objects", left=True),
            Heading(name="ground_truths", text="n"),
            Heading(name="AP50", text="AP50\n%"),
            *(
                Heading(name="dAP50", text=SHORT.get(kind, kind), group="types" if kind in KINDS else "sums")
                for kind in kinds
            ),
        ),
        rows=tuple(rows),
        notes=(*without_error_types(run, cell_errors), *unfinished_cells(run)),
        keys=2,
    )


def _cost(row: pd.Series | None) -> str:
    """Points of AP50 and the number of errors."""
    if row is None or math.isnan(row["dAP50"]):
        return MISSING
    return f"{percent(row['dAP50'])} ({row['count']:.0f})"


def without_error_types(run: Run, cell_errors: RunErrors) -> list[str]:
    """A note per reason why finished cells have no error types."""
    by_reason: dict[str, list[str]] = {}
    for (variant, seed), reason in cell_errors.unavailable.items():
        by_reason.setdefault(reason, []).append(f"{variant} (seed {seed})")
    done = sum(1 for _ in run.done())
    return [
        f"n/a: {', '.join(cells) if len(cells) < done else 'all cells'}: {reason} kept."
        for reason, cells in by_reason.items()
    ]
