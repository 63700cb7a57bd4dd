"""Records say what a figure was measured on."""

from __future__ import annotations

import json

import pytest
import torch

from bench.device.hardware import device_description


def test_a_description_of_the_cpu_fits_into_a_record() -> None:
    description = device_description(torch.device("cpu"))
    assert description["name"] == description["cpu"] != ""
    assert description["threads"] == torch.get_num_threads()
    assert description["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    json.dumps(description)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_description_of_a_gpu_has_driver_clock_and_memory() -> None:
    assert {"driver", "clock_mhz", "memory_mib"} <= device_description(torch.device("cuda")).keys()
