"""A layout is rebuilt exactly when its weights change."""

from __future__ import annotations

import copy

import pytest
import torch

from bench.cpu.arrays import needs_grad
from bench.cpu.layout_cache import LayoutCache


def test_a_layout_is_rebuilt_if_a_tensor_or_the_key_changes() -> None:
    cache: LayoutCache[float] = LayoutCache()
    tensor, built = torch.ones(2), []

    def build() -> float:
        built.append(float(tensor.sum()))
        return built[-1]

    assert [cache.get(build, [tensor], "one") for _ in range(2)] == [2.0, 2.0]
    tensor.mul_(2)
    assert cache.get(build, [tensor], "one") == 4.0
    assert cache.get(build, [tensor], "another") == 4.0
    assert cache.get(build, [tensor], "one") == 4.0
    assert built == [2.0, 4.0, 4.0, 4.0]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimiser_step_invalidates_layouts(optimiser: type[torch.optim.Optimizer], fused: bool) -> None:
    """torch's fused optimisers do not increase versions; our hook does."""
    cache: LayoutCache[float] = LayoutCache()
    trained, frozen = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    step = optimiser([trained, frozen], lr=0.1, fused=fused)  # type: ignore[call-arg]
    before = cache.get(lambda: float(trained.sum()), [trained], None)
    frozen_version = frozen._version
    trained.sum().backward()
    step.step()
    after = cache.get(lambda: float(trained.sum()), [trained], None)
    assert after == float(trained.sum()) < before
    assert frozen._version == frozen_version  # parameters without gradients keep their layout


def test_a_new_tensor_at_the_same_address_is_another_tensor() -> None:
    """Freed memory is reused, and a new tensor may have the same version as the old one."""
    cache: LayoutCache[float] = LayoutCache()
    results = []
    for value in range(20):
        tensor = torch.full((1 << 16,), float(value))
        results.append(cache.get(lambda tensor=tensor: float(tensor[0]), [tensor], None))  # type: ignore[misc]
        del tensor
    assert results == list(range(20))


def test_nothing_is_cached_without_version_counters() -> None:
    cache: LayoutCache[float] = LayoutCache()
    with torch.inference_mode():
        tensor = torch.ones(2)
        assert cache.get(lambda: float(tensor.sum()), [tensor], None) == 2.0
        tensor.mul_(2)
        assert cache.get(lambda: float(tensor.sum()), [tensor], None) == 4.0


def test_a_copy_starts_empty() -> None:
    cache: LayoutCache[str] = LayoutCache()
    tensor = torch.ones(2)
    assert cache.get(lambda: "first", [tensor], None) == "first"
    assert copy.deepcopy(cache).get(lambda: "second", [tensor], None) == "second"


def test_needs_grad() -> None:
    frozen, weight = torch.ones(2), torch.ones(2, requires_grad=True)
    assert needs_grad(frozen, weight)
    assert not needs_grad(frozen)
    with torch.no_grad():
        assert not needs_grad(frozen, weight)
