"""The table of effects, and what is to be said of them in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pandas as pd

from bench.analysis.effects import NO_CLAIM
from bench.analysis.run_records import Run
from bench.analysis.statistics import BOOTSTRAP, MAX_SEEDS, STUDENT
from bench.report.sentences import subject, unfinished
from bench.report.tables.columns import three_digits, whole
from bench.report.tables.typeset import MISSING, Entry, Heading, Table, with_integers
from bench.spec import BASELINE

INTEGERS = ("n", "seeds_needed")


def effects_table(run: Run, effects: pd.DataFrame) -> Table:
    """What `bench.analysis.effects.effects_frame` gives, in print without the rows of single classes."""
    frame = with_integers(effects, INTEGERS)
    frame["exploratory"] = frame["exploratory"].astype(int)
    # Where cells are missing the rows of AP say so, and the others would only repeat it.
    printed = effects[(effects["class"] == "") & (effects["effect"].notna() | (effects["measure"] == "AP"))]
    reasons = dict.fromkeys(method for method in printed["method"] if method not in (BOOTSTRAP, STUDENT))
    letters = dict(zip(reasons, "abcdefghijklmnopqrstuvwxyz", strict=False))
    return Table(
        name="effects",
        caption=f"Effects on {subject(run)}: mean of the variants with an axis minus mean of those without; of two "
        "axes (×), half the difference between one's effect with the other and without it. 95% intervals. AP in "
        "points (1/100). p Holm: adjusted for all main effects on AP; every other row is exploratory (expl.), its p "
        "for itself alone. Definitions and evidence: docs/statistics.md.",
        frame=frame,
        headings=(
            Heading(name="measure", text="figure", left=True),
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
            *unfinished(run),
        ),
        keys=2,
    )


def remarks(effects: pd.DataFrame) -> tuple[str, ...]:
    """What the intervals of the main effects of AP speak of, and how many seeds would tell more."""
    primary = effects[~effects["exploratory"].astype(bool)]
    said = []
    if (primary["method"] == BOOTSTRAP).any():
        said.append(
            "One seed: the intervals are over images and speak of these trained models alone. Trained again, "
            "models differ by chance as well: what a remedy does, and how many seeds would show it, takes several "
            "seeds (--seeds 3)."
        )
    for _, row in primary[(primary["method"] == STUDENT) & (primary["verdict"] == NO_CLAIM)].iterrows():
        needed = row["seeds_needed"]
        count = f"more than {MAX_SEEDS}" if pd.isna(needed) else f"about {needed:.0f}"
        # Holm may ask for more than one test alone would.
        enough = (
            "" if pd.isna(needed) or needed > row["n"] else " in a test of it alone, but not among all main effects"
        )
        said.append(
            f"{row['contrast']}: {row['n']} seeds are too few to tell. A difference of the size seen "
            f"({points(row['effect'])} points of AP) would need {count} seeds{enough}, if they spread as these do "
            "(80% power at 5%)."
        )
    return tuple(said)


def points(fraction: float) -> str:
    """A difference of AP in points, with its sign."""
    return signed(fraction, lambda value: f"{100 * value:.1f}")


def _entries(row: pd.Series, letters: Mapping[str, str], baseline: str) -> tuple[Entry, ...]:
    clock = row["unit"] != "fraction of 1"
    show = three_digits if clock else (lambda value: f"{100 * value:.1f}")
    figure = str(row["measure"]).replace("_", " ")
    numbers = [signed(row[name], show) for name in ("effect", "low", "high")]
    method = str(row["method"])
    if method in (BOOTSTRAP, STUDENT):
        method = f"{method.split(' over ', maxsplit=1)[0]}, {row['n']} {row['n_of']}"
    else:
        method = f"none ({letters[method]})" if method in letters else "none"
    texts = [
        figure,
        f"{row['contrast']} − {baseline}" if row["kind"] == "control" else str(row["contrast"]),
        *numbers,
        probability(row["p"]),
        "" if row["exploratory"] else probability(row["p_holm"]),
        "expl." if row["exploratory"] else "",
        str(row["verdict"]) or MISSING,
        MISSING if pd.isna(row["seeds_needed"]) else whole(row["seeds_needed"]),
        method,
    ]
    return tuple(Entry(text) for text in texts)


def signed(value: float, show: Callable[[float], str]) -> str:
    """A difference with its sign, printed by `show`; one that prints as zero has none."""
    if math.isnan(value):
        return MISSING
    text = show(abs(value))
    if not text.strip("0."):
        return text
    return ("−" if value < 0 else "+") + text


def probability(p: float) -> str:
    """A p value in print."""
    if math.isnan(p):
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"
