"""What this machine has: cores, devices, and the number formats that they compute in."""

from __future__ import annotations

import os

from bench.device.private_interfaces import multiplies_bfloat16
from bench.errors import UserError


def available_cores() -> int:
    """Cores that this process may use; a container's share where it is smaller than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(wanted: str) -> str:
    """ "cpu" or "cuda" for "auto", "cpu" or "cuda". Raises UserError if there is no usable GPU."""
    import torch  # noqa: PLC0415  # `available_cores` must not wait for it

    if wanted == "cuda" and not torch.cuda.is_available():
        built = "this torch has no CUDA" if torch.version.cuda is None else "torch sees no GPU (check nvidia-smi)"
        raise UserError(f"--device cuda: {built}. Use --device cpu, or --device auto to take what there is")
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def computes_bfloat16(device: str) -> bool:
    """Whether "cpu" or "cuda" multiplies in bfloat16; other hardware emulates it, ten times slower than float32."""
    import torch  # noqa: PLC0415

    return torch.cuda.is_bf16_supported() if device == "cuda" else multiplies_bfloat16()
