"""Contrasts of a two-level factorial design: main effects, interactions, and controls.

Each contrast is the mean of some variants minus the mean of equally many others, so all contrasts of a factorial have
the same variance (Box, Hunter and Hunter, Statistics for Experimenters, chapter 5):

- main effect of an axis: variants with it minus variants without it;
- interaction of two axes: variants with both or neither minus variants with exactly one. This is half the difference
  between the effect of one axis with the other on and with it off;
- interaction of k axes: variants in which the number of these axes that are on has the parity of k, minus the rest;
- control: the control minus the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.analysis.run_records import Run
from bench.spec import BASELINE

Kind = Literal["main effect", "interaction", "control"]


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

    def value(self, metrics: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """(...) the contrast of a metric (...) given by variant. Raises KeyError if a variant is missing."""
        return _mean(metrics, self.plus) - _mean(metrics, self.minus)


def contrasts_of(run: Run) -> tuple[Contrast, ...]:
    """Main effects in the order of the axes, then interactions by increasing order, then controls."""
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
                    name=" × ".join(axes[place] for place in places),
                    kind="main effect" if order == 1 else "interaction",
                    plus=tuple(names[level] for level in plus),
                    minus=tuple(name for level, name in names.items() if level not in plus),
                )
            )
    return tuple(result)


def _mean(metrics: Mapping[str, ArrayLike], variants: Sequence[str]) -> NDArray[np.float64]:
    # Sort before summing: an axis that changes nothing must give exactly zero, without rounding error.
    stacked = np.sort(np.stack([np.asarray(metrics[name], dtype=np.float64) for name in variants]), axis=0)
    return np.asarray(stacked.sum(axis=0) / len(variants))


def _name(axes: Sequence[str], level: Sequence[bool]) -> str:
    return "+".join(axis for axis, on in zip(axes, level, strict=True) if on) or BASELINE
