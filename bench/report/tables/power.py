"""The table of power: what the finished seeds find, and what a difference worth having needs."""

from __future__ import annotations

import math

import pandas as pd

from bench.analysis.power import power_frame
from bench.analysis.results import Analysis
from bench.report.notes import subject
from bench.report.tables.formats import MISSING, integer, percent
from bench.report.tables.typeset import Entry, Heading, Table, with_integers

INTEGERS = ("tests", "seeds", "seeds_needed", "seeds_needed_here", "images", "images_needed", "measured")

NEEDED = ("seeds_needed", "seeds_needed_here", "images_needed")


def power_table(analysis: Analysis) -> Table:
    """The result of `bench.analysis.power.power_frame`."""
    frame = power_frame(analysis.run, analysis.samples)
    assumed = len(frame) > 0 and not frame["measured"].any()
    return Table(
        name="power",
        caption=f"Power of {subject(analysis.run)}, in percentage points of AP: the smallest true difference found "
        "with 80% power after correction for all tests of the family; what a difference of --worth needs: seeds with "
        "these images, seeds for a claim about these images only, and validation images with ten seeds.",
        frame=with_integers(frame.replace(math.inf, math.nan), INTEGERS),
        headings=(
            Heading(name="comparison", text="comparison", left=True),
            Heading(name="tests", text="tests"),
            Heading(name="seeds", text="seeds"),
            Heading(name="smallest_difference", text="smallest\ndifference"),
            Heading(name="worth", text="worth\nhaving"),
            Heading(name="seeds_needed", text="seeds\nneeded"),
            Heading(name="seeds_needed_here", text="for these\nimages only"),
            Heading(name="images_needed", text="images\nneeded"),
        ),
        rows=tuple(_entries(row) for _, row in frame.iterrows()),
        notes=(
            ("One seed does not show how AP varies between trainings: a deviation of 0.7 points is assumed.",)
            if assumed
            else ()
        ),
    )


def _entries(row: pd.Series) -> tuple[Entry, ...]:
    difference = float(row["smallest_difference"])
    texts = (
        str(row["comparison"]),
        integer(row["tests"]),
        integer(row["seeds"]),
        MISSING if math.isinf(difference) else percent(difference),
        percent(row["worth"]),
        *(MISSING if pd.isna(row[name]) else integer(row[name]) for name in NEEDED),
    )
    return tuple(Entry(text) for text in texts)
