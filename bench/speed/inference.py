"""Latency and throughput of a detector, for the records of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from math import gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.device.clock import Timing, measure
from bench.device.memory import out_of_memory
from bench.errors import UserError

SPEED_IMAGES = 64  # validation images that calls cycle through


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """How long to measure inference.

    With the defaults a network of 15 ms an image is measured up to batch 8, one of 1 ms up to 32, and one of 100 ms at
    1 and 2 only.

    budget_seconds: for everything. Only the fewest samples of batch 1 and a call in progress may exceed it.
    batches: batch sizes to try, rising from 1; batch 1 gives the latency. They are far apart: between neighbours such
        as 8 and 16, noise would decide which is best.
    latency_share: part of the budget that batch 1 may take.
    warmup: untimed calls before each batch size.
    fewest, most: samples of a batch size. A p99 at batch 1 needs some hundreds.
    fall: the sweep ends after two throughputs in a row below this part of the best; a single low one may be noise.
    """

    budget_seconds: float = 2.7
    batches: tuple[int, ...] = (1, 2, 8, 32, 128)
    latency_share: float = 0.45
    warmup: int = 1
    fewest: int = 5
    most: int = 500
    fall: float = 0.9

    def __post_init__(self) -> None:
        if self.batches[:1] != (1,) or list(self.batches) != sorted(set(self.batches)):
            raise ValueError(f"batches must rise from 1: {self.batches}")

    @classmethod
    def quick(cls) -> SpeedSettings:
        """For checks that measuring works; too short for a comparison."""
        return cls(budget_seconds=1.5, batches=(1, 2, 4), warmup=1, fewest=3, most=50)


def measure_inference(
    predict: Callable[[Tensor], object],
    images: Tensor,
    settings: SpeedSettings | None = None,
    *,
    precision: str = "float32",
) -> dict[str, Any]:
    """The `speed` part of a record: latency at batch 1, and throughput over rising batch sizes.

    predict: from images (B, 3, H, W) to final boxes; called without gradients.
    images: (N, 3, H, W), on the device and in the form that `predict` takes. Use real images: the cost of non-maximum
        suppression depends on what is detected. Batches cycle through them.
    precision: that of `predict`, for the record.

    The sweep ends early if throughput falls clearly, memory runs out, or the next batch size would exceed the budget.
    What is left of the budget goes to the best batch size. Throughput and latency are medians. Raises UserError if
    memory does not suffice for a single image.
    """
    settings = settings or SpeedSettings()
    end = time.perf_counter() + settings.budget_seconds
    timings: list[Timing] = []
    for place, batch in enumerate(settings.batches):
        left = end - time.perf_counter()
        if timings:
            # In proportion to the images: the worst case, short of running out of memory
            expected = timings[-1].p50 * batch / timings[-1].batch * (settings.warmup + settings.fewest)
            if expected > left:
                break
            share = left / (len(settings.batches) - place)
        else:
            share = settings.budget_seconds * settings.latency_share
        timing = _measure_batch(predict, images, batch, budget_seconds=share, settings=settings)
        if timing is None:
            if not timings:
                raise UserError(
                    f"speed of inference: no memory for a single image on {images.device}; "
                    "end other processes on the device, or choose another with --device"
                )
            break
        timings.append(timing)
        enough = settings.fall * max(t.images_per_second for t in timings)
        if all(t.images_per_second < enough for t in timings[-2:]):
            break
    place = _fastest(timings)
    timings[place] = _with_more(timings[place], predict, images, end - time.perf_counter(), settings)
    best, single = timings[_fastest(timings)], timings[0]
    return {
        "images_per_second": best.images_per_second,
        "best_batch": best.batch,
        "sweep": [{"batch": t.batch, "images_per_second": t.images_per_second, "samples": t.n} for t in timings],
        "latency_p50_ms": 1000 * single.p50,
        "latency_p90_ms": 1000 * single.p90,
        "latency_p99_ms": 1000 * single.p99,
        "latency_samples": single.n,
        "device": str(images.device),
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def _measure_batch(
    predict: Callable[[Tensor], object],
    images: Tensor,
    batch: int,
    *,
    budget_seconds: float,
    settings: SpeedSettings,
) -> Timing | None:
    """None if memory runs out."""
    try:
        batches = batches_of(images, batch)
        with torch.no_grad():
            seconds = measure(
                lambda: predict(next(batches)),
                device=images.device,
                samples=settings.most,
                warmup=settings.warmup,
                fewest=settings.fewest,
                budget_seconds=budget_seconds,
            )
        return Timing(seconds=seconds, batch=batch)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # The error holds the network's activations, so free memory only after the except block
    if images.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def _with_more(
    timing: Timing,
    predict: Callable[[Tensor], object],
    images: Tensor,
    seconds: float,
    settings: SpeedSettings,
) -> Timing:
    """A timing with as many further samples as fit into `seconds`, up to `settings.most` in all."""
    most = settings.most - timing.n
    if most <= 0 or seconds < (settings.warmup + 1) * timing.p50:
        return timing
    further = replace(settings, fewest=0, most=most)
    more = _measure_batch(predict, images, timing.batch, budget_seconds=seconds, settings=further)
    return timing if more is None else replace(timing, seconds=np.concatenate([timing.seconds, more.seconds]))


def _fastest(timings: Sequence[Timing]) -> int:
    """The position of the highest throughput."""
    return max(range(len(timings)), key=lambda place: timings[place].images_per_second)


def batches_of(images: Tensor, batch: int) -> Iterator[Tensor]:
    """Batches (batch, ...) that cycle through images (N, ...) in order, without end.

    They are views of one tensor, so that nothing is copied while a call is timed.
    """
    count = len(images)
    if not count:
        raise ValueError("no images to measure with")
    # As many copies as the last batch of a cycle needs to run past the end
    copies = 1 + -(-(batch - 1) // count)
    longer = torch.cat([images] * copies) if copies > 1 else images
    starts = [number * batch % count for number in range(count // gcd(count, batch))]
    return cycle([longer[start : start + batch] for start in starts])
