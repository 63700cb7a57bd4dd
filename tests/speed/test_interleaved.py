"""Contenders take turns: each is measured as it is, whatever the machine does meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from bench.speed.interleaved import Budget, Contender, measure_in_turn

CPU = torch.device("cpu")


class Machine:
    """A clock that moves only when work is done, each call slower than the one before."""

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
    for module in ("bench.speed.inference.time", "bench.speed.interleaved.time"):
        monkeypatch.setattr(module, SimpleNamespace(perf_counter=machine.perf_counter))
    return machine


def test_known_sleeps_are_reported_apart() -> None:
    contenders = {
        seconds: Contender(call=lambda seconds=seconds: time.sleep(seconds), batch=2)  # type: ignore[misc]
        for seconds in (0.005, 0.02)
    }
    timings = measure_in_turn(contenders, device=CPU, budget=Budget(seconds=0.0, warmup=0, fewest=5))
    for seconds, timing in timings.items():
        assert timing.n == 5
        assert timing.seconds.min() >= seconds
        assert timing.images_per_second <= 2 / seconds


def test_a_machine_that_drifts_hits_all_alike(machine: Machine) -> None:
    """Ten times slower at the end: one after the other, the second would seem several times as slow."""
    machine.drift = 0.1
    contenders = {name: Contender(call=machine.work(name, 1.0), batch=1) for name in "ab"}
    timings = measure_in_turn(contenders, device=CPU, budget=Budget(seconds=1e9, warmup=0, most=50))
    assert timings["a"].p50 == pytest.approx(timings["b"].p50, rel=0.05)
    assert timings["a"].seconds[-1] > 5 * timings["a"].seconds[0]


def test_the_order_within_a_round_is_not_always_the_same(machine: Machine) -> None:
    contenders = {name: Contender(call=machine.work(name, 1.0), batch=1) for name in "abc"}
    measure_in_turn(contenders, device=CPU, budget=Budget(seconds=1e9, warmup=0, most=12))
    rounds = ["".join(machine.calls[start : start + 3]) for start in range(0, 36, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 3


def test_small_batches_are_called_more_often(machine: Machine) -> None:
    contenders = {batch: Contender(call=machine.work("", 1.0), batch=batch, each_round=8 // batch) for batch in (1, 8)}
    timings = measure_in_turn(contenders, device=CPU, budget=Budget(seconds=1e9, most=4))
    assert {batch: timing.n for batch, timing in timings.items()} == {1: 32, 8: 4}


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 3), (9.0, 5), (1e9, 20)])
def test_the_budget_ends_the_rounds_but_not_below_the_fewest(machine: Machine, seconds: float, rounds: int) -> None:
    contenders = {name: Contender(call=machine.work(name, 1.0), batch=1) for name in "ab"}
    budget = Budget(seconds=seconds, warmup=2, fewest=3, most=20)
    assert {timing.n for timing in measure_in_turn(contenders, device=CPU, budget=budget).values()} == {rounds}


def test_who_finds_no_memory_is_left_out_and_the_others_stay(machine: Machine) -> None:
    def too_large() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    contenders = {
        "large": Contender(call=too_large, batch=64),
        "small": Contender(call=machine.work("", 1.0), batch=1),
    }
    assert list(measure_in_turn(contenders, device=CPU, budget=Budget(seconds=0.0))) == ["small"]


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    def broken() -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        measure_in_turn({"a": Contender(call=broken, batch=1)}, device=CPU, budget=Budget(seconds=0.0))
