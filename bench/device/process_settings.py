"""Settings of the C allocator and of OpenMP that training on a CPU needs, and of the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from bench.device.private_interfaces import (
    MALLOC_ARENA_MAX,
    MALLOC_MMAP_MAX,
    MALLOC_TOP_PAD,
    MALLOC_TRIM_THRESHOLD,
    set_malloc_options,
)

_SET_BY_US = "SSD_ABLATION_HAS_SET"  # names of the variables that we set, for child processes that inherit them


def disable_malloc_trim() -> bool:
    """Make glibc keep freed memory in this process. False, without effect, with another C library.

    By default glibc returns every large tensor to the kernel at once; the next step gets the pages back zeroed, one
    page fault each. Keeping them halves the time of a training step of the light backbone on two cores.
    """
    return set_malloc_options(
        {MALLOC_MMAP_MAX: 0, MALLOC_TRIM_THRESHOLD: 2**31 - 1, MALLOC_TOP_PAD: 256 << 20, MALLOC_ARENA_MAX: 1}
    )


def limit_openmp_spin() -> None:
    """Let idle OpenMP threads of this process and its children sleep soon. Call it before importing torch.

    By default they spin for long. On a busy machine they then take cores from the very thread that they wait for.
    If they slept at once, they would wake too late for the next of many short layers. GNU's runtime takes a spin
    count; others only know the policy. Does not overwrite the user's own settings.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    wanted = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "20000"}
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours, **{_SET_BY_US: " ".join(ours)})


@contextmanager
def user_environment() -> Iterator[None]:
    """Undo `limit_openmp_spin` in the environment, for a child process with the user's settings only."""
    names = [*os.environ.get(_SET_BY_US, "").split(), _SET_BY_US]
    ours = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(ours)


@contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment in this context, also for the processes started in it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
