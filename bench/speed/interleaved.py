"""Several contenders measured in turn, so that a machine that drifts hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from bench.device.memory import out_of_memory
from bench.speed.inference import Timing, timed_call

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A call that works on `batch` images, made `each_round` times in a round.

    timed: whether it returns its seconds itself, since it is not here that the work is done.
    """

    call: Callable[[], Any]
    batch: int
    each_round: int = 1
    timed: bool = False


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to measure.

    seconds: of all rounds together; only the fewest rounds may exceed it.
    warmup: untimed calls of each contender before the first round.
    """

    seconds: float
    warmup: int = 2
    fewest: int = 3
    most: int = 100


def measure_in_turn(contenders: Mapping[Key, Contender], *, device: torch.device, budget: Budget) -> dict[Key, Timing]:
    """Timings by contender. A round calls each of them, in an order that is drawn anew for every round.

    One that finds no memory in its warm-up is left out of the answer.
    """
    calls = {key: each.call if each.timed else timed_call(each.call, device) for key, each in contenders.items()}
    keys = [key for key, call in calls.items() if _warm(call, budget.warmup, device)]
    seconds: dict[Key, list[float]] = {key: [] for key in keys}
    end = time.perf_counter() + budget.seconds
    for number in range(budget.most):
        if number >= budget.fewest and time.perf_counter() >= end:
            break
        # No contender always runs behind the same one, whose data are then in the cache
        for place in np.random.default_rng(number).permutation(len(keys)):
            key = keys[place]
            seconds[key] += [calls[key]() for _ in range(contenders[key].each_round)]
    return {key: Timing(seconds=np.array(seconds[key]), batch=contenders[key].batch) for key in keys}


def _warm(call: Callable[[], float], times: int, device: torch.device) -> bool:
    """False where memory runs out."""
    try:
        for _ in range(times):
            call()
        return True
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # Only here, where the error no longer holds the activations, can they be given back
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return False
