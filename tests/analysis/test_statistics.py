"""Tests of differences against scipy, hand-computed cases and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.analysis.statistics import LEVEL, POWER, holm, power, seeds_needed, student, t_interval

differences = st.lists(st.integers(-50, 50), min_size=2, max_size=9).filter(lambda values: len(set(values)) > 1)


@given(differences)
def test_student_is_scipys(values: list[int]) -> None:
    ours, theirs = student(values), stats.ttest_1samp(values, 0)
    interval = theirs.confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert ours.p == pytest.approx(theirs.pvalue, abs=1e-12)


@given(st.floats(-5, 5), st.floats(0.01, 5), st.integers(1, 400))
def test_interval_and_p_value_agree(estimate: float, error: float, degrees: int) -> None:
    interval = t_interval(estimate, error, degrees)
    assert interval.low < estimate < interval.high
    if abs(interval.p - LEVEL) > 1e-9:
        assert interval.significant == (interval.low > 0 or interval.high < 0)


def test_zero_spread_gives_zero_width() -> None:
    nothing, always = student([0.0, 0.0, 0.0]), student([0.5, 0.5])
    assert (nothing.low, nothing.high, nothing.p) == (0.0, 0.0, 1.0) and not nothing.significant
    assert (always.low, always.high, always.p) == (0.5, 0.5, 0.0) and always.significant


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == pytest.approx([1.0, 1.0])
    # NaN still counts as one of the three tests.
    adjusted = holm([math.nan, 0.02, 0.01])
    assert math.isnan(adjusted[0]) and list(adjusted[1:]) == pytest.approx([0.04, 0.03])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_rejects_step_by_step_whatever_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    rejected = 0
    for value in sorted(p):  # the procedure as Holm states it
        if value * (len(p) - rejected) >= LEVEL:
            break
        rejected += 1
    assert int((adjusted < LEVEL).sum()) == rejected
    assert np.all(adjusted >= np.asarray(p)) and np.all(adjusted <= 1)
    assert holm(p[::-1]) == pytest.approx(adjusted[::-1])


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 5), (1.0, 3), (1.0, 10), (-2.0, 4), (0.0, 6)])
def test_power_matches_simulation(effect: float, seeds: int) -> None:
    draws = np.random.default_rng(seeds).normal(effect, 1.0, (200_000, seeds))
    found = np.abs(draws.mean(axis=1)) / (draws.std(axis=1, ddof=1) / seeds**0.5) > stats.t.ppf(0.975, seeds - 1)
    # Five standard errors of the simulation.
    assert power(effect, 1.0, seeds) == pytest.approx(found.mean(), abs=5 * (0.25 / 200_000) ** 0.5)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 60), st.floats(0.001, 10))
def test_seeds_needed_is_the_first_with_that_power(ratio: float, deviation: float) -> None:
    first = next(n for n in range(2, 1001) if power(ratio, 1.0, n) >= POWER)
    assert seeds_needed(ratio, 1.0) == seeds_needed(-ratio, 1.0) == first
    scaled = seeds_needed(ratio * deviation, deviation)
    assert scaled is not None and abs(scaled - first) <= 1  # the quotient is rounded


def test_seeds_needed_in_edge_cases() -> None:
    assert seeds_needed(1.0, 0.0) == 2 and seeds_needed(1000.0, 1.0) == 2
    assert seeds_needed(0.0, 1.0) is None and seeds_needed(0.0, 0.0) is None
    assert seeds_needed(0.01, 1.0) is None
    # Textbooks give 34 pairs for half a deviation.
    assert seeds_needed(0.5, 1.0) == 34
