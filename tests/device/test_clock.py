"""Measured times are those of the call alone, and statistics of them agree with numpy."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.device.clock import Timing, measure, timed_call

CPU = torch.device("cpu")


class Clock:
    """A clock that moves only when a call works. The first `slow` calls take 100 seconds each, the others one."""

    def __init__(self, slow: int = 0) -> None:
        self.now, self.slow, self.calls = 0.0, slow, 0

    def perf_counter(self) -> float:
        return self.now

    def work(self) -> None:
        self.now += 100.0 if self.calls < self.slow else 1.0
        self.calls += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("bench.device.clock.time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def test_a_sleep_of_known_length_is_measured() -> None:
    seconds = measure(lambda: time.sleep(0.01), device=CPU, samples=15)
    assert len(seconds) == 15
    assert seconds.min() >= 0.01
    assert np.median(seconds) < 0.1


def test_measuring_adds_next_to_nothing() -> None:
    """The call times itself, because a sleep never takes exactly as long as requested."""
    own: list[float] = []

    def call() -> None:
        start = time.perf_counter()
        time.sleep(0.005)
        own.append(time.perf_counter() - start)

    seconds = measure(call, device=CPU, samples=40, warmup=2)
    error = seconds - np.array(own[2:])
    print(f"error of a call of 5 ms: median {1e6 * np.median(error):.1f}, largest {1e6 * error.max():.1f} microseconds")
    assert (error >= 0).all()
    assert np.median(error) < 0.0005


def test_warm_up_is_not_among_the_samples(clock: Clock) -> None:
    clock.slow = 2
    assert measure(clock.work, device=CPU, samples=4, warmup=2).tolist() == [1.0] * 4
    assert clock.calls == 6


@pytest.mark.parametrize(("budget", "expected"), [(0.5, 3), (5.0, 4), (100.0, 20)])
def test_the_budget_ends_a_measurement_after_the_fewest_samples(clock: Clock, budget: float, expected: int) -> None:
    seconds = measure(clock.work, device=CPU, samples=20, warmup=1, fewest=3, budget_seconds=budget)
    assert len(seconds) == expected


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=50), st.integers(1, 64))
def test_percentiles_are_numpys(times: list[float], batch: int) -> None:
    timing = Timing(seconds=np.array(times), batch=batch)
    assert [timing.p50, timing.p90, timing.p99] == np.percentile(times, (50, 90, 99)).tolist()
    assert timing.n == len(times)
    assert timing.images_per_second == pytest.approx(batch / np.median(times))


def test_a_round_is_the_median_of_its_calls() -> None:
    timing = Timing(seconds=np.array([1.0, 9.0, 2.0, 5.0, 3.0, 4.0]), calls_per_round=3)
    assert timing.rounds.tolist() == [2.0, 4.0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_work_is_timed_and_not_its_launch() -> None:
    device = torch.device("cuda")
    a = torch.rand(4096, 4096, device=device)

    def work() -> None:
        for _ in range(20):
            a @ a

    once = timed_call(work, device)
    once()
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    launch = time.perf_counter() - start
    torch.cuda.synchronize()
    wall = time.perf_counter() - start
    assert once() > 0.5 * wall > launch
