"""Every private interface of another library that this project relies on, each with its fallback.

Such interfaces may change in any release, so nothing else in the project names one. A test removes each in turn and
checks the fallback.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

MALLOC_TRIM_THRESHOLD, MALLOC_TOP_PAD, MALLOC_MMAP_MAX, MALLOC_ARENA_MAX = -1, -2, -4, -8  # glibc, malloc.h
# Used by `bench.cpu.loops` only if `multiplies_bfloat16`; otherwise kernels compute in float32
LLVM_BFLOAT16_PRODUCT = "llvm.x86.avx512bf16.dpbf16ps.512"

_OpenMPBody = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def set_malloc_options(options: dict[int, int]) -> bool:
    """Set options of glibc's allocator. False, and nothing set, with another C library (macOS, Windows, musl)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, value) == 1 for name, value in options.items())


class OpenMP:
    """GNU's OpenMP library. Raises AttributeError if it is too old."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._library.GOMP_parallel.argtypes = [_OpenMPBody, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._library.GOMP_parallel.restype = None

    def parallel(self, body: Callable[[int, int], object], threads: int) -> None:
        """Call `body(thread, threads)` in each of so many threads; errors in `body` are lost."""

        def run(_: object) -> None:
            body(self._library.omp_get_thread_num(), self._library.omp_get_num_threads())

        self._library.GOMP_parallel(_OpenMPBody(run), None, threads, 0)


@cache
def add_interpreter_option(option: str) -> bool:
    """Give an option to all Python interpreters that multiprocessing starts from now on.

    False if multiprocessing does not ask for options where it used to: set a variable of the environment then.
    """
    from multiprocessing import util  # noqa: PLC0415

    asked = "_args_from_interpreter_flags"
    usual: Callable[[], list[str]] | None = getattr(util, asked, None)
    if usual is None:
        return False
    setattr(util, asked, lambda: [*usual(), option])
    return True


@cache
def openmp_library() -> OpenMP | None:
    """GNU's OpenMP library as torch has loaded it. None without it: use a thread pool."""
    import torch  # noqa: PLC0415

    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        try:
            return OpenMP(ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW))
        except (OSError, AttributeError):  # not loaded, or too old
            continue
    return None


def below_autograd() -> AbstractContextManager[None] | None:
    """A context in which torch dispatches operators without autograd. None if torch has none: do not dispatch then."""
    import torch  # noqa: PLC0415

    guard: type[AbstractContextManager[None]] | None = getattr(torch._C, "_AutoDispatchBelowAutograd", None)
    return None if guard is None else guard()


def multiplies_bfloat16() -> bool:
    """Whether the CPU has AVX512-BF16. False if torch does not say: use float32 then."""
    return _torch_cpu_has("_is_avx512_bf16_supported")


def version_of(tensor: Tensor) -> int | None:
    """How often torch has counted a change of the tensor. None if it does not count: cache nothing then."""
    return None if tensor.is_inference() else getattr(tensor, "_version", None)


def inverted_residual_blocks() -> tuple[type[nn.Module], ...]:
    """timm's classes of inverted residual blocks. Empty if timm has moved them: fuse no blocks then."""
    try:
        from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual  # noqa: PLC0415
    except ImportError:
        return ()
    return InvertedResidual, DepthwiseSeparableConv


def _torch_cpu_has(name: str) -> bool:
    import torch  # noqa: PLC0415

    supported: Callable[[], bool] | None = getattr(torch.cpu, name, None)
    return supported is not None and bool(supported())
