"""The verdict of a run: a few sentences, and for each figure in them the table and the cell that it stands in.

A sentence is put together from plain words, names that the run brought along, and figures cited from tables.
The words hold no number (but for the 95% of the intervals), so no figure can be said that no table has. That AP is
"higher" or "lower" is said of an effect alone whose interval, and adjusted p where there is one, leave zero out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.effects import NO_CLAIM, THESE_MODELS
from bench.analysis.results import Analysis
from bench.analysis.run_records import Run
from bench.analysis.statistics import LEVEL, STUDENT
from bench.data.subsets import SIZES
from bench.evaluation.error_types import KINDS
from bench.report.sentences import one_line
from bench.report.tables.ablation import ablation
from bench.report.tables.columns import COLUMNS, per_cent, three_digits, whole
from bench.report.tables.effects import probability, signed
from bench.report.tables.entries import absent
from bench.report.tables.typeset import escape_markdown
from bench.storage.atomic import write_text

SECOND_LOOK = {
    "small": "what could be tried next is more input pixels for each object (tiles, a larger input)",
    "medium": "what to look at next is the plot of priors over ground truths and the learning curves",
    "large": "what to look at next is the plot of priors over ground truths and the learning curves",
}
# By the type of error that costs most. What is said is where to look, not what would help: that is not measured.
MENDING = {
    "classification": "objects are found and called by other names: see the confusion matrix and the labels",
    "localisation": "objects are found and boxed badly: see AP against the IoU threshold",
    "both": "boxes are neither named nor placed well: see the learning curves",
    "duplicate": "objects are boxed twice: see the threshold of non-maximum suppression",
    "background": "boxes stand where nothing is annotated: see whether objects lack their annotation",
    "missed": "objects are not found at all: see which sizes they have, and the priors over ground truths",
}
FEW_OBJECTS = 30  # of a size: below, a single object moves the recall by more than three points


@dataclass(frozen=True, kw_only=True)
class Cited:
    """A figure of a table. row: its key, of "effects" figure and contrast; "" where it is counted over the column."""

    text: str
    value: float
    table: str
    row: str
    column: str

    @property
    def source(self) -> str:
        return f"{self.table}: {', '.join(part for part in (self.row, self.column) if part)}"


@dataclass(frozen=True)
class Name:
    """Of a variant, an axis or a cause: the user's word, which may have digits in it."""

    text: str


Part = str | Name | Cited


@dataclass(frozen=True)
class Sentence:
    """What the run has shown, in words, names and cited figures."""

    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def figures(self) -> tuple[Cited, ...]:
        return tuple(part for part in self.parts if isinstance(part, Cited))


def verdict(analysis: Analysis) -> list[Sentence]:
    """What is missing, the best row, effects on AP, cost, Pareto set, errors, sizes, seeds."""
    run, effects = analysis.run, analysis.effects
    rows = _Rows(frame=ablation(run).frame.set_index("variant"))
    best = rows.best()
    if best is None:
        return [_state(run)]
    said = [] if all(run.status(cell) == "done" for cell in run.cells) else [_state(run)]
    on_ap = effects[(effects["measure"] == "AP") & (effects["class"] == "")]
    main = on_ap[on_ap["kind"] == "main effect"]
    said += _best_row(run, rows, best)
    said += _main_effects(main)
    said += _further_effects(on_ap[on_ap["kind"] != "main effect"])
    said += _cost(run, rows, effects)
    said += _pareto(rows)
    said += _costliest_errors(analysis.errors, best)
    said += _weakest_size(rows, best)
    said += _seeds(run, main)
    return said


def write_verdict(sentences: Sequence[Sentence], folder: Path) -> Path:
    """``verdict.md`` in `folder`: the sentences, and beneath them where each figure stands."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{number}. {escape_markdown(sentence.text)}" for number, sentence in enumerate(sentences, 1)]
    lines += ["", "| sentence | figure | where it stands |", "| ---: | ---: | :--- |"]
    lines += [
        f"| {number} | {escape_markdown(figure.text)} | {escape_markdown(figure.source)} |"
        for number, sentence in enumerate(sentences, 1)
        for figure in sentence.figures
    ]
    path = folder / "verdict.md"
    write_text(path, "\n".join(lines) + "\n")
    return path


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """The ablation table. frame: by variant."""

    frame: pd.DataFrame

    def has(self, variant: str | None, *columns: str) -> bool:
        return variant in self.frame.index and not any(absent(self.value(str(variant), name)) for name in columns)

    def value(self, variant: str, column: str) -> Any:
        return self.frame.loc[variant, column]

    def cite(self, variant: str, column: str) -> Cited:
        value = float(self.value(variant, column))
        text = COLUMNS[column].show(value) + ("%" if column.startswith("AP") else "")
        return Cited(text=text, value=value, table="ablation", row=variant, column=column)

    def numbers(self, column: str) -> pd.Series:
        """A column as floats, in the order of the table, without rows that have none."""
        return pd.to_numeric(self.frame[column]).dropna()

    def best(self) -> str | None:
        found = self.numbers("AP")
        return None if found.empty else str(found.idxmax())


def _state(run: Run) -> Sentence:
    states = [run.status(cell) for cell in run.cells]
    parts: list[Part] = [_count(states.count("done"), "seeds"), " of ", _count(len(states), "seeds"), " cells are done"]
    failures = list(run.failures())
    if failures:
        cell, failure = failures[0]
        parts += [", ", _count(len(failures), "status"), " failed (", Name(cell.variant), ": "]
        parts += [
            Name(one_line(failure.get("cause"))),
            "; the others stand beneath the tables" if failures[1:] else "",
            ")",
        ]
    if "pending" in states:
        parts += [", ", _count(states.count("pending"), "status"), " pending"]
    if "done" not in states:
        parts.append("; nothing can be said yet")
    return _sentence(parts)


def _best_row(run: Run, rows: _Rows, best: str) -> list[Sentence]:
    if len(rows.numbers("AP")) < 2:
        return [_sentence([Name(best), " has an AP of ", rows.cite(best, "AP"), ", with nothing to compare it with"])]
    if best == run.baseline:
        return [_sentence(["The highest AP measured is that of the baseline itself, ", rows.cite(best, "AP")])]
    parts: list[Part] = ["The highest AP measured is that of ", Name(best), ", ", rows.cite(best, "AP")]
    if run.baseline is not None and rows.has(run.baseline, "AP"):
        parts += ["; the baseline has ", rows.cite(run.baseline, "AP")]
    return [_sentence([*parts, " (the best of several rows is in part the luckiest: judge by the effects)"])]


def _main_effects(main: pd.DataFrame) -> list[Sentence]:
    """A sentence for each axis with a clear effect, and one for all others."""
    clear = [row for _, row in main.iterrows() if _is_clear(row)]
    unclear = [row for _, row in main.iterrows() if not _is_clear(row)]
    said = []
    for row in clear:
        contrast, direction = Name(str(row["contrast"])), _direction(row)
        opening: list[Part] = (
            ["These trained models have a ", direction, " AP with ", contrast]
            if str(row["verdict"]).startswith(THESE_MODELS)
            else ["On this data AP is ", direction, " with ", contrast]
        )
        middle: list[Part] = [" than without it, averaged over the other axes: ", *_interval(row)]
        said.append(_sentence([*opening, *middle]))
    if unclear:
        measured = [row for row in unclear if not pd.isna(row["effect"])]
        items = [[Name(str(row["contrast"])), " ", *_not_clear(row)] for row in measured]
        absences = [(str(row["contrast"]), str(row["method"])) for row in unclear if pd.isna(row["effect"])]
        for reason in dict.fromkeys(method for _, method in absences):
            names = ", ".join(contrast for contrast, method in absences if method == reason)
            items.append([Name(names), " (", Name(reason.removeprefix("none: ")), ")"])
        said.append(_sentence(["Not clear, so no claim: ", *_joined(items)]))
    return said


def _not_clear(row: pd.Series) -> list[Part]:
    if pd.isna(row["low"]):
        return [_effect(row, "effect"), " points (no interval: ", Name(str(row["method"]).removeprefix("none: ")), ")"]
    interval = _interval(row)
    return interval if row["p"] >= LEVEL else [*interval, ", which is not enough among all main effects"]


def _further_effects(rows: pd.DataFrame) -> list[Sentence]:
    """Interactions and controls, where they are clear."""
    said = []
    for kind, words in (
        ("interaction", ", effects on AP depend on each other (exploratory, each interval for itself): "),
        ("control", ", controls differ from the baseline (exploratory, each interval for itself): AP "),
    ):
        clear = [row for _, row in rows[rows["kind"] == kind].iterrows() if _is_clear(row)]
        if not clear:
            continue
        alone = any(str(row["verdict"]).startswith(THESE_MODELS) for row in clear)
        listed = _joined([_further(row) for row in clear])
        said.append(_sentence(["In these trained models" if alone else "On this data", words, *listed]))
    return said


def _further(row: pd.Series) -> list[Part]:
    opening: list[Part] = [_direction(row), " with "] if row["kind"] == "control" else []
    return [*opening, Name(str(row["contrast"])), " ", *_interval(row)]


def _cost(run: Run, rows: _Rows, effects: pd.DataFrame) -> list[Sentence]:
    """Speed, parameters and training time of each axis alone beside the baseline's; clear effects of several seeds."""
    needed = ("images_per_second", "parameters_M", "train_seconds")
    baseline = run.baseline
    alone = [cell.variant for cell in run.cells if cell.control is None and [*cell.factors.values()].count(True) == 1]
    alone = [variant for variant in dict.fromkeys(alone) if rows.has(variant, *needed)]
    if baseline is None or not alone or not rows.has(baseline, *needed):
        return []
    listed = _joined([[Name(variant), " ", *_costs_of(rows, variant)] for variant in alone])
    parts: list[Part] = ["Cost as measured, each axis alone: ", *listed, "; baseline ", *_costs_of(rows, baseline)]
    clock = effects[(effects["unit"] != "fraction of 1") & (effects["kind"] == "main effect")]
    if (clock["method"] != STUDENT).all():
        parts.append("; times were taken once and have no interval")
    said = [_sentence(parts)]
    clear = [row for _, row in clock.iterrows() if _is_clear(row)]
    if clear:
        of_clear = _joined([_clock_effect(row) for row in clear])
        said.append(_sentence(["Of the clock's figures these are clear (exploratory): ", *of_clear]))
    return said


def _costs_of(rows: _Rows, variant: str) -> list[Part]:
    speed, size, seconds = (rows.cite(variant, name) for name in ("images_per_second", "parameters_M", "train_seconds"))
    return [speed, " images/s, ", size, " M parameters, ", seconds, " s of training"]


def _clock_effect(row: pd.Series) -> list[Part]:
    what = {"images_per_second": "images/s", "train_seconds": "s of training"}[str(row["measure"])]
    numbers = [_effect(row, name) for name in ("effect", "low", "high")]
    opening: list[Part] = [_direction(row), " with ", Name(str(row["contrast"])), ", ", numbers[0], f" {what}"]
    return [*opening, " (95% interval ", numbers[1], " to ", numbers[2], ")"]


def _pareto(rows: _Rows) -> list[Sentence]:
    """The rows that no other one beats by AP and median latency at once, fastest first."""
    figures = pd.DataFrame({name: rows.numbers(name) for name in ("latency_p50_ms", "AP")}).dropna()
    if len(figures) < 2:
        return []
    # Fastest first, of equals the more accurate one: what follows must have a higher AP than all before it.
    ordered = figures.sort_values(["latency_p50_ms", "AP"], ascending=[True, False], kind="stable")
    beaten = ordered["AP"].le(ordered["AP"].cummax().shift())
    listed = _joined(
        [
            [Name(variant), " (", rows.cite(variant, "latency_p50_ms"), " ms, AP ", rows.cite(variant, "AP"), ")"]
            for variant in map(str, ordered.index[~beaten])
        ]
    )
    opening = "Under a latency budget, take the last of these that fits; by median latency at a batch of one and AP, "
    return [_sentence([opening, "as measured, no row surpasses them in both: ", *listed])]


def _costliest_errors(errors: pd.DataFrame, best: str) -> list[Sentence]:
    """The two types of error that cost the best row most, where its error types are known."""
    rows = errors[(errors["variant"] == best) & (errors["scope"] == "all") & errors["kind"].isin(KINDS)]
    rows = rows[rows["dAP50"] > 0].nlargest(2, "dAP50")
    if rows.empty:
        return []
    listed = _joined([[Name(str(row["kind"])), " ", *_cost_of_errors(row)] for _, row in rows.iterrows()])
    remedy = MENDING[str(rows["kind"].iloc[0])]
    opening = "What mending all errors of one type, and nothing else, would give back to "
    return [_sentence([opening, Name(best), " is most for ", *listed, f"; {remedy}"])]


def _cost_of_errors(row: pd.Series) -> list[Part]:
    def cite(column: str, show: Callable[[float], str]) -> Cited:
        value = float(row[column])
        place = f"{row['variant']}, {row['kind']}"
        return Cited(text=show(value), value=value, table="errors", row=place, column=column)

    return [cite("dAP50", per_cent), " points of AP50 (", cite("count", whole), " errors)"]


def _weakest_size(rows: _Rows, best: str) -> list[Sentence]:
    found = [size for size in SIZES if rows.has(best, f"AP_{size}", f"ground_truths_{size}")]
    if len(found) < 2:
        return []
    weakest = min(found, key=lambda size: float(rows.value(best, f"AP_{size}")))
    parts: list[Part] = ["Of the sizes, in ", Name(best), " the lowest AP is that of ", weakest, " objects"]
    for place, size in enumerate(sorted(found, key=lambda size: size != weakest)):
        parts += [", " if place else f" (AP of {size} ", "" if not place else f"{size} "]
        parts += [rows.cite(best, f"AP_{size}"), " on ", rows.cite(best, f"ground_truths_{size}"), " ground truths"]
    few = rows.value(best, f"ground_truths_{weakest}") < FEW_OBJECTS
    return [_sentence([*parts, "); ", "so few objects say little of it" if few else SECOND_LOOK[weakest]])]


def _seeds(run: Run, main: pd.DataFrame) -> list[Sentence]:
    """What the seeds cannot tell, and how many could."""
    if main.empty:
        return []
    if len(run.seeds) == 1:
        return [
            _sentence(
                [
                    "One seed says nothing about other trainings: how many a difference of this size needs "
                    "follows from the spread of several, so train again with three seeds (--seeds)"
                ]
            )
        ]
    open_questions = main[(main["method"] == STUDENT) & (main["verdict"] == NO_CLAIM)]
    if open_questions.empty:
        return []
    listed = _joined([[Name(str(row["contrast"])), " ", *_seeds_of(row)] for _, row in open_questions.iterrows()])
    return [_sentence(["Seeds that would show a difference of the size seen, in four runs of five: ", *listed])]


def _seeds_of(row: pd.Series) -> list[Part]:
    if pd.isna(row["seeds_needed"]):
        return ["beyond a thousand (trained: ", _effect(row, "n"), ")"]
    return [_effect(row, "seeds_needed"), " (trained: ", _effect(row, "n"), ")"]


def _is_clear(row: pd.Series) -> bool:
    """Whether the effect may be called higher or lower: its verdict says so, and its interval bears it out."""
    return _direction(row) != "" and str(row["verdict"]).removeprefix(THESE_MODELS) == _direction(row)


def _direction(row: pd.Series) -> str:
    """The side of zero that the whole interval lies on."""
    return "higher" if row["low"] > 0 else "lower" if row["high"] < 0 else ""


def _interval(row: pd.Series) -> list[Part]:
    numbers = [_effect(row, name) for name in ("effect", "low", "high")]
    parts: list[Part] = [numbers[0], " points (95% interval ", numbers[1], " to ", numbers[2]]
    parts += [", ", _effect(row, "n"), f" {row['n_of']}"]
    if not pd.isna(row["p_holm"]):
        parts += [", p Holm ", _effect(row, "p_holm")]
    return [*parts, ")"]


def _effect(row: pd.Series, column: str) -> Cited:
    """A cell of the table of effects."""
    clock = row["unit"] != "fraction of 1"
    points: Callable[[float], str] = partial(signed, show=three_digits if clock else per_cent)
    show = {"n": whole, "seeds_needed": whole, "p_holm": probability}.get(column, points)
    value = float(row[column])
    return Cited(
        text=show(value), value=value, table="effects", row=f"{row['measure']}, {row['contrast']}", column=column
    )


def _count(number: int, column: str) -> Cited:
    return Cited(text=str(number), value=number, table="ablation", row="", column=column)


def _sentence(parts: Iterable[Part]) -> Sentence:
    return Sentence((*(part for part in parts if part != ""), "."))


def _joined(items: Sequence[Sequence[Part]]) -> list[Part]:
    """The items with semicolons between them."""
    return [part for place, item in enumerate(items) for part in (*(["; "] if place else []), *item)]
