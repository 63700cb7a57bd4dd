"""Fixtures of the detector's tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from bench.cpu.depthwise import use_compiled_loops
from bench.cpu.fused_layer import Pass, through
from bench.cpu.winograd import convolve


@pytest.fixture
def compiled_loops() -> Iterator[None]:
    """Compiled loops in use, in two threads, whatever other tests take."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    use_compiled_loops(True)
    yield
    use_compiled_loops(False)
    torch.set_num_threads(before)


@pytest.fixture
def given_channels(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The channels of what each 3 x 3 convolution was given that was computed by minimal filtering."""
    channels: list[int] = []

    def noted(x: Tensor, filters: Tensor, bias: Tensor, *, rectified: bool) -> Tensor:
        channels.append(x.shape[1])
        return convolve(x, filters, bias, rectified=rectified)

    monkeypatch.setattr("bench.cpu.winograd.convolve", noted)
    return channels


@pytest.fixture
def without_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """This CPU has none, whatever it has: loops compute in bfloat16 too."""
    monkeypatch.setattr("bench.cpu.winograd.has_amx", lambda: False)


@pytest.fixture
def as_one(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The channels of what each stem or block was given that was computed by loops as one."""
    channels: list[int] = []

    def noted(x: Tensor, passes: Sequence[Pass]) -> Tensor:
        channels.append(x.shape[1])
        return through(x, passes)

    monkeypatch.setattr("bench.detector.folded_convolution.through", noted)
    return channels
