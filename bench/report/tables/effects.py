"""The table of effects, with notes on what its intervals cover."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from bench.analysis.effects import FRACTION, NO_CLAIM
from bench.analysis.run_records import Run
from bench.analysis.statistics import BOOTSTRAP, MAX_SEEDS, STUDENT
from bench.report.notes import subject, unfinished_cells
from bench.report.tables.formats import MISSING, integer, p_value, percent, points, signed, three_digits
from bench.report.tables.typeset import Entry, Heading, Table, with_integers
from bench.spec import BASELINE

INTEGERS = ("n", "seeds_needed")


def effects_table(run: Run, effects: pd.DataFrame) -> Table:
    """The result of `bench.analysis.effects.effects_frame`; single classes are in the CSV only."""
    frame = with_integers(effects, INTEGERS)
    frame["exploratory"] = frame["exploratory"].astype(int)
    # If cells are missing, print this for AP only instead of repeating it for every metric.
    printed = effects[(effects["class"] == "") & (effects["effect"].notna() | (effects["measure"] == "AP"))]
    reasons = dict.fromkeys(method for method in printed["method"] if method not in (BOOTSTRAP, STUDENT))
    letters = dict(zip(reasons, "abcdefghijklmnopqrstuvwxyz", strict=False))
    return Table(
        name="effects",
        caption=f"Effects on {subject(run)}: mean of the variants with an axis minus mean of those without. For two "
        "axes (×): half the difference between the effect of one with the other and without it. 95% intervals. AP in "
        "percentage points. p Holm: adjusted for all main effects on AP; all other rows are exploratory (expl.) with "
        "unadjusted p. Definitions and evidence: docs/statistics.md.",
        frame=frame,
        headings=(
            Heading(name="measure", text="metric", left=True),
            Heading(name="contrast", text="contrast", left=True),
            Heading(name="effect", text="effect", group="effect"),
            Heading(name="low", text="95%\nfrom", group="effect"),
            Heading(name="high", text="\nto", group="effect"),
            Heading(name="p", text="p", group="p"),
            Heading(name="p_holm", text="p\nHolm", group="p"),
            Heading(name="exploratory", text="expl.", group="p"),
            Heading(name="verdict", text="verdict", left=True, group="words"),
            Heading(name="seeds_needed", text="seeds\nneeded", group="words"),
            Heading(name="method", text="interval from", left=True, group="method"),
        ),
        rows=tuple(_entries(row, letters, run.baseline or BASELINE) for _, row in printed.iterrows()),
        notes=(
            *remarks(effects),
            *(f"({letter}) No interval: {reason.removeprefix('none: ')}." for reason, letter in letters.items()),
            *unfinished_cells(run),
        ),
        keys=2,
    )


def remarks(effects: pd.DataFrame) -> tuple[str, ...]:
    """What the intervals of the main effects on AP cover, and how many seeds would be enough."""
    primary = effects[~effects["exploratory"].astype(bool)]
    notes = []
    if (primary["method"] == BOOTSTRAP).any():
        notes.append(
            "One seed: intervals are over images and cover these trained models only. Retraining adds variation. "
            "Several seeds (--seeds 3) are needed to measure a remedy's effect and to estimate how many seeds it takes."
        )
    for _, row in primary[(primary["method"] == STUDENT) & (primary["verdict"] == NO_CLAIM)].iterrows():
        needed = row["seeds_needed"]
        count = f"more than {MAX_SEEDS}" if pd.isna(needed) else f"about {needed:.0f}"
        # Holm may require more seeds than a single test.
        single = not pd.isna(needed) and needed <= row["n"]
        caveat = " for a single test, and more after adjusting for all main effects" if single else ""
        notes.append(
            f"{row['contrast']}: {row['n']} seeds are too few to tell. Detecting the observed difference "
            f"({points(row['effect'])} points of AP) would need {count} seeds{caveat}, assuming the same spread "
            "(80% power at 5%)."
        )
    return tuple(notes)


def _entries(row: pd.Series, letters: Mapping[str, str], baseline: str) -> tuple[Entry, ...]:
    show = percent if row["unit"] == FRACTION else three_digits
    method = str(row["method"])
    if method in (BOOTSTRAP, STUDENT):
        method = f"{method.split(' over ', maxsplit=1)[0]}, {row['n']} {row['n_of']}"
    else:
        method = f"none ({letters[method]})" if method in letters else "none"
    texts = [
        str(row["measure"]).replace("_", " "),
        f"{row['contrast']} − {baseline}" if row["kind"] == "control" else str(row["contrast"]),
        *(signed(row[name], show) for name in ("effect", "low", "high")),
        p_value(row["p"]),
        "" if row["exploratory"] else p_value(row["p_holm"]),
        "expl." if row["exploratory"] else "",
        str(row["verdict"]) or MISSING,
        MISSING if pd.isna(row["seeds_needed"]) else integer(row["seeds_needed"]),
        method,
    ]
    return tuple(Entry(text) for text in texts)
