"""Peak memory of inference, by precision and batch size.

On CUDA the allocator's peak can be reset. The peak of a process cannot, and freed memory stays with the process, so on
a CPU every row is measured in a fresh process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.detector.ssd import SSD
from bench.device.memory import out_of_memory, peak_memory_mib
from bench.device.precision import autocast
from bench.spec import DetectorSpec, Numerics
from bench.speed.fresh_process import in_fresh_process
from bench.speed.inference import batches_of
from bench.training.setup import build, configure

CALLS = 2


def measure_memory(
    model: SSD, images: Tensor, *, numerics: Sequence[Numerics], batches: Sequence[int]
) -> list[dict[str, Any]]:
    """A row for each precision and batch size: `peak_memory_MiB` of inference from tensors to final boxes.

    images: (N, 3, S, S) uint8, on the device of the model. On CUDA the peak is that of the tensors, weights included.
    On a CPU it is that of the whole process; `idle_memory_MiB` is the peak before the first image (libraries, weights).
    None if memory ran out.
    """
    if images.device.type == "cuda":
        return [_row(each, batch, _on_cuda(model, images, each, batch)) for each in numerics for batch in batches]
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder) / "model.pt"
        torch.save({"model": model.state_dict(), "images": images}, content)
        return [
            _row(
                each,
                batch,
                in_fresh_process(_of_stored, model.spec, content, each, batch, cpu_kernels=each.cpu_kernels),
            )
            for each in numerics
            for batch in batches
        ]


def _row(numerics: Numerics, batch: int, measured: tuple[float, float] | None) -> dict[str, Any]:
    idle, peak = measured or (None, None)
    return {"precision": numerics.precision, "batch": batch, "idle_memory_MiB": idle, "peak_memory_MiB": peak}


def _on_cuda(model: SSD, images: Tensor, numerics: Numerics, batch: int) -> tuple[float, float] | None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(images.device)
    return idle_and_peak(model, images, numerics, batch)


def idle_and_peak(model: SSD, images: Tensor, numerics: Numerics, batch: int) -> tuple[float, float] | None:
    """Peak MiB before and after some calls; None if memory runs out."""
    idle = peak_memory_mib(images.device)
    batches = batches_of(images, batch)
    try:
        with torch.inference_mode(), autocast(numerics):
            for _ in range(CALLS):
                model.detect(next(batches))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None
    return idle, peak_memory_mib(images.device)


def _of_stored(spec: DetectorSpec, content: Path, numerics: Numerics, batch: int) -> tuple[float, float] | None:
    """`idle_and_peak` of the stored model and images, in a process that has done nothing yet."""
    configure(numerics)
    model = build(spec, 0, numerics)
    stored = torch.load(content, weights_only=True, mmap=True)
    model.load_state_dict(stored["model"])
    return idle_and_peak(model.eval(), stored["images"][:batch].clone(), numerics, batch)
