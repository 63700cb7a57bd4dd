"""Settings of the process that training on a CPU needs, from the C allocator and from OpenMP."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # malloc.h
_SET_BY_US = "SSD_ABLATION_HAS_SET"  # names of variables, for processes that inherit them too


def keep_pages() -> bool:
    """Tell glibc to keep freed memory in this process; False where the C library is another.

    It gives every large tensor back to the system at once, and fetches it again, zeroed page by page, at
    the next step. Keeping the pages halves a training step of the light backbone on two cores.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 256 << 20, _M_ARENA_MAX: 1}
    return all(mallopt(name, value) == 1 for name, value in settings.items())


def wait_briefly() -> None:
    """Let idle OpenMP threads sleep soon, in this process and those it starts; before torch is imported.

    They spin for long by default. Where anything else runs on the machine, they then take the cores from the
    very thread that they wait for. Asleep at once, they wake too late for the next of many short layers.
    GNU's runtime takes the number of rounds; others know the policy alone. What the user has set stays.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    wanted = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "20000"}
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours, **{_SET_BY_US: " ".join(ours)})


@contextmanager
def as_found() -> Iterator[None]:
    """The environment without what `wait_briefly` has set in it; a process that starts in here is as the user's."""
    names = [*os.environ.get(_SET_BY_US, "").split(), _SET_BY_US]
    ours = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(ours)
