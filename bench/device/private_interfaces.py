"""Every private interface of another library that this project relies on, each with its fallback.

Such interfaces may change in any release, so nothing else in the project names one. A test removes each in turn and
checks the fallback.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

MALLOC_TRIM_THRESHOLD, MALLOC_TOP_PAD, MALLOC_MMAP_MAX, MALLOC_ARENA_MAX = -1, -2, -4, -8  # glibc, malloc.h
# Used by `bench.cpu.loops` where `multiplies_bfloat16`; elsewhere the kernels multiply in float32
LLVM_BFLOAT16_PRODUCT = "llvm.x86.avx512bf16.dpbf16ps.512"

OpenMPBody = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def set_malloc_options(options: dict[int, int]) -> bool:
    """Set options of glibc's allocator. False, and nothing set, with another C library (macOS, Windows, musl)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(name, value) == 1 for name, value in options.items())


@cache
def openmp_library() -> Any:
    """GNU's OpenMP library as torch has loaded it, with `GOMP_parallel`. None elsewhere: use threads of our own."""
    import torch  # noqa: PLC0415

    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*")):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_NOW)
            library.GOMP_parallel.argtypes = [OpenMPBody, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            library.GOMP_parallel.restype = None
        except (OSError, AttributeError):  # not loaded, or too old
            continue
        return library
    return None


def multiplies_bfloat16() -> bool:
    """Whether the CPU has AVX512-BF16. False where torch does not say: runs then stay in float32."""
    return _torch_cpu_has("_is_avx512_bf16_supported")


def has_amx() -> bool:
    """Whether the CPU has AMX tiles. False where torch does not say."""
    return _torch_cpu_has("_is_amx_tile_supported")


def version_of(tensor: Tensor) -> int | None:
    """How often torch has counted a change of the tensor. None where it does not count: then cache nothing."""
    return None if tensor.is_inference() else getattr(tensor, "_version", None)


def inverted_residual_blocks() -> tuple[type[nn.Module], ...]:
    """timm's classes of inverted residual blocks. None where timm has moved them: such blocks are then not fused."""
    try:
        from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual  # noqa: PLC0415
    except ImportError:
        return ()
    return InvertedResidual, DepthwiseSeparableConv


def _torch_cpu_has(name: str) -> bool:
    import torch  # noqa: PLC0415

    supported: Callable[[], bool] | None = getattr(torch.cpu, name, None)
    return supported is not None and bool(supported())
