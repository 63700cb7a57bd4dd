"""Peak memory agrees with what a process is known to hold."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.device.memory import peak_memory_mib


@pytest.mark.skipif(sys.platform != "linux", reason="compares with /proc, which only Linux has")
def test_peak_memory_is_in_mib() -> None:
    held = np.ones(96 * 2**20, dtype=np.uint8)
    status = Path("/proc/self/status").read_text()
    now = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
    peak = peak_memory_mib(torch.device("cpu"))
    assert peak >= held.nbytes / 2**20
    assert now * 0.9 < peak < now * 100


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_tensors_count() -> None:
    held = torch.rand(4096, 4096, device="cuda")
    assert peak_memory_mib(torch.device("cuda")) >= held.nbytes / 2**20
