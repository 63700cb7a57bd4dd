"""Fixtures for the tests of CPU kernels."""

from __future__ import annotations

import pytest
from torch import Tensor

from bench.cpu.inverted_residual import FusedLayer
from bench.cpu.winograd import convolve


@pytest.fixture
def winograd_inputs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The channels of the input of each 3 x 3 convolution that the Winograd kernel computed."""
    channels: list[int] = []

    def recorded(x: Tensor, filters: Tensor, bias: Tensor, *, relu: bool) -> Tensor:
        channels.append(x.shape[1])
        return convolve(x, filters, bias, relu=relu)

    monkeypatch.setattr("bench.cpu.winograd.convolve", recorded)
    return channels


@pytest.fixture
def fused_inputs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The channels of the input of each block that ran as one operator."""
    channels: list[int] = []
    run = FusedLayer.run

    def recorded(layer: FusedLayer, x: Tensor) -> Tensor:
        channels.append(x.shape[1])
        return run(layer, x)

    monkeypatch.setattr(FusedLayer, "run", recorded)
    return channels
