"""Loops compiled before the first cell: else it would wait for them, and seem to train more slowly than the others."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any

import numpy as np
import torch

from bench.cpu.photometric import distorted
from bench.data.augment import Photometric
from bench.device.fork_server import fresh_processes
from bench.run.numerics import configure, trial
from bench.spec import Numerics, Specification
from bench.training.trainer import autocast


def compile_loops(spec: Specification, numerics: Numerics) -> float:
    """Compile what cells of `spec` compute with, where that has not been done here before; the seconds it took.

    Raises RuntimeError where that failed.

    The compiler keeps one core busy; so loops of layers that learn and of those that do not are compiled beside
    each other, each in a process that ends with it.
    """
    if not numerics.cpu_kernels:
        return 0.0
    context = fresh_processes(cpu_kernels=True)
    _run(context, [wait_for_server])  # which may still be importing
    start = time.perf_counter()
    _run(context, [learn, look], spec, numerics)
    return time.perf_counter() - start


def _run(context: ForkServerContext | SpawnContext, beside: Sequence[Callable[..., None]], *what: Any) -> None:
    processes = [context.Process(target=each, args=what, daemon=True) for each in beside]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [each.__name__ for each, process in zip(beside, processes, strict=True) if process.exitcode != 0]
    if failed:
        raise RuntimeError(f"loops could not be compiled: {', '.join(failed)} ended early")


def wait_for_server() -> None:
    """Nothing: a process ends with it as soon as there can be one."""


def learn(spec: Specification, numerics: Numerics) -> None:
    """A training step in which everything learns."""
    _begin(numerics)
    everything = replace(spec, training=replace(spec.training, frozen_stride=0))
    _, trainer, images, targets = trial(everything, numerics, batch=2 * numerics.threads)
    trainer.step(spec.training.steps - 1, images, targets)


def look(spec: Specification, numerics: Numerics) -> None:
    """Final boxes of images, what frozen layers make of those of a training step, and the colours of a view."""
    _begin(numerics)
    model, _, images, _ = trial(spec, numerics, batch=2 * numerics.threads)
    with torch.inference_mode(), autocast(numerics):
        model.eval().detect(images.to(torch.uint8))
        model.backbone(images)
    pixel, neutral = np.zeros((1, 1, 3), np.uint8), Photometric(0.0, 1.0, 1.0, 0.0, contrast_first=True)
    distorted(pixel, neutral, (0, 0, 1, 1), np.zeros(3, np.float32))


def _begin(numerics: Numerics) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the keyboard's interrupt is the parent's business
    configure(numerics)
