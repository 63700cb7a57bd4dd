"""Time calls, on a CPU or a CUDA device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Timing:
    """Times of n calls of the same work on `batch` images each.

    seconds: (n,) float64, in the order of the calls.
    calls_per_round: consecutive calls that belong to one round of an interleaved measurement.
    """

    seconds: NDArray[np.float64] = field(repr=False)
    batch: int = 1
    calls_per_round: int = 1

    @property
    def n(self) -> int:
        return len(self.seconds)

    def percentile(self, q: float) -> float:
        """Seconds that `q` per cent of the calls do not exceed (numpy's linear interpolation)."""
        return float(np.percentile(self.seconds, q))

    @property
    def p50(self) -> float:
        return self.percentile(50)

    @property
    def p90(self) -> float:
        return self.percentile(90)

    @property
    def p99(self) -> float:
        return self.percentile(99)

    @property
    def images_per_second(self) -> float:
        """Throughput of the median call, which interruptions by other processes hardly change."""
        return self.batch / self.p50

    @property
    def rounds(self) -> NDArray[np.float64]:
        """(rounds,) the median seconds of the calls of each round."""
        by_round: NDArray[np.float64] = np.median(self.seconds.reshape(-1, self.calls_per_round), axis=1)
        return by_round


def measure(
    call: Callable[[], object],
    *,
    device: torch.device,
    samples: int,
    warmup: int = 2,
    fewest: int = 3,
    budget_seconds: float = float("inf"),
) -> NDArray[np.float64]:
    """(n,) seconds of n calls, see `timed_call`.

    n is `samples`, or fewer if the budget (warm-up included) ends before, but at least `fewest`.
    """
    end = time.perf_counter() + budget_seconds
    once = timed_call(call, device)
    for _ in range(warmup):
        once()
    seconds: list[float] = []
    while len(seconds) < samples and (len(seconds) < fewest or time.perf_counter() < end):
        seconds.append(once())
    return np.array(seconds)


def timed_call(call: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """`call`, returning its seconds. The device is idle before it and has finished all work after it.

    On CUDA the time is that between two events on the current stream, elsewhere that of the wall clock.
    """

    def on_clock() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def on_events() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        with torch.cuda.device(device):
            start.record()
            call()
            end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000

    return on_events if device.type == "cuda" else on_clock
