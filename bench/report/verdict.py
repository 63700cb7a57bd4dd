"""The verdict of a run: a headline and at most eight sentences, with the source of every number in them.

A sentence consists of words, names from the run, and values cited from tables. Words contain no numbers (except the
95% of intervals), so every number has a source. A sentence says that a remedy helps or harms only where the adjusted
test of its family is clear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.budget import PHRASES, budget_frame, largest_losses
from bench.analysis.effects import BY_SIZE, HIGHER, LOWER
from bench.analysis.error_costs import IMPRECISE
from bench.analysis.lengths import turned
from bench.analysis.results import Analysis
from bench.analysis.run_records import Run, worth_of
from bench.analysis.samples import Samples
from bench.analysis.speeds import load_speeds, pareto_front
from bench.analysis.statistics import BOOTSTRAP, JOINT, LEVEL, STUDENT, t_test
from bench.analysis.training_fit import advice, fit_by_variant, training_fit_frame
from bench.data.subsets import SIZES
from bench.report.citations import CitedValue, Name, Part, Sentence
from bench.report.claims import Claims, Pair, Remedy, claim_of, claims_of
from bench.report.next_step import next_step
from bench.report.notes import epochs_text, one_line, text_of, why_no_ap
from bench.report.tables.ablation import ablation_table
from bench.report.tables.columns import COLUMNS
from bench.report.tables.formats import integer, is_missing, percent, points
from bench.report.tables.typeset import escape_markdown
from bench.storage.atomic import write_text

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MOST_SENTENCES = 8  # after the headline
OPENING = " points ("  # before an interval
COVERED = {
    BOOTSTRAP: "The intervals cover other images of this kind, but not training again: another seed may differ",
    JOINT: "The intervals cover training again and other images of this kind",
    STUDENT: "The intervals cover training again, scored on the same images",
}
FEW_OBJECTS = 30  # below this, a single object changes recall by more than three points
# Where to look, by the costliest part of the budget. Not what would help, because that was not measured.
HINTS = {
    IMPRECISE: "see AP against the IoU threshold",
    "classification": "see the confusion matrix, and check the labels",
    "localisation": "see AP against the IoU threshold",
    "both": "see the learning curves",
    "duplicate": "check the threshold of non-maximum suppression",
    "background": "check for missing annotations",
    "missed": "see the plot of priors and ground truths",
}


def verdict(analysis: Analysis) -> list[Sentence]:
    """The headline, then: unfinished cells, scope, longer training, other remedies, best, sizes, losses, fit, speed.

    The last sentence is the next step.

    That training was too short comes before the scope, because it changes what the rest is worth.
    """
    run = analysis.run
    table = ablation_table(analysis).frame.set_index("variant")
    if pd.to_numeric(table["AP"]).isna().all():
        return [_state(run)]
    unfinished = [] if all(run.status(cell) == "done" for cell in run.cells) else [_state(run)]
    unfinished += _preliminary(run)
    if run.smoke:
        return [_smoke(run), *unfinished, next_step(analysis)]
    claims = claims_of(run, analysis.effects)
    fit, too_short = _fit(run)
    body = [
        *unfinished,
        *(fit if too_short else []),
        *_scope(run, analysis.effects),
        *_longer(run, analysis.lengths),
        *_other_remedies(run, claims),
        *_best(run, analysis.best),
        *_sizes(run, analysis.effects, table),
        *_losses(analysis, table),
        *([] if too_short else fit),
        *_speed(run, analysis.samples, table),
    ]
    return [_headline(run, table, claims), *body[: MOST_SENTENCES - 1], next_step(analysis)]


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


def _state(run: Run) -> Sentence:
    """How many cells are done, failed and pending, and why there is no AP."""
    states = [run.status(cell) for cell in run.cells]
    parts: list[Part] = [_count(states.count("done"), "seeds"), " of ", _count(len(states), "seeds"), " cells are done"]
    failures = list(run.failures())
    diverged = [cell for cell, _ in failures if run.diverged(cell)]
    if failures:
        cell, failure = failures[0]
        parts += [", ", _count(len(failures), "status"), " failed (", Name(cell.variant), ": "]
        parts += [
            Name(one_line(failure.get("cause"))),
            "; the tables list the others" if failures[1:] else "",
            ")",
        ]
    if diverged:
        names = ", ".join(dict.fromkeys(cell.variant for cell in diverged))
        parts += ["; training diverged in ", _count(len(diverged), "status"), " of ", Name(names)]
    if "pending" in states:
        parts += [", ", _count(states.count("pending"), "status"), " pending"]
    reason = why_no_ap(run)
    if "done" not in states:
        parts.append("; no results yet")
    elif reason:
        parts += [", but there is no AP: ", Name(reason)]
    return Sentence.of(parts)


def _preliminary(run: Run) -> list[Sentence]:
    """That the command goes on to longer trainings."""
    training = (run.plan.get("base") or {}).get("training") or {}
    if max(run.plan.get("lengths") or [0]) <= training.get("steps", 0):
        return []
    return [Sentence.of(["These results are preliminary: the same command goes on to longer trainings"])]


def _smoke(run: Run) -> Sentence:
    steps = _length(run)[:3]
    return Sentence.of(["This smoke test of ", *steps, " shows that everything runs; it is not a result"])


def _headline(run: Run, table: pd.DataFrame, claims: Claims) -> Sentence:
    """What helps: on which data, with which network, after which training, with how many seeds."""
    shown = _first_done(run)
    seeds = len({cell.seed for cell, _ in run.done()})
    parts: list[Part] = ["On ", Name(text_of(run.plan.get("data")) or "unnamed data"), " ("]
    parts += [_cite(table, shown, "images"), " validation images)"]
    parts += [", with ", Name(text_of(run.plan["backbone"]))] if run.plan.get("backbone") else []
    parts += [", after ", *_length(run), " and ", _number(seeds), f" seed{'' if seeds == 1 else 's'}: "]
    helping = claims.judged("helps")
    if len(run.variants) < 2 or run.baseline is None:
        parts += [Name(shown), " has a COCO AP of ", _cite(table, shown, "AP"), "; there is nothing to compare it with"]
    elif helping:
        opening = "" if len(helping) == 1 else f"{NUMBERS[len(helping)]} remedies raise AP: "
        verb = " raises AP by " if len(helping) == 1 else " by "
        parts += [
            opening,
            *_joined([[Name(remedy.axis), verb, *_gain(remedy.row)] for remedy in helping], last=" and "),
        ]
        if claims.together is not None:
            parts += ["; together ", *_gain(claims.together)]
    elif claims.pairs:
        parts += _pair(_first_pairs(claims)[0])
    else:
        parts += _no_help(run, claims)
    return Sentence.of(_with_level(parts))


def _no_help(run: Run, claims: Claims) -> list[Part]:
    """The headline if no remedy raises AP, with the intervals that say so."""
    harmful, small, undecided = (claims.judged(each) for each in ("harms", "small", "undecided"))
    if harmful:
        return ["no remedy clearly raises AP; ", *_lowering(harmful)]
    if undecided:
        return ["no remedy has a clear effect on AP: ", *_list(undecided)]
    if small:
        return ["no remedy changes AP by as much as ", _worth(run), " points: ", *_list(small)]
    return ["the effects have no intervals, so nothing can be claimed"]


def _with_level(parts: Sequence[Part]) -> list[Part]:
    """Name the level of the first interval; the others have the same."""
    first = next((place for place, part in enumerate(parts) if part == OPENING), None)
    return [f"{OPENING}95% interval " if place == first else part for place, part in enumerate(parts)]


def _scope(run: Run, effects: pd.DataFrame) -> list[Sentence]:
    """What the intervals cover, and what longer training may change."""
    methods = set(effects["method"])
    covered = next((text for method, text in COVERED.items() if method in methods), "")
    if not covered:
        return []
    short = (
        "; this training is short, and a longer one may give other effects"
        if run.plan.get("profile") == "quick"
        else ""
    )
    return [Sentence.of([covered, short])]


def _longer(run: Run, frame: pd.DataFrame) -> list[Sentence]:
    """What the baseline gained from the longer training, and which clear effects changed their signs."""
    rows = frame[frame["variant"] == run.baseline].sort_values("steps")
    if len(rows) < 2:
        return []
    table = frame.set_index("row")

    def cite(row: pd.Series, column: str, show: Callable[[float], str]) -> CitedValue:
        key = str(row["row"])
        return CitedValue(
            text=show(row[column]), value=float(_at(table, key, column)), table="lengths", row=key, column=column
        )

    first, last = rows.iloc[0], rows.iloc[-1]
    parts: list[Part] = ["With ", cite(last, "steps", integer), " steps in place of ", cite(first, "steps", integer)]
    parts += [", AP of the baseline goes from ", cite(first, "AP", percent), "% to ", cite(last, "AP", percent), "%"]
    changes = turned(frame)
    for before, after in changes:
        parts += ["; ", Name(str(after["variant"])), " turns from ", cite(before, "effect", points), OPENING]
        parts += [cite(before, "low", points), " to ", cite(before, "high", points), ") to "]
        parts.append(cite(after, "effect", points))
        if not pd.isna(after["low"]):
            parts += [OPENING, cite(after, "low", points), " to ", cite(after, "high", points), ")"]
    if not changes:
        parts.append("; no clear effect changed its sign")
    return [Sentence.of(parts)]


def _length(run: Run) -> list[Part]:
    """The baseline's steps and epochs as words and cited values."""
    fit = fit_by_variant(training_fit_frame(run)).set_index("variant")
    variant = _first_done(run)
    steps, epochs = float(_at(fit, variant, "steps")), float(_at(fit, variant, "epochs"))
    parts: list[Part] = []
    for name, value, show in (("steps", steps, integer), ("epochs", epochs, epochs_text)):
        cited = CitedValue(text=show(value), value=value, table="training_fit", row=variant, column=name)
        if not pd.isna(value):
            parts += [" (" if parts else "", cited, f" {name[:-1] if value == 1 else name}"]
    return [*parts, ")"] if len(parts) > 3 else [*parts]


def _first_done(run: Run) -> str:
    """The baseline if it has an AP, otherwise the first variant that has one."""
    done = [cell.variant for cell, record in run.done() if (record.get("accuracy") or {}).get("AP") is not None]
    return run.baseline if run.baseline in done and run.baseline is not None else done[0]


def _first_pairs(claims: Claims) -> list[Pair]:
    """The pairs, those with a clear gain first."""
    kinds = ("only together", "arms", "depends")
    gains = [pair.kind == "arms" and any(claim_of(row) == HIGHER for row in pair.rows) for pair in claims.pairs]
    order = sorted(zip(claims.pairs, gains, strict=True), key=lambda each: (not each[1], kinds.index(each[0].kind)))
    return [pair for pair, _ in order]


def _pair(pair: Pair) -> list[Part]:
    return {"only together": _only_together, "arms": _arms, "depends": _depends}[pair.kind](pair)


def _arms(pair: Pair) -> list[Part]:
    """What each of two axes alone and both together do to AP, gains first."""
    one, other = (Name(axis) for axis in pair.axes)
    subjects: list[tuple[list[Part], str]] = [([one, " alone"], "s"), ([other, " alone"], "s"), (["both together"], "")]
    rank = {HIGHER: 0, LOWER: 1}
    items: list[list[Part]] = []
    for row, (subject, ending) in sorted(
        zip(pair.rows, subjects, strict=True), key=lambda each: rank.get(claim_of(each[0]), 2)
    ):
        if claim_of(row) == HIGHER:
            items.append([*subject, f" raise{ending} AP by ", *_gain(row)])
        elif claim_of(row) == LOWER:
            items.append([*subject, f" lower{ending} AP by ", *_fall(row)])
        else:
            items.append([*subject, f" change{ending} AP by ", *_interval(row)])
    return ["against the baseline, ", *_joined(items)]


def _only_together(pair: Pair) -> list[Part]:
    both, *alone = pair.rows
    parts: list[Part] = [Name(pair.axes[0]), " and ", Name(pair.axes[1]), " together raise AP by ", *_gain(both)]
    if alone:
        names = pair.axes[-len(alone) :]
        listed = [[Name(axis), " alone ", *_interval(row)] for axis, row in zip(names, alone, strict=True)]
        parts += ["; neither clearly does so alone: ", *_joined(listed, last=", ")]
    return parts


def _depends(pair: Pair) -> list[Part]:
    without, beside = pair.rows
    helps = [claim_of(row) == HIGHER for row in pair.rows]
    axis, other = (Name(name) for name in pair.axes)
    if min(float(row["low"]) for row in pair.rows) > 0:
        helps = []  # "only" would contradict an interval above zero, even one that is not clear after adjustment
    if helps == [False, True]:
        only: list[Part] = [axis, " raises AP only beside ", other, ": by ", *_gain(beside), " with it, "]
        return [*only, *_interval(without), " without it"]
    if helps == [True, False]:
        only = [axis, " raises AP only without ", other, ": by ", *_gain(without), " without it, "]
        return [*only, *_interval(beside), " with it"]
    opening: list[Part] = ["the effect of ", axis, " on AP depends on ", other, ": "]
    return [*opening, *_interval(without), " without it, ", *_interval(beside), " with it"]


def _other_remedies(run: Run, claims: Claims) -> list[Sentence]:
    """The remedies that the headline does not name: pairs, harm, small effects, undecided and unknown ones."""
    items: list[list[Part]] = []
    helping = bool(claims.judged("helps"))
    pairs = _first_pairs(claims)
    items += [_pair(pair) for pair in (pairs if helping else pairs[1:])]
    harmful, small, undecided = (claims.judged(each) for each in ("harms", "small", "undecided"))
    gains = helping or bool(claims.pairs)  # in the headline; otherwise it names one of the following kinds
    if harmful and gains:
        items.append(_lowering(harmful))
    if undecided and (gains or harmful):
        items.append(["undecided: ", *_list(undecided)])
    if small and (gains or harmful or undecided):
        items.append(["no effect worth having (", _worth(run), " points): ", *_list(small)])
    unknown: dict[str, list[str]] = {}
    for remedy in claims.judged("unknown"):
        unknown.setdefault(str(remedy.row["method"]).removeprefix("none: "), []).append(remedy.axis)
    items += [["no interval for ", Name(", ".join(axes)), " (", Name(why), ")"] for why, axes in unknown.items()]
    return [_capitalised(Sentence.of(_joined(items)))] if items else []


def _lowering(remedies: Sequence[Remedy]) -> list[Part]:
    """That the remedies lower AP, and by how much."""
    verbs = [" lowers AP by ", *[" by "] * (len(remedies) - 1)]
    listed = [[Name(remedy.axis), verb, *_fall(remedy.row)] for remedy, verb in zip(remedies, verbs, strict=True)]
    return _joined(listed, last=" and ")


def _list(remedies: Sequence[Remedy]) -> list[Part]:
    return _joined([[Name(remedy.axis), " ", *_interval(remedy.row)] for remedy in remedies], last=" and ")


def _best(run: Run, best: pd.DataFrame) -> list[Sentence]:
    """The best variant, its chance to be it, its AP without the bias of the choice; the baseline."""
    if len(best) < 2:
        return []
    first = best.iloc[0]
    variant = str(first["variant"])
    base = best[best["variant"] == run.baseline].iloc[0]

    def cite(row: pd.Series, column: str, show: Callable[[float], str] = percent) -> CitedValue:
        value = float(row[column])
        return CitedValue(text=f"{show(value)}%", value=value, table="best", row=str(row["variant"]), column=column)

    parts: list[Part] = [Name(variant), " has the highest AP, ", cite(first, "AP")]
    if not is_missing(first["probability_best"]):
        whose = " of these models on other images" if len({cell.seed for cell, _ in run.done()}) == 1 else ""
        parts += [f" (chance to be the best{whose}: ", cite(first, "probability_best", _chance)]
        if percent(first["AP_corrected"]) != percent(first["AP"]):
            parts += ["; AP corrected for picking the highest: ", cite(first, "AP_corrected")]
        parts.append(")")
    if variant != run.baseline:
        parts += ["; the baseline has ", cite(base, "AP")]
    return [Sentence.of(parts)]


def _chance(share: float) -> str:
    """A probability in percent; what was never seen to fail is not certain."""
    return ">99" if share > 0.99 else f"{100 * share:.0f}"


def _sizes(run: Run, effects: pd.DataFrame, table: pd.DataFrame) -> list[Sentence]:
    """The largest clear effect on AP of one size, with the same size measured the other way."""
    rows = effects[effects["measure"].isin(BY_SIZE) & (effects["kind"] == "main effect") & (effects["class"] == "")]
    clear = rows[[claim_of(row) in (HIGHER, LOWER) for _, row in rows.iterrows()]]
    if clear.empty:
        return []
    row = clear.iloc[int(clear["effect"].abs().to_numpy().argmax())]
    measure, axis = str(row["measure"]), Name(str(row["contrast"]))
    other = measure.removesuffix("_network") if measure.endswith("_network") else f"{measure}_network"
    size = measure.removeprefix("AP_").removesuffix("_network")
    parts: list[Part] = [f"By object size, the largest clear effect is on {size} objects: ", axis, ", averaged over "]
    parts += ["the other remedies on and off, changes their AP by ", *_by_size(run, row, table)]
    counterpart = rows[(rows["measure"] == other) & (rows["contrast"] == row["contrast"])]
    if len(counterpart) and not pd.isna(counterpart["low"].iloc[0]):
        compared = _by_size(run, counterpart.iloc[0], table)
        # The same objects, if both sizes agree: say it once
        if _shown(compared) != _shown(_by_size(run, row, table)):
            parts += [", and by ", *compared]
    return [Sentence.of(parts)]


def _shown(parts: Sequence[Part]) -> list[str]:
    return [part.text for part in parts if isinstance(part, CitedValue)]


def _by_size(run: Run, row: pd.Series, table: pd.DataFrame) -> list[Part]:
    size = str(row["measure"]).removeprefix("AP_")
    where = " by size at the network's input" if size.endswith("_network") else " by size in the original image"
    column, shown = f"ground_truths_{size}", _first_done(run)
    parts = [*_interval(row), where]
    if not is_missing(_at(table, shown, column)):
        parts += [", ", _cite(table, shown, column), " objects"]
    return parts


def _losses(analysis: Analysis, table: pd.DataFrame) -> list[Sentence]:
    """What costs the best variant most, and whether its AP is lowest on objects that are small for the network."""
    best = str(analysis.best["variant"].iloc[0]) if len(analysis.best) else _first_done(analysis.run)
    losses = largest_losses(budget_frame(analysis.run, analysis.errors), best)[:2]
    if not losses:
        return []
    listed: list[list[Part]] = [
        [PHRASES[part], " (", CitedValue(text=percent(cost), value=cost, table="budget", row=best, column=part), ")"]
        for part, cost in losses
    ]
    parts: list[Part] = [Name(best), " loses most AP to ", *_joined(listed, last=" and ")]
    parts.append(f"; {HINTS[losses[0][0]]}" if losses[0][0] in HINTS else "")
    sizes = [size for size in SIZES if not is_missing(_at(table, best, f"AP_{size}_network"))]
    counts = {size: _at(table, best, f"ground_truths_{size}_network") for size in sizes}
    sizes = [size for size in sizes if not is_missing(counts[size]) and counts[size] >= FEW_OBJECTS]
    weakest = min(sizes, key=lambda size: float(_at(table, best, f"AP_{size}_network")), default="")
    sentences = [Sentence.of(parts)]
    if len(sizes) > 1 and weakest == "small":
        small: list[Part] = ["Its AP is lowest on objects that are small at the network's input, "]
        small += [_cite(table, best, "AP_small_network"), " on "]
        small += [
            _cite(table, best, "ground_truths_small_network"),
            " objects: a larger input or tiles would enlarge them",
        ]
        sentences.append(Sentence.of(small))
    return sentences


def _fit(run: Run) -> tuple[list[Sentence], bool]:
    """Whether training was too short or memorised its images, where the run shows it; and whether it was too short."""
    cells = training_fit_frame(run)
    what = advice(cells, run.baseline)
    fit = fit_by_variant(cells).set_index("variant")
    if what not in ("train longer", "memorising") or run.baseline not in fit.index:
        return [], False

    def cite(column: str) -> CitedValue:
        value, row = float(_at(fit, str(run.baseline), column)), str(run.baseline)
        return CitedValue(text=f"{percent(value)}%", value=value, table="training_fit", row=row, column=column)

    aps: list[Part] = ["the baseline has an AP of ", cite("AP_train"), " on training and ", cite("AP_val")]
    aps.append(" on validation images")
    if what == "train longer":
        return [Sentence.of(["Training was too short: the loss was still falling, and ", *aps])], True
    memorises = ["Training memorises: ", *aps, " while the loss is flat; try more data or regularisation"]
    return [Sentence.of(memorises)], False


def _speed(run: Run, samples: Samples, table: pd.DataFrame) -> list[Sentence]:
    """The arms that no other beats in AP and latency, by figures of a quiet machine."""
    speeds = load_speeds(run)
    if speeds.empty:
        return []
    if speeds["busy"].any():
        return [Sentence.of(["Speeds are not compared: the machine was busy while they were measured"])]
    sample = samples.by_metric["AP", ""]

    def clearly_higher(one: str, other: str) -> bool:
        estimate = sample.estimate(samples.vector({one: 1.0, other: -1.0}))
        if estimate is None or not estimate.error > 0:
            return False
        return estimate.effect > 0 and t_test(estimate.effect, estimate.error, estimate.degrees) < LEVEL

    front = pareto_front(run, clearly_higher=clearly_higher)
    if not front or len(run.variants) < 2:
        return []
    listed: list[list[Part]] = [
        [Name(variant), " (", _cite(table, variant, "latency_p50_ms"), " ms, AP ", _cite(table, variant, "AP"), ")"]
        for variant in front
    ]
    parts = ["In AP and latency together, no variant clearly beats ", *_joined(listed, last=" and ")]
    if run.baseline is not None and run.baseline not in front:
        parts += ["; the baseline takes ", _cite(table, run.baseline, "latency_p50_ms"), " ms"]
    return [Sentence.of(parts)]


def _interval(row: pd.Series) -> list[Part]:
    """An effect on AP in points with its interval."""
    effect = _effect(row, "effect", points)
    if pd.isna(row["low"]):
        return [effect, " points (no interval: ", Name(str(row["method"]).removeprefix("none: ")), ")"]
    return [effect, OPENING, _effect(row, "low", points), " to ", _effect(row, "high", points), ")"]


def _gain(row: pd.Series) -> list[Part]:
    """An effect that is clearly above zero, without signs."""
    effect, low, high = (_effect(row, column, percent) for column in ("effect", "low", "high"))
    return [effect, OPENING, low, " to ", high, ")"]


def _fall(row: pd.Series) -> list[Part]:
    """An effect that is clearly below zero, as the size of the fall."""
    effect, least, most = (_effect(row, column, lambda value: percent(-value)) for column in ("effect", "high", "low"))
    return [effect, OPENING, least, " to ", most, ")"]


def _effect(row: pd.Series, column: str, show: Callable[[float], str]) -> CitedValue:
    """A value from the table of effects."""
    value = float(row[column])
    place = f"{row['measure']}, {row['contrast']}"
    return CitedValue(text=show(value), value=value, table="effects", row=place, column=column)


def _at(frame: pd.DataFrame, row: str, column: str) -> Any:
    return frame.loc[row, column]


def _cite(table: pd.DataFrame, variant: str, column: str) -> CitedValue:
    """A value from the ablation table."""
    value = float(_at(table, variant, column))
    text = COLUMNS[column].show(value) + ("%" if column.startswith("AP") else "")
    return CitedValue(text=text, value=value, table="ablation", row=variant, column=column)


def _worth(run: Run) -> CitedValue:
    value = worth_of(run)
    return CitedValue(text=percent(value), value=value, table="plan", row="", column="worth")


def _count(number: int, column: str) -> CitedValue:
    return CitedValue(text=str(number), value=number, table="ablation", row="", column=column)


def _number(count: int) -> Part:
    return NUMBERS[count] if count < len(NUMBERS) else _count(count, "seeds")


def _joined(items: Sequence[Sequence[Part]], *, last: str = "; ") -> list[Part]:
    """Join the items with semicolons, or with `last` before the last one."""
    parts: list[Part] = []
    for place, item in enumerate(items):
        parts += [last if place == len(items) - 1 else "; "] if place else []
        parts += item
    return parts


def _capitalised(sentence: Sentence) -> Sentence:
    first, *rest = sentence.parts
    return Sentence((first[:1].upper() + first[1:] if isinstance(first, str) else first, *rest))
