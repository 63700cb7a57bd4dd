"""Statistics of differences: intervals, p values, correction for multiple tests, power, seeds needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

LEVEL = 0.05  # significance level of every test; intervals are 95%
POWER = 0.8
MAX_SEEDS = 1000  # beyond this the report says "more than"

# How an interval was computed, as the tables name it.
STUDENT = "Student's t over seeds"
BOOTSTRAP = "paired bootstrap over images"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A 95% confidence interval of a difference and its two-sided p value.

    The interval contains zero if and only if p >= 0.05.
    """

    low: float
    high: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.p < LEVEL


def student(differences: ArrayLike) -> Interval:
    """One-sample Student's t of (n,) independent differences, n >= 2, such as one effect per seed."""
    values = np.asarray(differences, dtype=np.float64)
    assert values.ndim == 1 and len(values) > 1, values.shape
    return t_interval(float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5, len(values) - 1)


def t_interval(estimate: float, error: float, degrees: float) -> Interval:
    """The t interval of an estimate from its standard error and degrees of freedom."""
    if error == 0:  # all differences are equal
        return Interval(low=estimate, high=estimate, p=1.0 if estimate == 0 else 0.0)
    reach = float(special.stdtrit(degrees, 1 - LEVEL / 2)) * error
    p = float(2 * special.stdtr(degrees, -abs(estimate) / error))
    return Interval(low=estimate - reach, high=estimate + reach, p=p)


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """(m,) p values adjusted for m tests (Holm 1979), which controls the family-wise error rate.

    NaN marks a test that could not be run. It still counts toward m and stays NaN.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)  # NaN last
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return adjusted


def power(effect: float, deviation: float, seeds: int) -> float:
    """Power of the t test of `seeds` differences for a true `effect` with standard deviation `deviation` > 0."""
    from scipy.stats import nct  # noqa: PLC0415  # takes a second to import; not needed with one seed

    degrees = seeds - 1
    limit = float(special.stdtrit(degrees, 1 - LEVEL / 2))
    shift = abs(effect) / deviation * seeds**0.5
    if shift > 10 * limit:  # power is 1, and scipy's noncentral t is inaccurate here
        return 1.0
    # From a shift of 5 on, significance with the wrong sign has probability below 1e-6, and scipy may return NaN.
    wrong = float(nct.cdf(-limit, degrees, shift)) if shift < 5 else 0.0
    return float(nct.sf(limit, degrees, shift)) + wrong


def seeds_needed(effect: float, deviation: float) -> int | None:
    """The smallest number of seeds (at least 2) with 80% power for such a difference.

    effect, deviation: mean and sample standard deviation of the per-seed differences. None if more than `MAX_SEEDS`
    are needed.
    """
    if deviation == 0:
        return 2 if effect else None
    # Power grows with the number of seeds: bisect.
    low, high = 1, MAX_SEEDS
    if effect == 0 or power(effect, deviation, high) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if power(effect, deviation, middle) >= POWER:
            high = middle
        else:
            low = middle
    return high
