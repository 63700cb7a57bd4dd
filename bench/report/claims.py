"""What a run says of each remedy, from its table of effects: the facts behind the verdict's sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import pandas as pd

from bench.analysis.effects import HIGHER, LOWER, SMALL, THESE_MODELS
from bench.analysis.factorial import TIMES, VERSUS, WITHOUT_WITH, simple_effect
from bench.analysis.run_records import Run

Judgement = Literal["helps", "harms", "small", "undecided", "unknown"]
WITHOUT, WITH = WITHOUT_WITH


@dataclass(frozen=True, kw_only=True, eq=False)
class Remedy:
    """An axis on its own. row: of the effects that the judgement rests on, its main effect or its arm."""

    axis: str
    judgement: Judgement
    row: pd.Series


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two axes whose interaction is clear.

    kind: "only together", both raise AP, and neither does alone; "arms", some arm differs clearly from the baseline;
        "depends", none does, but the effect of `axes[0]` depends on `axes[1]`.
    rows: of the effects; "only together": both arms together, each alone; "arms": each alone, both together; "depends":
        the effect of the first axis without and with the second.
    """

    axes: tuple[str, str]
    kind: Literal["only together", "arms", "depends"]
    rows: tuple[pd.Series, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Claims:
    """Remedies without a clear interaction, clear pairs, and the arm of all remedies that help (None if not clear)."""

    remedies: tuple[Remedy, ...]
    pairs: tuple[Pair, ...]
    together: pd.Series | None
    single_seed: bool

    def judged(self, *judgements: Judgement) -> list[Remedy]:
        return [remedy for remedy in self.remedies if remedy.judgement in judgements]


def claims_of(run: Run, effects: pd.DataFrame) -> Claims:
    """What the families of AP support: arms, main effects, interactions, and simple effects of clear interactions."""
    rows = _on_ap(effects)
    remedies: list[Remedy] = []
    pairs: list[Pair] = []
    interacting: set[str] = set()
    for one, other in combinations(run.axes, 2):
        interaction = rows.get(f"{one}{TIMES}{other}")
        if interaction is None or claim_of(interaction) not in (HIGHER, LOWER):
            continue
        alone = [rows.get(_arm(run, [axis])) for axis in (one, other)]
        both = rows.get(_arm(run, [one, other]))
        interacting |= {one, other}
        if all(row is not None and claim_of(row) == HIGHER for row in alone):
            remedies += [
                Remedy(axis=axis, judgement="helps", row=row)
                for axis, row in zip((one, other), alone, strict=True)
                if row is not None and axis not in {remedy.axis for remedy in remedies}
            ]
        elif both is not None and claim_of(both) == HIGHER and not any(_is(row, HIGHER) for row in alone):
            shown = (both, *(row for row in alone if row is not None))
            pairs.append(Pair(axes=(one, other), kind="only together", rows=shown))
        elif any(_is(row, HIGHER) or _is(row, LOWER) for row in (*alone, both)):
            arms = tuple(row for row in (*alone, both) if row is not None)
            if len(arms) == 3:
                pairs.append(Pair(axes=(one, other), kind="arms", rows=arms))
        elif (depends := _dependence(rows, one, other)) is not None:
            pairs.append(depends)
    for axis in run.axes:
        main = rows.get(axis)
        if main is not None and axis not in interacting:
            remedies.append(Remedy(axis=axis, judgement=_judgement(main), row=main))
    remedies.sort(key=lambda remedy: run.axes.index(remedy.axis))
    helping = [remedy.axis for remedy in remedies if remedy.judgement == "helps"]
    together = rows.get(_arm(run, helping)) if len(helping) > 1 else None
    return Claims(
        remedies=tuple(remedies),
        pairs=tuple(pairs),
        together=together if _is(together, HIGHER) else None,
        single_seed=any(str(row["verdict"]).startswith(THESE_MODELS) for row in rows.values()) or len(run.seeds) == 1,
    )


def claim_of(row: pd.Series) -> str:
    """The verdict of a row of effects without its scope."""
    return str(row["verdict"]).removeprefix(THESE_MODELS)


def _is(row: pd.Series | None, claim: str) -> bool:
    return row is not None and claim_of(row) == claim


def _on_ap(effects: pd.DataFrame) -> dict[str, pd.Series]:
    chosen = effects[(effects["measure"] == "AP") & (effects["class"] == "")]
    return {str(row["contrast"]): row for _, row in chosen.iterrows()}


def _arm(run: Run, axes: Sequence[str]) -> str:
    """The name of the contrast of an arm with the baseline."""
    for cell in run.cells:
        if cell.control is None and {axis for axis, on in cell.factors.items() if on} == set(axes):
            return f"{cell.variant}{VERSUS}{run.baseline}"
    return ""


def _dependence(rows: dict[str, pd.Series], one: str, other: str) -> Pair | None:
    """The order of the two axes in which the simple effects differ in what can be claimed, if there is one."""
    candidates = []
    for first, second in ((one, other), (other, one)):
        simple = tuple(rows.get(simple_effect(first, words, second)) for words in (WITHOUT, WITH))
        known = tuple(row for row in simple if row is not None and not pd.isna(row["low"]))
        if len(known) == 2:
            candidates.append(Pair(axes=(first, second), kind="depends", rows=known))
    differing = [pair for pair in candidates if len({claim_of(row) for row in pair.rows}) == 2]
    return next(iter(differing or candidates), None)


def _judgement(row: pd.Series) -> Judgement:
    if pd.isna(row["low"]):
        return "unknown"
    judged: dict[str, Judgement] = {HIGHER: "helps", LOWER: "harms", SMALL: "small"}
    return judged.get(claim_of(row), "undecided")
