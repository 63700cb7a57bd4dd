"""The tables of error types: what each costs every variant, and what a remedy mended."""

from __future__ import annotations

import math

import pandas as pd

from bench.analysis.cell_errors import RunErrors
from bench.analysis.run_records import Run
from bench.analysis.statistics import BOOTSTRAP, STUDENT
from bench.evaluation.error_types import FALSE_NEGATIVES, FALSE_POSITIVES, KINDS
from bench.report.sentences import subject, unfinished
from bench.report.tables.columns import whole
from bench.report.tables.effects import points
from bench.report.tables.entries import absent, printed, summary
from bench.report.tables.typeset import MISSING, Entry, Heading, Table, with_integers

INTEGERS = ("ground_truths", "n")
# Broken where a heading would be wider than its figures.
SHORT = {
    "classification": "classi-\nfication",
    "localisation": "locali-\nsation",
    "duplicate": "dupli-\ncate",
    "background": "back-\nground",
    FALSE_POSITIVES: "false\npositives",
    FALSE_NEGATIVES: "false\nnegatives",
}
MEANING = (
    "Types as in TIDE: classification (IoU of at least .5 with another class), localisation (right class, IoU .1 "
    "to .5), both, duplicate, background (IoU up to .1), missed; false positives and negatives: all together."
)


def errors_table(run: Run, cell_errors: RunErrors, errors: pd.DataFrame) -> Table:
    """What `bench.analysis.error_costs.errors_frame` gives; in print without single classes and differences."""
    shown = errors[errors["scope"].isin(("all", "size", "condition"))]
    ap50 = summary(run, ("AP50",))["AP50"]
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
                Entry(printed(truths.iloc[0] if len(truths) else None, whole)),
                Entry(
                    printed(100 * ap50[variant] if not absent(ap50[variant]) else None, _tenths) if not bucket else ""
                ),
                *(Entry(_cost(by_kind.get(kind)) if kind in KINDS or scope == "all" else "") for kind in kinds),
            )
        )
    return Table(
        name="errors",
        caption=f"Errors on {subject(run)}: points of AP50 that mending all errors of one type, and nothing else, "
        f"would give back, and in brackets how many there are. {MEANING} Sizes in pixels at the network's input; "
        "n: ground truths. Single classes are in errors.csv.",
        frame=with_integers(errors, INTEGERS),
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
        notes=(*_reasons(run, cell_errors), *unfinished(run)),
        keys=2,
    )


def error_differences_table(run: Run, errors: pd.DataFrame) -> Table:
    """What each variant mended of the baseline's errors; by size, condition and class in the CSV alone."""
    frame = errors[errors["variant"] != run.baseline].drop(columns=["dAP50_std"])
    printed_rows = frame[(frame["scope"] == "all") & frame["difference"].notna()]
    reasons = dict.fromkeys(
        method for method in printed_rows["method"] if method not in (BOOTSTRAP, STUDENT) and method
    )
    return Table(
        name="error_differences",
        caption=f"What the variants mended on {subject(run)}: the cost of each type of error in points of AP50, "
        f"minus that of {run.baseline or 'the baseline'}, same seeds. Below zero: the type costs less than before. "
        "95% intervals, each for itself: exploratory.",
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
        rows=tuple(
            (
                Entry(str(row["variant"])),
                Entry(str(row["kind"])),
                Entry(printed(row["count"], whole)),
                *(
                    Entry(MISSING if math.isnan(row[name]) else points(row[name]))
                    for name in ("difference", "low", "high")
                ),
                Entry(
                    f"{row['method'].split(' over ')[0]}, {row['n']:.0f} {row['n_of']}"
                    if row["method"] in (BOOTSTRAP, STUDENT)
                    else "none"
                ),
            )
            for _, row in printed_rows.iterrows()
        ),
        notes=(*(f"No interval: {reason.removeprefix('none: ')}." for reason in reasons), *unfinished(run)),
        keys=2,
    )


def _cost(row: pd.Series | None) -> str:
    """Points of AP50 and the number of errors."""
    if row is None or math.isnan(row["dAP50"]):
        return MISSING
    return f"{100 * row['dAP50']:.1f} ({row['count']:.0f})"


def _tenths(value: float) -> str:
    return f"{value:.1f}"


def _reasons(run: Run, cell_errors: RunErrors) -> list[str]:
    """Why cells have no error types."""
    by_reason: dict[str, list[str]] = {}
    for (variant, seed), reason in cell_errors.unavailable.items():
        by_reason.setdefault(reason, []).append(f"{variant} (seed {seed})")
    done = sum(1 for _ in run.done())
    return [
        f"n/a: {', '.join(cells) if len(cells) < done else 'every cell'}: {reason} kept."
        for reason, cells in by_reason.items()
    ]
