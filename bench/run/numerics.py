"""Device, precision and threads: decided once for a run, the same in all its cells."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from bench.cpu import depthwise
from bench.cpu.depthwise import use_compiled_loops
from bench.data.targets import Targets
from bench.detector.folded_convolution import FoldedConvolution
from bench.detector.ssd import SSD
from bench.device.process_settings import keep_pages
from bench.errors import UserError
from bench.spec import Numerics, Specification, TrainSpec
from bench.speed.inference import dense_convolution, measure
from bench.training.trainer import Trainer

LEAST_GAIN = 1.2  # of a dense convolution by bfloat16; for less its rounding is not worth it
WORTH_COMPILING = 1000  # images that a cell trains on, each as often as it is seen


def choose_device(wanted: str) -> str:
    """ "cpu" or "cuda" for "auto", "cpu" or "cuda". Raises UserError for a GPU that is not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        built = "this torch has no CUDA" if torch.version.cuda is None else "torch sees no GPU (check nvidia-smi)"
        raise UserError(f"--device cuda: {built}. Take --device cpu, or --device auto for what there is")
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def decide(spec: Specification, device: str, *, jobs: int) -> Numerics:
    """The numerics of a run. bfloat16 where the device computes in it and a training step gains by it.

    On a CPU compiled loops gain by it wherever dense convolutions do (twofold or more with AVX512-BF16 or AMX), so
    these alone are timed. torch's depthwise convolutions may lose more; where there are some, a step of `spec` is.
    """
    threads = max(1, available_cores() // jobs) if device == "cpu" else max(1, available_cores())
    compiled = worth_compiling(spec.training, device)
    plain = Numerics(device=device, precision="float32", threads=threads, cpu_kernels=compiled)
    if device == "cuda":
        return replace(plain, precision="bfloat16") if torch.cuda.is_bf16_supported() else plain
    if not computes_bfloat16(device):
        return plain
    keep_pages()
    torch.set_num_threads(threads)
    half = replace(plain, precision="bfloat16")
    if compiled and _groups_by_loops(SSD(spec.detector, seed=0)):
        # For both precisions, compiling would take longer than a cell could gain
        return half if _dense_gain() >= LEAST_GAIN else plain
    return min((plain, half), key=lambda numerics: step_seconds(spec, numerics)[0])


def _groups_by_loops(model: SSD) -> bool:
    """Whether compiled loops compute all convolutions but dense ones."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d | FoldedConvolution)]
    return all(each.groups == 1 or (isinstance(each, FoldedConvolution) and each.depthwise) for each in convolutions)


def _dense_gain() -> float:
    """How many times as fast a dense convolution is in bfloat16, on the CPU."""
    cpu = torch.device("cpu")
    single, half = (
        measure(dense_convolution("cpu", dtype)[0], device=cpu, samples=5) for dtype in (torch.float32, torch.bfloat16)
    )
    return float(np.median(single) / np.median(half))


def worth_compiling(training: TrainSpec, device: str) -> bool:
    """Whether a cell trains long enough on a CPU to gain more by compiled loops than their compiler takes."""
    return device == "cpu" and training.steps * training.batch >= WORTH_COMPILING


def available_cores() -> int:
    """Cores that this process may use; a container's share where it is smaller than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def configure(numerics: Numerics) -> None:
    """Set this process up for a run's numerics. Once, before the first tensor."""
    keep_pages()
    torch.set_num_threads(numerics.threads)
    use_compiled_loops(numerics.cpu_kernels)
    torch.backends.cudnn.benchmark = True
    if numerics.device == "cuda":
        torch.set_float32_matmul_precision("high")


def computes_bfloat16(device: str) -> bool:
    """Whether "cpu" or "cuda" multiplies in bfloat16 itself; what does not, emulates it slowly."""
    return torch.cuda.is_bf16_supported() if device == "cuda" else depthwise.computes_bfloat16()


def step_seconds(spec: Specification, numerics: Numerics) -> tuple[float, int]:
    """Median time of a training step on random pixels, and the number of parameters."""
    use_compiled_loops(numerics.cpu_kernels)
    model, trainer, images, targets = trial(spec, numerics, batch=spec.training.batch)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        float(trainer.step(spec.training.steps - 1, images, targets).total)
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[1], sum(parameter.numel() for parameter in model.parameters())


def trial(spec: Specification, numerics: Numerics, *, batch: int) -> tuple[SSD, Trainer, Tensor, Targets]:
    """A detector, what trains it, and a batch of random pixels with a box in each image."""
    detector = spec.detector
    model = SSD(detector, seed=0).to(numerics.device).to(memory_format=torch.channels_last)
    shape = (batch, 3, detector.size, detector.size)
    images = torch.rand(shape).mul_(255).contiguous(memory_format=torch.channels_last).to(numerics.device)
    boxes = torch.tensor([0.2, 0.2, 0.6, 0.6]).expand(batch, 1, 4).contiguous()
    labels = torch.ones(batch, 1, dtype=torch.long)
    targets = Targets(boxes, labels, torch.zeros_like(labels, dtype=torch.bool)).to(numerics.device)
    return model, Trainer(model, spec.training, numerics), images, targets
