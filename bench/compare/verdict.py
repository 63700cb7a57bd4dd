"""The verdict of a comparison in plain sentences, each number with its source in a table."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd

from bench.analysis.budget import PHRASES
from bench.analysis.effects import HIGHER, LOWER, SMALL, UNDECIDED
from bench.analysis.error_costs import IMPRECISE
from bench.analysis.run_records import worth_of
from bench.analysis.statistics import BOOTSTRAP
from bench.compare.comparison import EQUAL, Comparison
from bench.compare.tables import chance, score
from bench.data.subsets import SIZES
from bench.evaluation.error_types import KINDS
from bench.report.citations import CitedValue, Name, Part, Sentence
from bench.report.tables.formats import formatted, integer, percent, points


def comparison_verdict(comparison: Comparison) -> list[Sentence]:
    """Which detector is better and how surely, where the best other one differs, thresholds, what intervals cover."""
    others = sorted(comparison.names[1:], key=lambda name: -float(comparison.of_ap(name)["difference"]))
    sentences = [_against_first(comparison, name, opening=place == 0) for place, name in enumerate(others)]
    sentences += [
        *_best(comparison),
        *_sizes(comparison, others[0]),
        *_classes(comparison, others[0]),
        *_errors(comparison, others[0]),
        *_thresholds(comparison),
    ]
    if (comparison.differences["method"] == BOOTSTRAP).any():
        sentences.append(
            Sentence.of(["The intervals cover other images of this kind, not training the detectors again"])
        )
    return sentences


def _against_first(comparison: Comparison, name: str, *, opening: bool) -> Sentence:
    run, reference = comparison.analysis.run, Name(comparison.reference)
    parts: list[Part] = []
    if opening:
        images = _cited(comparison.analysis.samples.resampled.images, integer, "detectors", "", "images")
        parts += ["On ", Name(str(run.plan["data"])), " (", images, " images) "]
    row = comparison.of_ap(name)
    worth = _cited(worth_of(run), percent, "differences", "", "worth")
    claims: dict[str, list[Part]] = {
        HIGHER: [Name(name), " is better than ", reference],
        LOWER: [Name(name), " is worse than ", reference],
        SMALL: [Name(name), " and ", reference, " differ by less than ", worth, " points"],
        UNDECIDED: ["it is undecided whether ", Name(name), " or ", reference, " is better"],
        EQUAL: [Name(name), " and ", reference, " have the same AP on these images and on every resample"],
        "": ["nothing can be claimed of ", Name(name), " and ", reference],
    }
    parts += [
        *claims[row["verdict"]],
        ": AP ",
        _cited(row["value"], percent, "detectors", name, "AP"),
        " against ",
        _cited(row["reference"], percent, "detectors", comparison.reference, "AP"),
        ", ",
        *_change(row),
    ]
    return Sentence.of(parts)


def _best(comparison: Comparison) -> list[Sentence]:
    """The chance of each detector to have the highest AP."""
    best = comparison.analysis.best.dropna(subset="probability_best")
    parts: list[Part] = []
    for _, row in best.iterrows():
        name = str(row["variant"])
        cited = _cited(row["probability_best"], chance, "detectors", name, "probability_best")
        parts += [", " if parts else "", Name(name), " ", cited, "%"]
    return [Sentence.of(["Chance to have the highest AP: ", *parts])] if parts else []


def _sizes(comparison: Comparison, name: str) -> list[Sentence]:
    """The sizes in which a detector differs clearly from the first."""
    found: list[list[Part]] = []
    for size in SIZES:
        row = comparison.difference(name, f"AP_{size}")
        if row is not None and row["verdict"] in (HIGHER, LOWER):
            found.append([f"{size} objects ", *_change(row)])
    if not found:
        return []
    return [Sentence.of([Name(name), " differs clearly by size: ", *_joined(found)])]


def _classes(comparison: Comparison, name: str) -> list[Sentence]:
    """In how many classes a detector differs clearly from the first, and in which the most."""
    frame = comparison.differences
    own = frame[(frame["detector"] == name) & (frame["class"] != "") & frame["low"].notna()]
    clear = own[own["verdict"].isin((HIGHER, LOWER))]
    if not len(clear):
        return []
    better, worse = (_count(own["verdict"] == verdict) for verdict in (HIGHER, LOWER))
    parts: list[Part] = [Name(name), " is clearly better in ", better, " and clearly worse in ", worse, " of "]
    parts += [_count(own["low"].notna()), " classes with enough images"]
    row = clear.iloc[int(clear["difference"].abs().to_numpy().argmax())]
    parts += [", most in ", Name(str(row["class"])), " (", _points(row, "difference"), " points)"]
    return [Sentence.of(parts)]


def _errors(comparison: Comparison, name: str) -> list[Sentence]:
    """The error whose cost differs most from that of the first detector, where its interval excludes zero."""
    frame = comparison.errors
    rows = frame[(frame["detector"] == name) & (frame["bucket"] == "") & frame["kind"].isin((IMPRECISE, *KINDS))]
    clear = rows[(rows["low"] > 0) | (rows["high"] < 0)]
    if not len(clear):
        return []
    row = clear.iloc[int(clear["difference"].abs().to_numpy().argmax())]
    words = "less" if row["difference"] < 0 else "more"
    cost, low, high = (
        _cited(abs(float(row[column])), percent, "errors", f"{row['kind']}, {name}", column)
        for column in ("difference", "low", "high")
    )
    ends = (high, low) if row["difference"] < 0 else (low, high)
    parts: list[Part] = [_capital(PHRASES[str(row["kind"])]), " cost ", Name(name), " ", cost, f" points {words} than "]
    parts += [Name(comparison.reference), " (", ends[0], " to ", ends[1], "), the largest clear change in errors"]
    return [Sentence.of(parts)]


def _thresholds(comparison: Comparison) -> list[Sentence]:
    """The score threshold with the highest F1 of each detector."""
    frame = comparison.thresholds
    rows = frame[(frame["class"] == "") & frame["threshold"].notna()]
    found: list[list[Part]] = [
        [
            _cited(row["threshold"], score, "detectors", row["detector"], "threshold"),
            " for ",
            Name(row["detector"]),
            " (F1 ",
            _cited(row["f1"], score, "detectors", row["detector"], "F1"),
            ")",
        ]
        for _, row in rows.iterrows()
    ]
    return [Sentence.of(["The score threshold with the highest F1 is ", *_joined(found)])] if found else []


def _change(row: pd.Series) -> list[Part]:
    """A difference with its interval, or why it has none."""
    parts: list[Part] = [_points(row, "difference"), " points"]
    if math.isnan(row["low"]):
        return [*parts, " (no interval: ", Name(str(row["method"]).removeprefix("none: ")), ")"]
    return [*parts, " (95% interval ", _points(row, "low"), " to ", _points(row, "high"), ")"]


def _points(row: pd.Series, column: str) -> CitedValue:
    table = "per_class" if row["class"] else "differences"
    key = str(row["class"]) if row["class"] else f"{str(row['measure']).replace('_', ' ')}, {row['detector']}"
    return _cited(row[column], points, table, key, column)


def _count(rows: pd.Series) -> CitedValue:
    return _cited(float(rows.sum()), integer, "per_class", "", "verdict")


def _cited(value: float, show: Callable[[float], str], table: str, row: str, column: str) -> CitedValue:
    return CitedValue(text=formatted(value, show), value=float(value), table=table, row=row, column=column)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _joined(items: list[list[Part]]) -> list[Part]:
    """Items divided by commas and a final "and"."""
    parts: list[Part] = []
    for place, item in enumerate(items):
        parts += ["" if not place else " and " if place == len(items) - 1 else ", ", *item]
    return parts
