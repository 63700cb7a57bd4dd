"""Set up a process for a run's numerics, and build its detector."""

from __future__ import annotations

import torch

from bench.detector.ssd import SSD
from bench.device import fast_paths
from bench.device.process_settings import disable_malloc_trim
from bench.spec import DetectorSpec, Numerics


def configure(numerics: Numerics) -> None:
    """Set up this process for a run's numerics. Call it once, before creating tensors."""
    disable_malloc_trim()
    torch.set_num_threads(numerics.threads)
    torch.backends.cudnn.benchmark = True
    if numerics.device == "cuda":
        torch.set_float32_matmul_precision("high")
    if numerics.cpu_kernels:
        import bench.cpu.accelerate  # noqa: F401, PLC0415  # registers kernels; slow to import
    fast_paths.enable(numerics.cpu_kernels)


def build(spec: DetectorSpec, seed: int, numerics: Numerics) -> SSD:
    """Build the detector of a specification for the run's numerics."""
    return place(SSD(spec, seed=seed), numerics)


def place(model: SSD, numerics: Numerics) -> SSD:
    """Move a plain detector to the run's device and memory format, and add CPU kernels if the run uses them."""
    model = model.to(numerics.device)
    if numerics.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if numerics.cpu_kernels:
        from bench.cpu.accelerate import accelerate  # noqa: PLC0415

        model = accelerate(model)
    return model
