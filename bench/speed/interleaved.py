"""Measure contenders in alternation, so that a drifting machine affects all alike, and compare them round by round."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import astuple, dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from bench.analysis.statistics import student
from bench.device.clock import Timing, timed_call
from bench.device.memory import out_of_memory

RATIO_PRECISION = 0.05  # an interval is narrow enough from its estimate / 1.05 to its estimate * 1.05
ROUNDS_FOR_RATIO = 10  # before a narrow interval may end a measurement, see `paired_ratio`

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A call that works on `batch` images, made `calls_per_round` times in a round.

    timed: the call returns its own seconds, because another process does the work.
    """

    call: Callable[[], Any]
    batch: int
    calls_per_round: int = 1
    timed: bool = False


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to measure.

    seconds: for all rounds together; only the fewest rounds may exceed it.
    warmup: untimed calls of each contender before the first round.
    fewest: rounds, at least. most: rounds if no ratio is measured.
    """

    seconds: float
    warmup: int = 2
    fewest: int = 5
    most: int = 100


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as fast a contender is as its reference, with a 95% interval from `rounds` paired rounds."""

    rounds: int
    value: float
    low: float
    high: float

    @property
    def narrow(self) -> bool:
        """Whether the interval is within `RATIO_PRECISION`, relative to its centre on the log scale."""
        return self.high / self.low <= (1 + RATIO_PRECISION) ** 2


def measure_interleaved(
    contenders: Mapping[Key, Contender],
    *,
    device: torch.device,
    budget: Budget,
    reference: Callable[[Key], Key] | None = None,
) -> dict[Key, Timing]:
    """Timings by contender. Every round calls each of them, in a new random order.

    A contender that runs out of memory in its warm-up is left out of the answer.

    reference: the contender that another one is compared with. The rounds then end as soon as the intervals of all
        ratios are narrow, or the time is up.
    """
    calls = {key: each.call if each.timed else timed_call(each.call, device) for key, each in contenders.items()}
    keys = [key for key, call in calls.items() if _warm_up(call, budget.warmup, device)]
    seconds: dict[Key, list[float]] = {key: [] for key in keys}

    def timings() -> dict[Key, Timing]:
        return {
            key: Timing(
                seconds=np.array(seconds[key]),
                batch=contenders[key].batch,
                calls_per_round=contenders[key].calls_per_round,
            )
            for key in keys
        }

    def complete() -> bool:
        if reference is None:
            return rounds >= budget.most
        return rounds >= ROUNDS_FOR_RATIO and all(
            ratio.narrow for ratio in paired_ratios(timings(), reference).values()
        )

    end = time.perf_counter() + budget.seconds
    rounds = 0
    while rounds < budget.fewest or (time.perf_counter() < end and not complete()):
        # A fixed order would always run a contender on the cache that the same other one leaves behind
        for place in np.random.default_rng(rounds).permutation(len(keys)):
            key = keys[place]
            seconds[key] += [calls[key]() for _ in range(contenders[key].calls_per_round)]
        rounds += 1
    return timings()


def paired_ratios(timings: Mapping[Key, Timing], reference: Callable[[Key], Key]) -> dict[Key, Ratio]:
    """The ratios of all contenders whose reference was measured too."""
    return {
        key: paired_ratio(timings[reference(key)], timing)
        for key, timing in timings.items()
        if reference(key) in timings
    }


def paired_ratio(reference: Timing, contender: Timing) -> Ratio:
    """How many times as fast the contender is, from two timings of the same rounds (at least two).

    The geometric mean of the ratios of the rounds, with Student's t interval of their logarithms. A round counts once,
    by the median of its calls. What slows a whole round cancels in its ratio, and so do outliers that hit both alike.
    Why t: an interval of a median or a trimmed mean, which ignores outliers, covers less once the rounds end as soon as
    it is narrow (91 to 92% in the worst case).

    That stopping rule costs coverage, since intervals that are narrow by chance end the rounds. In simulations (10,000
    each; Gaussian, heavy-tailed and spiky noise of 3 to 15% a round, at most 100 rounds) the interval covers the true
    ratio in 92.0 to 96.1% if it may end them from the fifth round on, and in 93.6 to 96.4% from the tenth
    (`ROUNDS_FOR_RATIO`).
    """
    differences = np.log(reference.rounds) - np.log(contender.rounds)
    interval = student(differences)
    return Ratio(
        rounds=len(differences),
        value=math.exp(differences.mean()),
        low=math.exp(interval.low),
        high=math.exp(interval.high),
    )


def ratio_columns(ratio: Ratio | None, name: str) -> dict[str, float | None]:
    """A ratio as the columns of a row, Nones if it was not measured."""
    names = ("rounds", name, f"{name}_low", f"{name}_high")
    return dict(zip(names, astuple(ratio) if ratio else (None,) * 4, strict=True))


def _warm_up(call: Callable[[], float], times: int, device: torch.device) -> bool:
    """False if memory runs out."""
    try:
        for _ in range(times):
            call()
        return True
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # The error holds the activations, so free memory only after the except block
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return False
