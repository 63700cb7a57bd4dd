"""Tests of differences against scipy, hand-computed cases and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.analysis.statistics import DRAWS, LEVEL, benjamini_hochberg, holm, simultaneous, student, t_interval

differences = st.lists(st.integers(-50, 50), min_size=2, max_size=9).filter(lambda values: len(set(values)) > 1)
MONTE_CARLO = 5 * (0.25 / DRAWS) ** 0.5  # five standard errors of a probability


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


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [0.5, 0.5]])
def test_equal_differences_are_never_significant(values: list[float]) -> None:
    interval = student(values)
    assert (interval.low, interval.high) == (values[0], values[0])
    assert math.isnan(interval.p) and not interval.significant


def test_simultaneous_is_dunnetts_test() -> None:
    draw = np.random.default_rng(3)
    control, *arms = (draw.normal(shift, 1, 6) for shift in (0.0, 0.3, 1.2, -1.8))
    groups = [control, *arms]
    degrees = sum(len(group) - 1 for group in groups)
    variance = sum(float(group.var(ddof=1)) * 5 for group in groups) / degrees
    covariance = variance / 6 * (np.eye(3) + 1)
    estimates = [float(arm.mean() - control.mean()) for arm in arms]
    ours = simultaneous(estimates, [float(covariance[0, 0]) ** 0.5] * 3, [degrees] * 3, covariance)
    theirs = stats.dunnett(*arms, control=control, rng=np.random.default_rng(0))
    assert [each.p for each in ours] == pytest.approx(theirs.pvalue.tolist(), abs=MONTE_CARLO)
    interval = theirs.confidence_interval(0.95)
    assert [each.low for each in ours] == pytest.approx(interval.low.tolist(), abs=0.05)
    assert [each.high for each in ours] == pytest.approx(interval.high.tolist(), abs=0.05)


def test_independent_estimates_need_sidaks_level_and_equal_ones_none() -> None:
    levels = {}
    for name, covariance in (("independent", np.eye(5)), ("equal", np.ones((5, 5)))):
        interval = simultaneous([0.0] * 5, [1.0] * 5, [1e7] * 5, covariance)[0]
        levels[name] = 2 * stats.norm.sf(interval.high)
    assert levels["independent"] == pytest.approx(1 - 0.95**0.2, rel=0.1)
    assert levels["equal"] == pytest.approx(0.05, rel=0.1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_simultaneous_intervals_agree_with_their_p_values(seed: int) -> None:
    draw = np.random.default_rng(seed)
    factor = draw.normal(size=(4, 4))
    covariance = factor @ factor.T
    errors = np.sqrt(np.diagonal(covariance)).tolist()
    estimates = (draw.normal(0, 2, 4) * errors).tolist()
    degrees = draw.uniform(1, 50, 4).tolist()
    for estimate, error, freedom, each in zip(
        estimates, errors, degrees, simultaneous(estimates, errors, degrees, covariance), strict=True
    ):
        single = t_interval(estimate, error, freedom)
        assert each.p >= single.p and each.low <= single.low + 1e-9 and each.high >= single.high - 1e-9
        assert each.significant == (each.low > 0 or each.high < 0)


def test_a_family_of_one_is_a_single_test() -> None:
    assert simultaneous([1.0], [0.4], [7.0], np.eye(1)) == [t_interval(1.0, 0.4, 7.0)]


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


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(0, 3))
def test_benjamini_and_hochberg_is_scipys_and_skips_missing_tests(p: list[float], missing: int) -> None:
    adjusted = benjamini_hochberg([*p, *[math.nan] * missing])
    assert adjusted[: len(p)] == pytest.approx(stats.false_discovery_control(p))
    assert np.isnan(adjusted[len(p) :]).all()
