"""Memory: how much was taken, and whether an error says that there is no more."""

from __future__ import annotations

import resource
import sys

import torch


def out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory ran out: torch has no class of error for the CPU's allocator."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def peak_memory_mib(device: torch.device) -> float:
    """Largest memory so far, in MiB: of tensors on a CUDA device, elsewhere of this process (resident).

    On CUDA counted from the last `torch.cuda.reset_peak_memory_stats`; a process's peak cannot be reset.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes on macOS, KiB on Linux
