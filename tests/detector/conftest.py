"""Fixtures of the detector's tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from bench.detector.depthwise import use_compiled_loops
from bench.detector.passes import Pass, through


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
def as_one(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The channels of what each stem or block was given that was computed by loops as one."""
    channels: list[int] = []

    def noted(x: Tensor, passes: Sequence[Pass]) -> Tensor:
        channels.append(x.shape[1])
        return through(x, passes)

    monkeypatch.setattr("bench.detector.folded_layers.through", noted)
    return channels
