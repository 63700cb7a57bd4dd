"""The table of the best arm: the chance of each arm to be the best, and the best AP corrected for the choice."""

from __future__ import annotations

from bench.analysis.results import Analysis
from bench.report.notes import subject, unfinished_cells
from bench.report.tables.formats import formatted, percent
from bench.report.tables.typeset import Entry, Heading, Table


def best_table(analysis: Analysis) -> Table:
    """The result of `bench.analysis.best.best_frame`, best arm first; controls are not ranked."""
    frame = analysis.best
    return Table(
        name="best",
        caption=f"The best arm on {subject(analysis.run)}. AP in percent, comparable over different seeds. Chance: to "
        "have the highest AP, from the joint uncertainty of all arms. Corrected: the highest of several estimates is "
        "biased upward; this is removed.",
        frame=frame.astype(object).where(frame.notna(), None),
        headings=(
            Heading(name="variant", text="variant", left=True),
            Heading(name="AP", text="AP"),
            Heading(name="probability_best", text="chance\n%"),
            Heading(name="AP_corrected", text="AP\ncorrected"),
        ),
        rows=tuple(
            (
                Entry(str(row["variant"])),
                *(Entry(formatted(row[name], percent)) for name in ("AP", "probability_best", "AP_corrected")),
            )
            for _, row in frame.iterrows()
        ),
        notes=unfinished_cells(analysis.run),
    )
