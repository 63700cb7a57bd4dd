"""Contrasts of a two-level factorial design: arms, main effects, interactions, simple effects, and controls.

Each contrast is the mean of some variants minus the mean of equally many others (Box, Hunter and Hunter, Statistics for
Experimenters, chapter 5):

- arm: a variant minus the baseline;
- main effect of an axis: variants with it minus variants without it;
- interaction of two axes: variants with both or neither minus variants with exactly one. This is half the difference
  between the effect of one axis with the other on and with it off;
- interaction of k axes: variants in which the number of these axes that are on has the parity of k, minus the rest;
- simple effect of an axis: the same difference, only among the variants with or only among those without another axis;
- control: the control minus the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
from typing import Literal

from bench.analysis.run_records import Run
from bench.spec import BASELINE

TIMES = " × "  # between the axes of an interaction
WITHOUT_WITH = ("without", "with")  # in the name of a simple effect, before the other axis
VERSUS = " vs "  # in the name of an arm or control, before the baseline
Kind = Literal["arm", "main effect", "interaction", "simple effect", "control"]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """The mean of the variants `plus` minus the mean of the variants `minus`; both have the same size."""

    name: str
    kind: Kind
    plus: tuple[str, ...]
    minus: tuple[str, ...]

    @property
    def variants(self) -> tuple[str, ...]:
        return (*self.minus, *self.plus)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each variant; they sum to zero."""
        return dict.fromkeys(self.plus, 1 / len(self.plus)) | dict.fromkeys(self.minus, -1 / len(self.minus))


def contrasts_of(run: Run) -> tuple[Contrast, ...]:
    """Arms in the order of the plan, main effects in the order of the axes, interactions, simple effects, controls."""
    variants = {
        tuple(cell.factors.get(axis, False) for axis in run.axes): cell.variant
        for cell in run.cells
        if cell.control is None
    }
    baseline = run.baseline or BASELINE
    controls = dict.fromkeys(cell.variant for cell in run.cells if cell.control is not None)
    return (
        *(against(name, baseline, "arm") for name in run.variants if name not in (baseline, *controls)),
        *factorial_contrasts(run.axes, variants),
        *(against(name, baseline, "control") for name in controls),
    )


def against(variant: str, baseline: str, kind: Kind) -> Contrast:
    """A variant minus the baseline."""
    return Contrast(name=f"{variant}{VERSUS}{baseline}", kind=kind, plus=(variant,), minus=(baseline,))


def simple_effect(axis: str, words: str, other: str) -> str:
    """The name of a simple effect. words: one of `WITHOUT_WITH`."""
    return f"{axis} {words} {other}"


def factorial_contrasts(axes: Sequence[str], variants: Mapping[tuple[bool, ...], str]) -> tuple[Contrast, ...]:
    """The 2^k - 1 main effects and interactions of k axes, then two simple effects of each axis for each other axis.

    variants: names by the axes that are on. If a plan holds only part of the factorial, missing combinations keep
        their place under the name they would have. A contrast then lacks a variant and has no value, instead of the
        value of a different contrast.
    """
    names = {level: variants.get(level, _name(axes, level)) for level in product((False, True), repeat=len(axes))}
    result = []
    for order in range(1, len(axes) + 1):
        for places in combinations(range(len(axes)), order):
            plus = [level for level in names if (order - sum(level[place] for place in places)) % 2 == 0]
            result.append(
                Contrast(
                    name=TIMES.join(axes[place] for place in places),
                    kind="main effect" if order == 1 else "interaction",
                    plus=tuple(names[level] for level in plus),
                    minus=tuple(name for level, name in names.items() if level not in plus),
                )
            )
    for axis, other in permutations(range(len(axes)), 2):
        for on, words in zip((False, True), WITHOUT_WITH, strict=True):
            chosen = [level for level in names if level[other] is on]
            result.append(
                Contrast(
                    name=simple_effect(axes[axis], words, axes[other]),
                    kind="simple effect",
                    plus=tuple(names[level] for level in chosen if level[axis]),
                    minus=tuple(names[level] for level in chosen if not level[axis]),
                )
            )
    return tuple(result)


def _name(axes: Sequence[str], level: Sequence[bool]) -> str:
    return "+".join(axis for axis, on in zip(axes, level, strict=True) if on) or BASELINE
