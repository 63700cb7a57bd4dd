"""Cores, devices and number formats of this machine, and their description."""

from __future__ import annotations

import json
import os

import pytest
import torch

from bench.device.hardware import available_cores, choose_device, computes_bfloat16, device_description
from bench.errors import UserError


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity, which only Linux has")
def test_available_cores_are_those_of_the_process() -> None:
    before = os.sched_getaffinity(0)
    assert available_cores() == len(before)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_without_affinity_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


@pytest.mark.parametrize(("has_gpu", "auto"), [(True, "cuda"), (False, "cpu")])
def test_auto_chooses_the_gpu_if_there_is_one(has_gpu: bool, auto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert choose_device("auto") == auto
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize(("cuda", "message"), [(None, "this torch has no CUDA"), ("12.4", "torch sees no GPU")])
def test_cuda_without_a_gpu_is_an_error(cuda: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(UserError, match=f"--device cuda: {message}.*--device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize("supported", [True, False])
def test_each_device_is_asked_for_bfloat16(supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.device.hardware.multiplies_bfloat16", lambda: supported)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: not supported)
    assert computes_bfloat16("cpu") == supported
    assert computes_bfloat16("cuda") != supported


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
