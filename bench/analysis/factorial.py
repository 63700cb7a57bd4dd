"""Contrasts of a factorial of axes that are on or off: main effects, interactions, and rows beside the matrix.

Each is the mean of some variants minus the mean of as many others, so that a figure's noise enters all
contrasts of a factorial alike (Box, Hunter and Hunter, Statistics for Experimenters, chapter 5):

- the main effect of an axis: the variants that have it, minus those that do not;
- the interaction of two: those that have both or neither, minus those that have one; which is half the
  difference between the effect of one where the other is on and where it is off;
- that of more: those where the number of axes on has the parity of their number, minus the rest;
- a control: its row, minus the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.analysis.run_records import Run

BASELINE = "baseline"

Kind = Literal["main effect", "interaction", "control"]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """The mean of the variants `plus` minus the mean of the variants `minus`; as many of the one as of the other."""

    name: str
    kind: Kind
    plus: tuple[str, ...]
    minus: tuple[str, ...]

    @property
    def variants(self) -> tuple[str, ...]:
        return (*self.minus, *self.plus)

    def value(self, figures: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """(...) the contrast of figures (...) given by variant. Raises KeyError for a variant without them."""
        return _mean(figures, self.plus) - _mean(figures, self.minus)


def contrasts_of(run: Run) -> tuple[Contrast, ...]:
    """Main effects in the order of the axes, interactions from the lowest order up, controls."""
    variants = {
        tuple(cell.factors.get(axis, False) for axis in run.axes): cell.variant
        for cell in run.cells
        if cell.control is None
    }
    baseline = run.baseline or BASELINE
    controls = dict.fromkeys(cell.variant for cell in run.cells if cell.control is not None)
    return (
        *factorial_contrasts(run.axes, variants),
        *(Contrast(name=name, kind="control", plus=(name,), minus=(baseline,)) for name in controls),
    )


def factorial_contrasts(axes: Sequence[str], variants: Mapping[tuple[bool, ...], str]) -> tuple[Contrast, ...]:
    """The 2^k - 1 contrasts of k axes.

    variants: names by which axes are on. A combination that is not in it, as in a plan that holds a part of
    the factorial, keeps its place under the name that it would have: a contrast without one of its
    variants has no value, rather than that of another question.
    """
    names = {level: variants.get(level, _name(axes, level)) for level in product((False, True), repeat=len(axes))}
    result = []
    for order in range(1, len(axes) + 1):
        for places in combinations(range(len(axes)), order):
            plus = [level for level in names if (order - sum(level[place] for place in places)) % 2 == 0]
            result.append(
                Contrast(
                    name=" × ".join(axes[place] for place in places),
                    kind="main effect" if order == 1 else "interaction",
                    plus=tuple(names[level] for level in plus),
                    minus=tuple(name for level, name in names.items() if level not in plus),
                )
            )
    return tuple(result)


def _mean(figures: Mapping[str, ArrayLike], variants: Sequence[str]) -> NDArray[np.float64]:
    # Sorted, or the order of the sum would leave a rounding error where an axis changes nothing at all.
    stacked = np.sort(np.stack([np.asarray(figures[name], dtype=np.float64) for name in variants]), axis=0)
    return np.asarray(stacked.sum(axis=0) / len(variants))


def _name(axes: Sequence[str], level: Sequence[bool]) -> str:
    return "+".join(axis for axis, on in zip(axes, level, strict=True) if on) or BASELINE
