"""Fixtures of the detector's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from bench.detector.depthwise import use_compiled_loops


@pytest.fixture
def compiled_loops() -> Iterator[None]:
    """Compiled loops in use, in two threads, whatever other tests take."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    use_compiled_loops(True)
    yield
    use_compiled_loops(False)
    torch.set_num_threads(before)
