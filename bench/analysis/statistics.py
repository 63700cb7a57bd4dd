"""What a number of seeds can tell of a difference: interval, p value, correction for several, seeds needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

LEVEL = 0.05  # of every test; intervals are 95%
POWER = 0.8
MOST_SEEDS = 1000  # nobody trains more: beyond it the answer is "more than"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A 95% interval of a difference and the two-sided p value that belongs to it.

    The interval holds zero if and only if p is at least 0.05.
    """

    low: float
    high: float
    p: float

    @property
    def tells(self) -> bool:
        """Whether zero is outside."""
        return self.p < LEVEL


def student(differences: ArrayLike) -> Interval:
    """Student's t of (n,) independent differences, n >= 2, such as an effect measured once in each seed."""
    values = np.asarray(differences, dtype=np.float64)
    assert values.ndim == 1 and len(values) > 1, values.shape
    return t_interval(float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5, len(values) - 1)


def t_interval(estimate: float, error: float, degrees: float) -> Interval:
    """From an estimate, its standard error and the degrees of freedom of that error."""
    if error == 0:  # the same in all: no width, and no doubt where it is not zero
        return Interval(low=estimate, high=estimate, p=1.0 if estimate == 0 else 0.0)
    reach = float(special.stdtrit(degrees, 1 - LEVEL / 2)) * error
    p = float(2 * special.stdtr(degrees, -abs(estimate) / error))
    return Interval(low=estimate - reach, high=estimate + reach, p=p)


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """(m,) p values adjusted for being m (Holm 1979): below 0.05, all together are wrong in at most 5% of runs.

    NaN, a test that could not be made, still counts as one of the m and stays NaN.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)  # NaN last
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted


def power(effect: float, deviation: float, seeds: int) -> float:
    """How often the t test of `seeds` differences finds a true `effect` of that standard deviation (> 0)."""
    from scipy.stats import nct  # noqa: PLC0415  # a second to import, and nothing that one seed could ask for

    degrees = seeds - 1
    limit = float(special.stdtrit(degrees, 1 - LEVEL / 2))
    shift = abs(effect) / deviation * seeds**0.5
    if shift > 10 * limit:  # certain, and beyond what scipy's noncentral t computes
        return 1.0
    # A finding of the wrong sign has a probability below 1e-6 there, which scipy at times gives as NaN.
    wrong = float(nct.cdf(-limit, degrees, shift)) if shift < 5 else 0.0
    return float(nct.sf(limit, degrees, shift)) + wrong


def seeds_needed(effect: float, deviation: float) -> int | None:
    """The least number of seeds, from 2, whose t test finds such a difference in 80% of runs.

    effect, deviation: mean and sample standard deviation of the per-seed differences. None where more
    than a thousand would be needed.
    """
    if deviation == 0:
        return 2 if effect else None
    # Power rises with the number of seeds: bisection.
    low, high = 1, MOST_SEEDS
    if effect == 0 or power(effect, deviation, high) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if power(effect, deviation, middle) >= POWER:
            high = middle
        else:
            low = middle
    return high
