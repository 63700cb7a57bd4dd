"""Peak memory of inference, by precision and batch size.

On CUDA the allocator's peak can be reset. The peak of a process cannot, and freed memory stays with the process, so on
a CPU every row is measured in a fresh process.
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
from bench.device.fork_server import start_fork_server
from bench.device.memory import out_of_memory, peak_memory_mib
from bench.device.precision import autocast
from bench.spec import DetectorSpec, Numerics
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
            _row(each, batch, _in_fresh_process(model.spec, content, each, batch))
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


def _in_fresh_process(spec: DetectorSpec, content: Path, numerics: Numerics, batch: int) -> tuple[float, float] | None:
    # A child by exec would inherit its parent's peak; a child of the fork server does not
    context = start_fork_server(cpu_kernels=numerics.cpu_kernels)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(sender, spec, content, numerics, batch), daemon=True)
    child.start()
    sender.close()
    answer: tuple[float, float] | Exception | None = None
    with suppress(EOFError):  # most likely killed because memory ran out
        answer = receiver.recv()
    child.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _report(sender: Connection, spec: DetectorSpec, content: Path, numerics: Numerics, batch: int) -> None:
    """The fresh process: send the two peaks, None, or the error."""
    answer: tuple[float, float] | Exception | None
    try:
        configure(numerics)
        model = build(spec, 0, numerics)
        stored = torch.load(content, weights_only=True, mmap=True)
        model.load_state_dict(stored["model"])
        answer = _idle_and_peak(model.eval(), stored["images"][:batch].clone(), numerics, batch)
    except Exception as error:  # raised by the parent
        answer = RuntimeError(f"{type(error).__name__}: {error}")
    sender.send(answer)
    sender.close()
