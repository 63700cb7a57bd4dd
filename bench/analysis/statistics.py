"""Statistics of differences: intervals, p values, corrections for many tests, power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

LEVEL = 0.05  # significance level of every test and every family of tests; intervals are 95%
POWER = 0.8
DRAWS = 40_000  # of the joint distribution; a critical p of 0.05 then has a standard error of 0.001
SEED = 0  # fixed, so that rebuilding a report gives identical files
QUANTILES = 2001  # points at which chi-squared quantiles are computed; between them they are interpolated

# How an interval was computed, as the tables name it.
STUDENT = "t over seeds, these images"
BOOTSTRAP = "bootstrap over images, these models"
JOINT = "seeds and images jointly"


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
    """One-sample Student's t of (n,) independent differences, n >= 2.

    Equal differences say nothing about their error: the interval has no width and p is NaN.
    """
    values = np.asarray(differences, dtype=np.float64)
    assert values.ndim == 1 and len(values) > 1, values.shape
    return t_interval(float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5, len(values) - 1)


def t_interval(estimate: float, error: float, degrees: float, *, level: float = LEVEL) -> Interval:
    """The t interval of an estimate from its standard error and degrees of freedom.

    Without error, the interval has no width and p is NaN.

    level: one minus the coverage of the interval; p is that of a single test.
    """
    if error == 0:
        return Interval(low=estimate, high=estimate, p=math.nan)
    reach = float(special.stdtrit(degrees, 1 - level / 2)) * error
    return Interval(low=estimate - reach, high=estimate + reach, p=t_test(estimate, error, degrees))


def t_test(estimate: float, error: float, degrees: float) -> float:
    """Two-sided p value of an estimate with a standard error > 0."""
    return float(2 * special.stdtr(degrees, -abs(estimate) / error))


def simultaneous(
    estimates: Sequence[float], errors: Sequence[float], degrees: Sequence[float], covariance: NDArray[np.float64]
) -> list[Interval]:
    """95% intervals of M estimates that hold together, and p values adjusted for all M (max-T).

    errors: standard errors > 0. degrees: of freedom. covariance: (M, M) of the estimates; only its correlations count.

    The joint distribution is a multivariate t, drawn `DRAWS` times. Degrees of freedom may differ, so the smallest p
    value takes the place of the largest |t| (Westfall and Young 1993, chapter 2); with equal degrees both are the same.
    """
    if len(estimates) == 1:
        return [t_interval(estimates[0], errors[0], degrees[0])]
    generator = np.random.default_rng(SEED)
    scale = np.sqrt(np.diagonal(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    normal = generator.standard_normal((DRAWS, len(estimates))) * np.sqrt(np.maximum(values, 0)) @ vectors.T
    # One uniform number per draw: the estimates share most of their error, so their error estimates move together.
    uniform = generator.random(DRAWS)
    smallest = np.ones(DRAWS)
    for column, freedom in enumerate(degrees):
        t = normal[:, column] / np.sqrt(_chi_squared_quantile(uniform, freedom) / freedom)
        smallest = np.minimum(smallest, 2 * special.stdtr(freedom, -np.abs(t)))
    smallest.sort()
    critical = float(smallest[int(LEVEL * DRAWS) - 1])
    result = []
    for estimate, error, freedom in zip(estimates, errors, degrees, strict=True):
        interval = t_interval(estimate, error, freedom, level=critical)
        adjusted = max(interval.p, float(np.searchsorted(smallest, interval.p)) / DRAWS)
        result.append(Interval(low=interval.low, high=interval.high, p=adjusted))
    return result


def _chi_squared_quantile(uniform: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    grid = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return np.asarray(np.interp(uniform, grid, special.chdtri(degrees, 1 - grid)))


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


def benjamini_hochberg(p_values: Sequence[float]) -> NDArray[np.float64]:
    """(m,) p values adjusted for m tests (Benjamini and Hochberg 1995), which controls the false discovery rate.

    NaN marks a test that could not be run. It does not count toward m and stays NaN.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full_like(p, np.nan)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
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
