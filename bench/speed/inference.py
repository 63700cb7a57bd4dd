"""How fast a detector is, and what it costs: one measuring function for the matrix and the benchmarks.

A measurement is a list of times of the same call, after a warm-up, with the device idle before it and
finished after it. What is reported are medians and percentiles, never without their number of samples.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.cpu.depthwise import without_compiled_loops
from bench.device.memory import out_of_memory
from bench.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SpeedSettings:
    """How long to measure inference.

    By the default a network of 15 ms an image is measured up to batch 8, one of 1 ms up to 32, and one of 100 ms at 1
    and 2 alone.

    budget_seconds: for everything; only the fewest samples of batch 1, and a call that has begun, may exceed it.
    batches: sizes of the sweep, rising, from 1: batch 1 gives the latency. Between neighbours such as 8 and 16, chance
        would decide which is best, or whether the budget still lasts for the larger.
    latency_share: part of the budget that batch 1 may take.
    warmup: calls before each batch size, untimed.
    fewest, most: samples of a batch size. At batch 1 a p99 wants `most` of some hundreds.
    fall: the sweep ends at two throughputs in a row below this part of the best; one may be another process's doing.
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
        """For checks: enough to see that it works, too little for a comparison."""
        return cls(budget_seconds=1.5, batches=(1, 2, 4), warmup=1, fewest=3, most=50)


@dataclass(frozen=True, kw_only=True, eq=False)
class Timing:
    """Times of n equal calls of `batch` images each.

    seconds: (n,) float64, of each call.
    """

    seconds: NDArray[np.float64] = field(repr=False)
    batch: int = 1

    @property
    def n(self) -> int:
        return len(self.seconds)

    def percentile(self, q: float) -> float:
        """Seconds that `q` per cent of the calls stay within (numpy's linear interpolation)."""
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
        """By the median call: another process's turn on the machine does not count."""
        return self.batch / self.p50


def measure(
    call: Callable[[], object],
    *,
    device: torch.device,
    samples: int,
    warmup: int = 2,
    fewest: int = 3,
    budget_seconds: float = float("inf"),
) -> NDArray[np.float64]:
    """(n,) seconds of n calls, each begun on an idle device and ended when its work is done.

    n is `samples`, or fewer where the budget (warm-up included) ends before, but never below `fewest`.
    On CUDA the time is that between events on the current stream; elsewhere, of the wall clock.
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
    """`call` with the device idle before and synchronised after it, returning its seconds."""

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


def measure_inference(
    predict: Callable[[Tensor], object],
    images: Tensor,
    settings: SpeedSettings | None = None,
    *,
    precision: str = "float32",
) -> dict[str, Any]:
    """The `speed` part of a record: latency at batch 1, and throughput over rising batch sizes.

    predict: from images (B, 3, H, W) to final boxes; called without gradients.
    images: (N, 3, H, W), already on the device and as `predict` wants them. Let them be real: the cost
        of non-maximum suppression depends on what is found. Batches go round and round through them.
    precision: what `predict` computes in, for the record.

    The sweep ends early where throughput falls clearly, memory runs out, or the next batch size would
    exceed the budget; the sizes that were measured are those in `sweep`, and what is left of the budget goes
    to the best of them. Throughput and latency are by the median. Raises UserError where memory does not
    suffice for a single image.
    """
    settings = settings or SpeedSettings()
    end = time.perf_counter() + settings.budget_seconds
    timings: list[Timing] = []
    for place, batch in enumerate(settings.batches):
        left = end - time.perf_counter()
        if timings:
            # in proportion to the images: the worst case, short of running out of memory
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
    """None where memory runs out."""
    try:
        turns = batches_of(images, batch)
        with torch.no_grad():
            seconds = measure(
                lambda: predict(next(turns)),
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
    # Only here, where the error no longer holds the network's activations, can they be given back.
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
    """A timing with the samples that there are seconds for beside its own, up to `settings.most` in all."""
    most = settings.most - timing.n
    if most <= 0 or seconds < (settings.warmup + 1) * timing.p50:
        return timing
    further = replace(settings, fewest=0, most=most)
    more = _measure_batch(predict, images, timing.batch, budget_seconds=seconds, settings=further)
    return timing if more is None else replace(timing, seconds=np.concatenate([timing.seconds, more.seconds]))


def _fastest(timings: Sequence[Timing]) -> int:
    """The place of the highest throughput."""
    return max(range(len(timings)), key=lambda place: timings[place].images_per_second)


def batches_of(images: Tensor, batch: int) -> Iterator[Tensor]:
    """Batches (batch, ...) round and round through images (N, ...), all of them in turn, for ever.

    Views of one tensor: nothing is copied while the clock runs.
    """
    count = len(images)
    if not count:
        raise ValueError("no images to measure with")
    # As many rounds as let the last batch of a full turn run on past the end.
    rounds = 1 + -(-(batch - 1) // count)
    longer = torch.cat([images] * rounds) if rounds > 1 else images
    starts = [turn * batch % count for turn in range(count // gcd(count, batch))]
    return cycle([longer[start : start + batch] for start in starts])


def dense_convolution(device: str, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """A 3x3 convolution that is all arithmetic, large enough for its device, and its operations."""
    batch, channels, side = (64, 512, 64) if device == "cuda" else (8, 256, 38)
    layout = torch.channels_last
    images = torch.rand(batch, channels, side, side).to(device, dtype).contiguous(memory_format=layout)
    weight = torch.rand(channels, channels, 3, 3).to(device, dtype).contiguous(memory_format=layout)

    def call() -> object:
        with torch.inference_mode():
            return F.conv2d(images, weight, padding=1)

    return call, 2 * batch * side * side * channels * channels * 9


def count_flops(model: nn.Module, example: Tensor) -> int:
    """Floating-point operations of one forward pass in evaluation mode; a multiply-add counts as two.

    Convolutions, matrix products and attention are counted, as `torch.utils.flop_counter` does; the model
    must not be compiled. Its training mode and its statistics are left as they were.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        # Compiled loops count the same, and would first have to be compiled for these numbers
        with torch.no_grad(), without_compiled_loops(), FlopCounterMode(display=False) as counter:
            model(example)
    finally:
        for module, training in modes.items():
            module.training = training
    return int(counter.get_total_flops())


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trainable or not; a shared one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def device_description(device: torch.device) -> dict[str, Any]:
    """What the measurements were made on, for the record; None where the system does not say."""
    description: dict[str, Any] = {
        "device": str(device),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "logical_cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }
    if device.type != "cuda":
        return {"name": description["cpu"]} | description
    properties = torch.cuda.get_device_properties(device)
    return (
        {"name": properties.name}
        | description
        | {
            "memory_mib": properties.total_memory // 2**20,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "driver": _nvidia_driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "clock_mhz": _nvml(torch.cuda.clock_rate, device),
            "temperature_c": _nvml(torch.cuda.temperature, device),
            "tf32": torch.get_float32_matmul_precision() != "highest",
        }
    )


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _nvidia_driver() -> str | None:
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        return None


def _nvml(query: Callable[[torch.device], int], device: torch.device) -> int | None:
    """torch asks through a package that need not be installed, of a driver that need not answer."""
    try:
        return query(device)
    except Exception:  # NVML's errors are classes of that package; a description is not worth a failure
        return None
