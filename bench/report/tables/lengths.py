"""The table of a run that continues shorter ones: AP and effects after each length of training."""

from __future__ import annotations

import pandas as pd

from bench.analysis.effects import HIGHER, THESE_MODELS
from bench.analysis.lengths import lengths_of
from bench.analysis.results import Analysis
from bench.report.notes import subject, unfinished_cells
from bench.report.tables.formats import formatted, integer, is_missing, percent, points
from bench.report.tables.typeset import Entry, Heading, Table, with_integers


def lengths_table(analysis: Analysis) -> Table:
    """One row per variant, and for each length AP and the difference from the baseline with its 95% interval.

    `frame`: the long form, as of `bench.analysis.lengths.lengths_frame`.
    """
    frame, run = analysis.lengths, analysis.run
    steps = lengths_of(frame)
    rows = []
    for variant in run.variants:
        entries = [Entry(variant)]
        for length in steps:
            own = frame[(frame["variant"] == variant) & (frame["steps"] == length)]
            entries += _entries(own.iloc[0] if len(own) else None, baseline=variant == run.baseline)
        rows.append(tuple(entries))
    return Table(
        name="lengths",
        caption=f"Longer training on {subject(run)}: AP in percent and its difference from the baseline in points, "
        "with 95% intervals that hold for all arms of one length together. A longer training continues the shorter one "
        "from the step at which the learning rate began to fall there. Bold: clearly above the baseline.",
        frame=with_integers(frame, ("steps", "seeds")),
        headings=(
            Heading(name="variant", text="variant", left=True),
            *(
                Heading(name=f"{name}_{length:.0f}", text=f"{heading}\n{integer(length)} steps", group=f"{length:.0f}")
                for length in steps
                for name, heading in (("AP", "AP"), ("effect", "ΔAP"), ("interval", "95%"))
            ),
        ),
        rows=tuple(rows),
        notes=unfinished_cells(run),
    )


def _entries(row: pd.Series | None, *, baseline: bool) -> list[Entry]:
    if row is None:
        return [Entry("n/a"), Entry(""), Entry("")]
    clear = str(row["verdict"]).removeprefix(THESE_MODELS) == HIGHER
    known = not is_missing(row["low"])
    return [
        Entry(formatted(row["AP"], percent), best=clear),
        Entry("" if baseline else formatted(row["effect"], points)),
        Entry(f"{points(row['low'])} to {points(row['high'])}" if known else ""),
    ]
