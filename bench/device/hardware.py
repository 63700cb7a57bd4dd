"""What this machine has: cores, devices, the number formats that they compute in, and their description."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.device.private_interfaces import multiplies_bfloat16
from bench.errors import UserError

if TYPE_CHECKING:
    import torch


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


def device_description(device: torch.device) -> dict[str, Any]:
    """What was measured on, for records. None where the system does not say."""
    import torch  # noqa: PLC0415

    description: dict[str, Any] = {
        "device": str(device),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "logical_cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }
    if device.type != "cuda":
        return {"name": description["cpu"]} | description
    properties = torch.cuda.get_device_properties(device)
    return (
        {"name": properties.name}
        | description
        | {
            "memory_mib": properties.total_memory // 2**20,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "driver": _nvidia_driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "clock_mhz": _nvml(torch.cuda.clock_rate, device),
            "temperature_c": _nvml(torch.cuda.temperature, device),
            "tf32": torch.get_float32_matmul_precision() != "highest",
        }
    )


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _nvidia_driver() -> str | None:
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        return None


def _nvml(query: Callable[[torch.device], int], device: torch.device) -> int | None:
    """The answer of NVML, or None: torch asks it through an optional package, and not every driver answers."""
    try:
        return query(device)
    except Exception:  # NVML's errors are classes of that package; a description is not worth a failure
        return None
