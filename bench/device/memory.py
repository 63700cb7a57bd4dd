"""Peak memory, and recognising that memory ran out."""

from __future__ import annotations

import resource
import sys

import torch


def out_of_memory(error: Exception) -> bool:
    """Whether `error` means that memory ran out. torch has no exception class for its CPU allocator."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory in MiB: of the tensors on a CUDA device, elsewhere the resident memory of this process.

    On CUDA since the last `torch.cuda.reset_peak_memory_stats`; the peak of a process cannot be reset.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes on macOS, KiB on Linux
