"""Interleaved contenders are measured alike on a drifting machine, and their ratios have honest intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from bench.device.clock import Timing
from bench.speed.interleaved import (
    ROUNDS_FOR_RATIO,
    Budget,
    Contender,
    measure_interleaved,
    paired_ratio,
    paired_ratios,
    ratio_columns,
)

CPU = torch.device("cpu")


class Machine:
    """A clock that moves only when a contender works. With drift, each call is slower than the one before."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now, self.drift, self.calls = 0.0, drift, list[str]()

    def perf_counter(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds * (1 + self.drift * len(self.calls))
            self.calls.append(name)

        return call


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    for module in ("bench.device.clock.time", "bench.speed.interleaved.time"):
        monkeypatch.setattr(module, SimpleNamespace(perf_counter=machine.perf_counter))
    return machine


def test_sleeps_of_known_length_are_measured_apart() -> None:
    contenders = {
        seconds: Contender(call=lambda seconds=seconds: time.sleep(seconds), batch=2)  # type: ignore[misc]
        for seconds in (0.005, 0.02)
    }
    timings = measure_interleaved(contenders, device=CPU, budget=Budget(seconds=0.0, warmup=0, fewest=5))
    for seconds, timing in timings.items():
        assert timing.n == 5
        assert timing.seconds.min() >= seconds
        assert timing.images_per_second <= 2 / seconds


def test_drift_affects_all_contenders_alike(machine: Machine) -> None:
    """The machine gets ten times slower. Measured one after the other, the second would seem several times slower."""
    machine.drift = 0.1
    contenders = {name: Contender(call=machine.work(name, 1.0), batch=1) for name in "ab"}
    timings = measure_interleaved(contenders, device=CPU, budget=Budget(seconds=1e9, warmup=0, most=50))
    assert timings["a"].p50 == pytest.approx(timings["b"].p50, rel=0.05)
    assert timings["a"].seconds[-1] > 5 * timings["a"].seconds[0]


def test_the_order_within_a_round_is_random(machine: Machine) -> None:
    contenders = {name: Contender(call=machine.work(name, 1.0), batch=1) for name in "abc"}
    measure_interleaved(contenders, device=CPU, budget=Budget(seconds=1e9, warmup=0, most=12))
    rounds = ["".join(machine.calls[start : start + 3]) for start in range(0, 36, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 3


def test_small_batches_are_called_more_often(machine: Machine) -> None:
    contenders = {
        batch: Contender(call=machine.work("", 1.0), batch=batch, calls_per_round=8 // batch) for batch in (1, 8)
    }
    timings = measure_interleaved(contenders, device=CPU, budget=Budget(seconds=1e9, most=6))
    assert {batch: timing.n for batch, timing in timings.items()} == {1: 48, 8: 6}


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 3), (9.0, 5), (1e9, 20)])
def test_the_budget_ends_the_rounds_after_the_fewest(machine: Machine, seconds: float, rounds: int) -> None:
    contenders = {name: Contender(call=machine.work(name, 1.0), batch=1) for name in "ab"}
    budget = Budget(seconds=seconds, warmup=2, fewest=3, most=20)
    assert {timing.n for timing in measure_interleaved(contenders, device=CPU, budget=budget).values()} == {rounds}


def test_a_contender_that_runs_out_of_memory_is_left_out(machine: Machine) -> None:
    def too_large() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    contenders = {
        "large": Contender(call=too_large, batch=64),
        "small": Contender(call=machine.work("", 1.0), batch=1),
    }
    assert list(measure_interleaved(contenders, device=CPU, budget=Budget(seconds=0.0))) == ["small"]


def test_other_errors_are_raised() -> None:
    def broken() -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        measure_interleaved({"a": Contender(call=broken, batch=1)}, device=CPU, budget=Budget(seconds=0.0))


def timing(*seconds: float) -> Timing:
    return Timing(seconds=np.array(seconds))


def the_reference(_: str) -> str:
    return "reference"


def test_a_ratio_is_the_geometric_mean_of_the_rounds_with_scipys_t_interval() -> None:
    rng = np.random.default_rng(0)
    reference, contender = timing(*rng.lognormal(1.0, 0.1, 12)), timing(*rng.lognormal(0.0, 0.2, 12))
    ratio = paired_ratio(reference, contender)
    ratios = reference.seconds / contender.seconds
    expected = stats.ttest_1samp(np.log(ratios), 0.0).confidence_interval(0.95)
    assert ratio.rounds == 12
    assert ratio.value == pytest.approx(stats.gmean(ratios), rel=1e-12)
    assert (ratio.low, ratio.high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)), rel=1e-12)


def test_what_slows_a_whole_round_does_not_change_the_ratio() -> None:
    slow = np.array([1.0, 7.0, 1.0, 3.0, 1.0])
    ratio = paired_ratio(Timing(seconds=4 * slow), Timing(seconds=2 * slow))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    assert ratio.narrow


def test_a_round_of_several_calls_counts_once_by_its_median() -> None:
    several = Timing(seconds=np.array([1.0, 1.0, 50.0, 2.0, 90.0, 2.0]), calls_per_round=3)
    ratio = paired_ratio(timing(3.0, 6.0), several)
    assert ratio.rounds == 2
    assert ratio.value == pytest.approx(3.0)


def test_ratios_without_a_measured_reference_are_none() -> None:
    timings = {"a": timing(1.0, 2.0), "b": timing(2.0, 4.0)}
    assert paired_ratios(timings, the_reference) == {}
    assert set(ratio_columns(None, "times").values()) == {None}
    columns = ratio_columns(paired_ratio(timings["b"], timings["a"]), "times")
    assert columns == pytest.approx({"rounds": 2, "times": 2.0, "times_low": 2.0, "times_high": 2.0})


def draws(median: float, noise: float, rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from median * np.exp(rng.normal(0, noise, 64))


def measure_noisy(noise: float, rng: np.random.Generator, budget: Budget) -> tuple[Timing, Timing]:
    """A reference and a contender twice as fast; `noise` is the standard deviation of their log ratio in a round."""
    medians = {"reference": 2.0, "twice as fast": 1.0}
    streams = {name: draws(median, noise / 2**0.5, rng) for name, median in medians.items()}
    contenders = {name: Contender(call=stream.__next__, batch=1, timed=True) for name, stream in streams.items()}
    timings = measure_interleaved(contenders, device=CPU, budget=budget, reference=the_reference)
    return timings["reference"], timings["twice as fast"]


def test_rounds_go_on_until_the_interval_is_narrow() -> None:
    budget = Budget(seconds=1e9, warmup=0)
    ratio = paired_ratio(*measure_noisy(0.15, np.random.default_rng(0), budget))
    assert ratio.rounds > 25
    assert ratio.narrow
    assert ratio.high / ratio.low <= 1.05**2
    assert paired_ratio(*measure_noisy(0.001, np.random.default_rng(0), budget)).rounds == ROUNDS_FOR_RATIO


def test_rounds_end_when_the_time_is_up_but_not_before_the_fewest() -> None:
    budget = Budget(seconds=0.0, warmup=0)
    reference, contender = measure_noisy(0.5, np.random.default_rng(0), budget)
    assert reference.n == contender.n == budget.fewest == 5
    assert not paired_ratio(reference, contender).narrow


def test_the_interval_covers_the_true_ratio_although_its_width_ends_the_rounds() -> None:
    """An interval that is narrow by chance ends the rounds early, which costs coverage."""
    rng, budget = np.random.default_rng(0), Budget(seconds=1e9, warmup=0)
    ratios = [
        paired_ratio(*measure_noisy(noise, rng, budget)) for noise in (0.03, 0.05, 0.07, 0.09) for _ in range(300)
    ]
    covered = np.mean([ratio.low <= 2.0 <= ratio.high for ratio in ratios])
    print(f"{100 * covered:.1f}% of {len(ratios)} intervals cover the true ratio")
    assert 0.93 <= covered <= 0.97
