"""The verdict of a run: a few sentences, with the source table and cell of every number in them.

A sentence consists of words, names from the run, and values cited from tables. Words contain no numbers (except the
95% of intervals), so every number has a source. A sentence calls AP "higher" or "lower" only for an effect whose
interval, and adjusted p value if there is one, exclude zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.effects import FRACTION, NO_CLAIM, THESE_MODELS
from bench.analysis.results import Analysis
from bench.analysis.run_records import Run
from bench.analysis.statistics import LEVEL, STUDENT
from bench.data.subsets import SIZES
from bench.evaluation.error_types import KINDS
from bench.report.citations import CitedValue, Name, Part, Sentence
from bench.report.notes import one_line
from bench.report.tables.ablation import ablation_table
from bench.report.tables.columns import COLUMNS
from bench.report.tables.formats import integer, is_missing, p_value, percent, signed, three_digits
from bench.report.tables.typeset import escape_markdown
from bench.storage.atomic import write_text

# What to look at next, by the size with the lowest AP.
SIZE_HINTS = {
    "small": "next, try more input pixels per object (tiles, a larger input)",
    **dict.fromkeys(("medium", "large"), "next, check the plot of priors and ground truths and the learning curves"),
}
# Where to look, by the costliest error type. Not what would help, because that was not measured.
ERROR_HINTS = {
    "classification": "objects are found but misclassified: check the confusion matrix and the labels",
    "localisation": "objects are found but poorly localised: check AP against the IoU threshold",
    "both": "boxes have the wrong class and the wrong position: check the learning curves",
    "duplicate": "objects are detected more than once: check the threshold of non-maximum suppression",
    "background": "detections lie where nothing is annotated: check for missing annotations",
    "missed": "objects are not found at all: check their sizes and the plot of priors and ground truths",
}
FEW_OBJECTS = 30  # below this, a single object changes recall by more than three points


def verdict(analysis: Analysis) -> list[Sentence]:
    """Unfinished cells, best variant, effects on AP, cost, Pareto front, errors, sizes, seeds."""
    run, effects = analysis.run, analysis.effects
    rows = _Rows(frame=ablation_table(run).frame.set_index("variant"))
    best = rows.best()
    if best is None:
        return [_state(run)]
    sentences = [] if all(run.status(cell) == "done" for cell in run.cells) else [_state(run)]
    on_ap = effects[(effects["measure"] == "AP") & (effects["class"] == "")]
    main = on_ap[on_ap["kind"] == "main effect"]
    sentences += _best_variant(run, rows, best)
    sentences += _main_effects(main)
    sentences += _further_effects(on_ap[on_ap["kind"] != "main effect"])
    sentences += _cost(run, rows, effects)
    sentences += _pareto(rows)
    sentences += _costliest_errors(analysis.errors, best)
    sentences += _weakest_size(rows, best)
    sentences += _seeds(run, main)
    return sentences


def write_verdict(sentences: Sequence[Sentence], folder: Path) -> Path:
    """Write ``verdict.md`` to `folder`: the sentences, then the source of each number."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{number}. {escape_markdown(sentence.text)}" for number, sentence in enumerate(sentences, 1)]
    lines += ["", "| sentence | value | source |", "| ---: | ---: | :--- |"]
    lines += [
        f"| {number} | {escape_markdown(cited.text)} | {escape_markdown(cited.source)} |"
        for number, sentence in enumerate(sentences, 1)
        for cited in sentence.citations
    ]
    path = folder / "verdict.md"
    write_text(path, "\n".join(lines) + "\n")
    return path


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """The ablation table. frame: indexed by variant."""

    frame: pd.DataFrame

    def has(self, variant: str | None, *columns: str) -> bool:
        return variant in self.frame.index and not any(is_missing(self.value(str(variant), name)) for name in columns)

    def value(self, variant: str, column: str) -> Any:
        return self.frame.loc[variant, column]

    def cite(self, variant: str, column: str) -> CitedValue:
        value = float(self.value(variant, column))
        text = COLUMNS[column].show(value) + ("%" if column.startswith("AP") else "")
        return CitedValue(text=text, value=value, table="ablation", row=variant, column=column)

    def numbers(self, column: str) -> pd.Series:
        """A column as floats in table order, without missing values."""
        return pd.to_numeric(self.frame[column]).dropna()

    def best(self) -> str | None:
        aps = self.numbers("AP")
        return None if aps.empty else str(aps.idxmax())


def _state(run: Run) -> Sentence:
    states = [run.status(cell) for cell in run.cells]
    parts: list[Part] = [_count(states.count("done"), "seeds"), " of ", _count(len(states), "seeds"), " cells are done"]
    failures = list(run.failures())
    if failures:
        cell, failure = failures[0]
        parts += [", ", _count(len(failures), "status"), " failed (", Name(cell.variant), ": "]
        parts += [
            Name(one_line(failure.get("cause"))),
            "; the tables list the others" if failures[1:] else "",
            ")",
        ]
    if "pending" in states:
        parts += [", ", _count(states.count("pending"), "status"), " pending"]
    if "done" not in states:
        parts.append("; no results yet")
    return Sentence.of(parts)


def _best_variant(run: Run, rows: _Rows, best: str) -> list[Sentence]:
    if len(rows.numbers("AP")) < 2:
        alone = "; there is nothing to compare it with"
        return [Sentence.of([Name(best), " has an AP of ", rows.cite(best, "AP"), alone])]
    if best == run.baseline:
        return [Sentence.of(["The baseline itself has the highest measured AP, ", rows.cite(best, "AP")])]
    parts: list[Part] = ["The highest measured AP is that of ", Name(best), ", ", rows.cite(best, "AP")]
    if run.baseline is not None and rows.has(run.baseline, "AP"):
        parts += ["; the baseline has ", rows.cite(run.baseline, "AP")]
    return [Sentence.of([*parts, " (the maximum of several variants is biased upward: judge by the effects)"])]


def _main_effects(main: pd.DataFrame) -> list[Sentence]:
    """One sentence per axis with a clear effect, and one for all others."""
    clear = [row for _, row in main.iterrows() if _is_clear(row)]
    unclear = [row for _, row in main.iterrows() if not _is_clear(row)]
    sentences = []
    for row in clear:
        contrast, direction = Name(str(row["contrast"])), _direction(row)
        comparison = " than without it, averaged over the other axes: "
        sentences.append(
            Sentence.of([_scope(row), ", AP is ", direction, " with ", contrast, comparison, *_interval(row)])
        )
    if unclear:
        measured = [row for row in unclear if not pd.isna(row["effect"])]
        items = [[Name(str(row["contrast"])), " ", *_not_clear(row)] for row in measured]
        absences = [(str(row["contrast"]), str(row["method"])) for row in unclear if pd.isna(row["effect"])]
        for reason in dict.fromkeys(method for _, method in absences):
            names = ", ".join(contrast for contrast, method in absences if method == reason)
            items.append([Name(names), " (", Name(reason.removeprefix("none: ")), ")"])
        sentences.append(Sentence.of(["Inconclusive: ", *_joined(items)]))
    return sentences


def _not_clear(row: pd.Series) -> list[Part]:
    if pd.isna(row["low"]):
        return [_effect(row, "effect"), " points (no interval: ", Name(str(row["method"]).removeprefix("none: ")), ")"]
    interval = _interval(row)
    return interval if row["p"] >= LEVEL else [*interval, ", not significant after adjusting for all main effects"]


def _further_effects(rows: pd.DataFrame) -> list[Sentence]:
    """Clear interactions and controls."""
    sentences = []
    for kind, words in (
        ("interaction", ", these axes interact in their effect on AP (exploratory, unadjusted intervals): "),
        ("control", ", AP differs from the baseline in these controls (exploratory, unadjusted intervals): "),
    ):
        clear = [row for _, row in rows[rows["kind"] == kind].iterrows() if _is_clear(row)]
        if not clear:
            continue
        scope = next((_scope(row) for row in clear if str(row["verdict"]).startswith(THESE_MODELS)), _scope(clear[0]))
        sentences.append(Sentence.of([scope, words, *_joined([_further(row) for row in clear])]))
    return sentences


def _scope(row: pd.Series) -> str:
    """What the effect is claimed for: one seed covers these models only."""
    return "In these trained models" if str(row["verdict"]).startswith(THESE_MODELS) else "On this dataset"


def _further(row: pd.Series) -> list[Part]:
    opening: list[Part] = [_direction(row), " with "] if row["kind"] == "control" else []
    return [*opening, Name(str(row["contrast"])), " ", *_interval(row)]


def _cost(run: Run, rows: _Rows, effects: pd.DataFrame) -> list[Sentence]:
    """Speed, parameters and training time of each axis alone and of the baseline; clear effects of several seeds."""
    needed = ("images_per_second", "parameters_M", "train_seconds")
    baseline = run.baseline
    alone = [cell.variant for cell in run.cells if cell.control is None and [*cell.factors.values()].count(True) == 1]
    alone = [variant for variant in dict.fromkeys(alone) if rows.has(variant, *needed)]
    if baseline is None or not alone or not rows.has(baseline, *needed):
        return []
    listed = _joined([[Name(variant), " ", *_costs_of(rows, variant)] for variant in alone])
    parts: list[Part] = [
        "Speed, size and training time with each axis alone: ",
        *listed,
        "; baseline ",
        *_costs_of(rows, baseline),
    ]
    timed = effects[(effects["unit"] != FRACTION) & (effects["kind"] == "main effect")]
    if (timed["method"] != STUDENT).all():
        parts.append("; times were measured once and have no interval")
    sentences = [Sentence.of(parts)]
    clear = [row for _, row in timed.iterrows() if _is_clear(row)]
    if clear:
        listed = _joined([_timed_effect(row) for row in clear])
        sentences.append(Sentence.of(["Clear effects on speed and training time (exploratory): ", *listed]))
    return sentences


def _costs_of(rows: _Rows, variant: str) -> list[Part]:
    speed, size, seconds = (rows.cite(variant, name) for name in ("images_per_second", "parameters_M", "train_seconds"))
    return [speed, " images/s, ", size, " M parameters, ", seconds, " s of training"]


def _timed_effect(row: pd.Series) -> list[Part]:
    unit = {"images_per_second": "images/s", "train_seconds": "s of training"}[str(row["measure"])]
    numbers = [_effect(row, name) for name in ("effect", "low", "high")]
    opening: list[Part] = [_direction(row), " with ", Name(str(row["contrast"])), ", ", numbers[0], f" {unit}"]
    return [*opening, " (95% interval ", numbers[1], " to ", numbers[2], ")"]


def _pareto(rows: _Rows) -> list[Sentence]:
    """The variants that no other beats in AP and median latency together, fastest first."""
    values = pd.DataFrame({name: rows.numbers(name) for name in ("latency_p50_ms", "AP")}).dropna()
    if len(values) < 2:
        return []
    # Fastest first, ties by AP: a variant is on the front if its AP exceeds that of all before it.
    ordered = values.sort_values(["latency_p50_ms", "AP"], ascending=[True, False], kind="stable")
    beaten = ordered["AP"].le(ordered["AP"].cummax().shift())
    listed = _joined(
        [
            [Name(variant), " (", rows.cite(variant, "latency_p50_ms"), " ms, AP ", rows.cite(variant, "AP"), ")"]
            for variant in map(str, ordered.index[~beaten])
        ]
    )
    opening = "No variant beats these in both AP and median latency (batch size one), fastest first; choose the last "
    return [Sentence.of([opening, "one within your latency budget: ", *listed])]


def _costliest_errors(errors: pd.DataFrame, best: str) -> list[Sentence]:
    """The two costliest error types of the best variant, if its error types are known."""
    rows = errors[(errors["variant"] == best) & (errors["scope"] == "all") & errors["kind"].isin(KINDS)]
    rows = rows[rows["dAP50"] > 0].nlargest(2, "dAP50")
    if rows.empty:
        return []
    listed = _joined([[Name(str(row["kind"])), " ", *_cost_of_errors(row)] for _, row in rows.iterrows()])
    hint = ERROR_HINTS[str(rows["kind"].iloc[0])]
    opening = ", by the AP50 that fixing only that type would recover: "
    return [Sentence.of(["Costliest error types of ", Name(best), opening, *listed, f"; {hint}"])]


def _cost_of_errors(row: pd.Series) -> list[Part]:
    def cite(column: str, show: Callable[[float], str]) -> CitedValue:
        value = float(row[column])
        key = f"{row['variant']}, {row['kind']}"
        return CitedValue(text=show(value), value=value, table="errors", row=key, column=column)

    return [cite("dAP50", percent), " points (", cite("count", integer), " errors)"]


def _weakest_size(rows: _Rows, best: str) -> list[Sentence]:
    sizes = [size for size in SIZES if rows.has(best, f"AP_{size}", f"ground_truths_{size}")]
    if len(sizes) < 2:
        return []
    weakest = min(sizes, key=lambda size: float(rows.value(best, f"AP_{size}")))
    parts: list[Part] = [Name(best), f" has its lowest AP on {weakest} objects ("]
    for place, size in enumerate(sorted(sizes, key=lambda size: size != weakest)):
        parts += [f", {size}: " if place else f"{size}: "]
        parts += [rows.cite(best, f"AP_{size}"), " on ", rows.cite(best, f"ground_truths_{size}"), " ground truths"]
    few = rows.value(best, f"ground_truths_{weakest}") < FEW_OBJECTS
    return [Sentence.of([*parts, "); ", "too few objects to say much" if few else SIZE_HINTS[weakest]])]


def _seeds(run: Run, main: pd.DataFrame) -> list[Sentence]:
    """What the seeds cannot show, and how many seeds could."""
    if main.empty:
        return []
    if len(run.seeds) == 1:
        return [
            Sentence.of(
                [
                    "One seed cannot show how much results vary between trainings. Train with three or more (--seeds) "
                    "to estimate this and the seeds needed"
                ]
            )
        ]
    unclear = main[(main["method"] == STUDENT) & (main["verdict"] == NO_CLAIM)]
    if unclear.empty:
        return []
    listed = _joined([[Name(str(row["contrast"])), " ", *_seeds_of(row)] for _, row in unclear.iterrows()])
    return [Sentence.of(["Seeds needed to detect the observed difference in four of five runs: ", *listed])]


def _seeds_of(row: pd.Series) -> list[Part]:
    if pd.isna(row["seeds_needed"]):
        return ["more than a thousand (trained: ", _effect(row, "n"), ")"]
    return [_effect(row, "seeds_needed"), " (trained: ", _effect(row, "n"), ")"]


def _is_clear(row: pd.Series) -> bool:
    """Whether the effect may be called higher or lower: its verdict says so and its interval agrees."""
    return _direction(row) != "" and str(row["verdict"]).removeprefix(THESE_MODELS) == _direction(row)


def _direction(row: pd.Series) -> str:
    """The side of zero on which the whole interval lies."""
    return "higher" if row["low"] > 0 else "lower" if row["high"] < 0 else ""


def _interval(row: pd.Series) -> list[Part]:
    numbers = [_effect(row, name) for name in ("effect", "low", "high")]
    parts: list[Part] = [numbers[0], " points (95% interval ", numbers[1], " to ", numbers[2]]
    parts += [", ", _effect(row, "n"), f" {row['n_of']}"]
    if not pd.isna(row["p_holm"]):
        parts += [", Holm-adjusted p ", _effect(row, "p_holm")]
    return [*parts, ")"]


def _effect(row: pd.Series, column: str) -> CitedValue:
    """A value from the table of effects."""
    difference: Callable[[float], str] = partial(signed, show=percent if row["unit"] == FRACTION else three_digits)
    show = {"n": integer, "seeds_needed": integer, "p_holm": p_value}.get(column, difference)
    value = float(row[column])
    return CitedValue(
        text=show(value), value=value, table="effects", row=f"{row['measure']}, {row['contrast']}", column=column
    )


def _count(number: int, column: str) -> CitedValue:
    return CitedValue(text=str(number), value=number, table="ablation", row="", column=column)


def _joined(items: Sequence[Sequence[Part]]) -> list[Part]:
    """Join the items with semicolons."""
    return [part for place, item in enumerate(items) for part in (*(["; "] if place else []), *item)]
