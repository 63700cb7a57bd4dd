"""Device, precision, threads and kernels: decided once for a run, the same in all its cells."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bench.data.targets import Targets
from bench.detector.ssd import SSD
from bench.device.clock import measure
from bench.device.hardware import available_cores, computes_bfloat16
from bench.device.process_settings import disable_malloc_trim
from bench.spec import Numerics, Specification, TrainSpec
from bench.speed.cost import dense_convolution
from bench.training.setup import build, configure
from bench.training.trainer import Trainer

LEAST_GAIN = 1.2  # speed-up of a dense convolution that justifies the rounding of bfloat16
WORTH_COMPILING = 1000  # images (steps x batch) that a cell trains on


def decide(spec: Specification, device: str, *, jobs: int, cpu_kernels: bool | None = None) -> Numerics:
    """The numerics of a run: bfloat16 if the device multiplies in it and training steps get faster.

    With kernels for all grouped convolutions, a dense convolution alone decides: kernels gain from bfloat16 wherever
    dense convolutions do. Otherwise a whole training step decides, since torch's depthwise convolutions may lose more.

    jobs: cells at a time, which share the cores. cpu_kernels: None to use them where `worth_compiling`.
    """
    threads = max(1, available_cores() // jobs) if device == "cpu" else max(1, available_cores())
    kernels = worth_compiling(spec.training, device) if cpu_kernels is None else cpu_kernels
    plain = Numerics(device=device, precision="float32", threads=threads, cpu_kernels=kernels)
    half = replace(plain, precision="bfloat16")
    if not computes_bfloat16(device):
        return plain
    if device == "cuda":
        return half
    disable_malloc_trim()
    torch.set_num_threads(threads)
    if kernels and _has_kernels_for_grouped(spec, plain):
        # Compiling the kernels for both precisions would take longer than a cell could gain
        return half if _dense_gain() >= LEAST_GAIN else plain
    return min((plain, half), key=lambda numerics: step_seconds(spec, numerics)[0])


def _has_kernels_for_grouped(spec: Specification, numerics: Numerics) -> bool:
    from bench.cpu.accelerate import has_kernels_for_grouped  # noqa: PLC0415

    return has_kernels_for_grouped(build(spec.detector, 0, numerics))


def _dense_gain() -> float:
    """The speed-up of a dense convolution by bfloat16 on the CPU."""
    cpu = torch.device("cpu")
    single, half = (
        measure(dense_convolution("cpu", dtype)[0], device=cpu, samples=5) for dtype in (torch.float32, torch.bfloat16)
    )
    return float(np.median(single) / np.median(half))


def worth_compiling(training: TrainSpec, device: str) -> bool:
    """Whether a cell trains long enough on a CPU to gain more from kernels than compiling them takes."""
    return device == "cpu" and training.steps * training.batch >= WORTH_COMPILING


def step_seconds(spec: Specification, numerics: Numerics) -> tuple[float, int]:
    """Median time of a training step on random pixels, and the number of parameters."""
    configure(numerics)
    model, trainer, images, targets = trial(spec, numerics, batch=spec.training.batch)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        float(trainer.step(spec.training.steps - 1, images, targets).total)
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[1], sum(parameter.numel() for parameter in model.parameters())


def trial(spec: Specification, numerics: Numerics, *, batch: int) -> tuple[SSD, Trainer, Tensor, Targets]:
    """A detector, its trainer, and a batch of random pixels with one box in each image."""
    model, size = build(spec.detector, 0, numerics), spec.detector.size
    shape = (batch, 3, size, size)
    images = torch.rand(shape).mul_(255).contiguous(memory_format=torch.channels_last).to(numerics.device)
    boxes = torch.tensor([0.2, 0.2, 0.6, 0.6]).expand(batch, 1, 4).contiguous()
    labels = torch.ones(batch, 1, dtype=torch.long)
    targets = Targets(boxes, labels, torch.zeros_like(labels, dtype=torch.bool)).to(numerics.device)
    return model, Trainer(model, spec.training, numerics), images, targets
