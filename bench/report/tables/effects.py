"""The table of effects, with notes on what its intervals cover."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from bench.analysis.bootstrap import SUPPORTED, weak_classes_note
from bench.analysis.effects import BY_SIZE, DIVERGED
from bench.analysis.results import Analysis
from bench.analysis.run_records import repeated_looks, worth_of
from bench.analysis.statistics import BOOTSTRAP, JOINT, STUDENT
from bench.report.notes import subject, unfinished_cells
from bench.report.tables.formats import MISSING, p_value, percent, signed
from bench.report.tables.typeset import Entry, Heading, Table, with_integers

INTEGERS = ("seeds", "images", "exploratory")
METHODS = (BOOTSTRAP, JOINT, STUDENT)
SHOWN = ("AP", "AP50", "AP75", *BY_SIZE, SUPPORTED[0])


def effects_table(analysis: Analysis) -> Table:
    """The result of `bench.analysis.effects.effects_frame`; the CSV adds single classes, and arms by other metrics."""
    run, effects = analysis.run, analysis.effects
    printed = _printed(effects)
    reasons = dict.fromkeys(method for method in printed["method"] if method not in METHODS)
    letters = dict(zip(reasons, "abcdefghijklmnopqrstuvwxyz", strict=False))
    return Table(
        name="effects",
        caption=f"Effects on {subject(run)}, in percentage points of AP: an arm or control minus the baseline; an "
        "axis: mean of the variants with it minus mean of those without; two axes (×): half the difference between the "
        "effect of one with and without the other. 95% intervals; those of arms hold for all arms together, those of "
        "sizes for all sizes. p: adjusted by max-T (arms; main effects by size), Holm (main effects; interactions) or "
        "Benjamini and Hochberg (all other rows, which are exploratory). Error: the parts of the standard error from "
        "training and from the choice of validation images. Definitions and evidence: docs/statistics.md.",
        frame=with_integers(effects, INTEGERS),
        headings=(
            Heading(name="measure", text="metric", left=True),
            Heading(name="contrast", text="contrast", left=True),
            Heading(name="effect", text="effect", group="effect"),
            Heading(name="low", text="95%\nfrom", group="effect"),
            Heading(name="high", text="\nto", group="effect"),
            Heading(name="p_adjusted", text="p\nadjusted", group="p"),
            Heading(name="adjusted_by", text="by", left=True, group="p"),
            Heading(name="verdict", text="verdict", left=True, group="words"),
            Heading(name="error_training", text="error\ntraining", group="error"),
            Heading(name="error_images", text="\nimages", group="error"),
            Heading(name="method", text="interval from", left=True, group="method"),
        ),
        rows=tuple(_entries(row, letters) for _, row in printed.iterrows()),
        notes=(
            *remarks(analysis),
            *(f"({letter}) No interval: {reason.removeprefix('none: ')}." for reason, letter in letters.items()),
            *unfinished_cells(run),
        ),
        keys=2,
    )


def remarks(analysis: Analysis) -> tuple[str, ...]:
    """What the intervals cover, what they leave out, and what weakens them."""
    run, effects = analysis.run, analysis.effects
    methods = set(effects["method"])
    notes = []
    if BOOTSTRAP in methods:
        notes.append("One seed: intervals cover these trained models on other images of this kind, not training again.")
    if JOINT in methods:
        notes.append("Intervals cover training again on this data and other images of this kind.")
    if STUDENT in methods:
        notes.append("Without matches.npz, intervals cover training again, scored on these images.")
    if methods & set(METHODS):
        notes.append(f"No effect worth having: the whole interval is within {percent(worth_of(run))} points of zero.")
    if (effects["verdict"] == DIVERGED).any():
        notes.append(
            "A variant that diverged in some seeds is judged by the others alone, so no gain or equivalence is claimed."
        )
    if repeated_looks(run):
        notes.append("This run was extended or merged: intervals are not corrected for repeated looks.")
    warning = weak_classes_note(*analysis.samples.resampled.weak_classes)
    return (*notes, *([warning] if warning else []))


def _printed(effects: pd.DataFrame) -> pd.DataFrame:
    """AP of all contrasts, and the other metrics of all classes without arms and simple effects."""
    whole = effects[(effects["class"] == "") & effects["measure"].isin(SHOWN)]
    of_ap = whole["measure"] == "AP"
    # If cells are missing, say so for AP only instead of repeating it for every metric.
    return whole[of_ap | (whole["effect"].notna() & ~whole["kind"].isin(("arm", "simple effect")))]


def _entries(row: pd.Series, letters: Mapping[str, str]) -> tuple[Entry, ...]:
    method = str(row["method"])
    if method in METHODS:
        counts = [] if method == BOOTSTRAP else [f"{row['seeds']} seeds"]
        counts += [] if method == STUDENT else [f"{row['images']} images"]
        method = ", ".join(counts)
    else:
        method = f"none ({letters[method]})" if method in letters else "none"
    texts = [
        str(row["measure"]).replace("_", " "),
        str(row["contrast"]),
        *(signed(row[name], percent) for name in ("effect", "low", "high")),
        p_value(row["p_adjusted"]),
        str(row["adjusted_by"]) or MISSING,
        str(row["verdict"]) or MISSING,
        *(MISSING if pd.isna(row[name]) else percent(row[name]) for name in ("error_training", "error_images")),
        method,
    ]
    return tuple(Entry(text) for text in texts)
