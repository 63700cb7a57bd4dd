"""Compile the CPU kernels before the first cell, which would otherwise seem to train more slowly than the others."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

import numpy as np
import torch

from bench.data.augment import Photometric, photometric
from bench.device.fork_server import start_fork_server
from bench.device.precision import autocast
from bench.run.numerics import trial
from bench.spec import Numerics, Specification
from bench.training.setup import configure


def compile_kernels(spec: Specification, numerics: Numerics) -> float:
    """Compile the kernels that cells of `spec` need, unless they are cached; returns the seconds it took.

    The kernels of training and of inference are compiled in two processes at a time, since the compiler uses one core.
    Raises RuntimeError if that fails.
    """
    if not numerics.cpu_kernels:
        return 0.0
    context = start_fork_server(cpu_kernels=True)
    _run(context, [wait_for_server])  # it may still be importing
    start = time.perf_counter()
    _run(context, [compile_training, compile_inference], spec, numerics)
    return time.perf_counter() - start


def _run(context: ForkServerContext | SpawnContext, functions: Sequence[Callable[..., None]], *arguments: Any) -> None:
    processes = [context.Process(target=each, args=arguments, daemon=True) for each in functions]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [each.__name__ for each, process in zip(functions, processes, strict=True) if process.exitcode != 0]
    if failed:
        raise RuntimeError(f"CPU kernels could not be compiled: {', '.join(failed)} ended early")


def wait_for_server() -> None:
    """Do nothing: the process ends as soon as the server can start one."""


def compile_training(spec: Specification, numerics: Numerics) -> None:
    """Run a training step in which everything learns."""
    _begin(numerics)
    everything = replace(spec, training=replace(spec.training, frozen_stride=0))
    _, trainer, images, targets = trial(everything, numerics, batch=2 * numerics.threads)
    trainer.step(spec.training.steps - 1, images, targets)


def compile_inference(spec: Specification, numerics: Numerics) -> None:
    """Run inference, the frozen layers of a training step, and the photometric distortions."""
    _begin(numerics)
    model, _, images, _ = trial(spec, numerics, batch=2 * numerics.threads)
    with torch.inference_mode(), autocast(numerics):
        model.eval().detect(images.to(torch.uint8))
        model.backbone(images)
    pixel, neutral = np.zeros((1, 1, 3), np.uint8), Photometric(0.0, 1.0, 1.0, 0.0, contrast_first=True)
    photometric(pixel, neutral, (0, 0, 1, 1), np.zeros(3, np.float32))


def _begin(numerics: Numerics) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent
    configure(numerics)
