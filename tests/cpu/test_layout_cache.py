"""A layout is rebuilt exactly when its weights change."""

from __future__ import annotations

import copy

import pytest
import torch

from bench.cpu.arrays import needs_grad
from bench.cpu.layout_cache import LayoutCache


def test_it_is_rebuilt_if_a_tensor_or_the_key_changes() -> None:
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
def test_any_optimisers_step_invalidates_it(optimiser: type[torch.optim.Optimizer], fused: bool) -> None:
    """torch's fused optimisers do not count their changes; a hook does."""
    cache: LayoutCache[float] = LayoutCache()
    learning, frozen = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    step = optimiser([learning, frozen], lr=0.1, fused=fused)  # type: ignore[call-arg]
    before = cache.get(lambda: float(learning.sum()), [learning], None)
    frozen_version = frozen._version
    learning.sum().backward()
    step.step()
    after = cache.get(lambda: float(learning.sum()), [learning], None)
    assert after == float(learning.sum()) < before
    assert frozen._version == frozen_version  # what does not learn keeps its layout


def test_a_new_tensor_at_the_same_address_is_not_taken_for_the_old_one() -> None:
    """Freed memory is reused, and a new tensor may have been changed as often as the old one."""
    cache: LayoutCache[float] = LayoutCache()
    found = []
    for value in range(20):
        tensor = torch.full((1 << 16,), float(value))
        found.append(cache.get(lambda tensor=tensor: float(tensor[0]), [tensor], None))  # type: ignore[misc]
        del tensor
    assert found == list(range(20))


def test_nothing_is_cached_for_tensors_whose_changes_torch_does_not_count() -> None:
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


def test_which_tensors_need_grad() -> None:
    frozen, weight = torch.ones(2), torch.ones(2, requires_grad=True)
    assert needs_grad(frozen, weight)
    assert not needs_grad(frozen)
    with torch.no_grad():
        assert not needs_grad(frozen, weight)
