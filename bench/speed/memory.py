"""Peak memory of inference, by precision and batch size.

On CUDA the allocator counts, and its peak can be reset. A process's peak cannot, and memory that was
freed stays with the process: on a CPU every figure is that of a fresh process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.detector.ssd import SSD
from bench.device.fork_server import fresh_processes
from bench.device.memory import out_of_memory, peak_memory_mib
from bench.run.numerics import configure
from bench.spec import DetectorSpec, Numerics
from bench.speed.inference import batches_of
from bench.training.trainer import autocast

CALLS = 2


def measure_memory(
    model: SSD, images: Tensor, *, numerics: Sequence[Numerics], batches: Sequence[int]
) -> list[dict[str, Any]]:
    """A row for each precision and batch size: `peak_memory_MiB` of inference from tensors to final boxes.

    images: (N, 3, S, S) uint8, where the model is. On CUDA tensors alone are counted, weights among them;
    on a CPU everything that the process holds, of which `idle_memory_MiB` before the first image
    (libraries, weights). None where memory did not suffice.
    """
    if images.device.type == "cuda":
        return [_row(each, batch, _on_cuda(model, images, each, batch)) for each in numerics for batch in batches]
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder) / "model.pt"
        torch.save({"model": model.state_dict(), "images": images}, content)
        return [
            _row(each, batch, _in_a_fresh_process(model.spec, content, each, batch))
            for each in numerics
            for batch in batches
        ]


def _row(numerics: Numerics, batch: int, measured: tuple[float, float] | None) -> dict[str, Any]:
    idle, peak = measured or (None, None)
    return {"precision": numerics.precision, "batch": batch, "idle_memory_MiB": idle, "peak_memory_MiB": peak}


def _on_cuda(model: SSD, images: Tensor, numerics: Numerics, batch: int) -> tuple[float, float] | None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(images.device)
    return _idle_and_peak(model, images, numerics, batch)


def _idle_and_peak(model: SSD, images: Tensor, numerics: Numerics, batch: int) -> tuple[float, float] | None:
    """MiB before and after some calls; None where memory runs out."""
    idle = peak_memory_mib(images.device)
    turns = batches_of(images, batch)
    try:
        with torch.inference_mode(), autocast(numerics):
            for _ in range(CALLS):
                model.detect(next(turns))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return None
    return idle, peak_memory_mib(images.device)


def _in_a_fresh_process(
    spec: DetectorSpec, content: Path, numerics: Numerics, batch: int
) -> tuple[float, float] | None:
    # A process of its own by exec would be charged with its parent's peak; a fork server's child is not
    context = fresh_processes(cpu_kernels=numerics.cpu_kernels)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(sender, spec, content, numerics, batch), daemon=True)
    child.start()
    sender.close()
    answer: tuple[float, float] | Exception | None = None
    with suppress(EOFError):  # killed for its memory, most likely
        answer = receiver.recv()
    child.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _report(sender: Connection, spec: DetectorSpec, content: Path, numerics: Numerics, batch: int) -> None:
    """What the process does: send the two figures, None, or the error."""
    answer: tuple[float, float] | Exception | None
    try:
        configure(numerics)
        model = SSD(spec, seed=0)
        stored = torch.load(content, weights_only=True, mmap=True)
        model.load_state_dict(stored["model"])
        model.eval().to(memory_format=torch.channels_last)
        answer = _idle_and_peak(model, stored["images"][:batch].clone(), numerics, batch)
    except Exception as error:  # handed to the process that asked
        answer = RuntimeError(f"{type(error).__name__}: {error}")
    sender.send(answer)
    sender.close()
