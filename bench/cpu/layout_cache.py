"""Weights laid out for kernels, cached until they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from bench.device.private_interfaces import version_of

Layout = TypeVar("Layout")


class LayoutCache(Generic[Layout]):
    """One layout of some tensors, rebuilt only if a tensor or the key has changed. A copy starts empty.

    For few images, laying out weights takes longer than the arithmetic. Changes are found by torch's version counters.
    The cache keeps the tensors alive, so that no other tensor can take their address.
    """

    def __init__(self) -> None:
        self._cached: tuple[tuple[Any, ...], list[Tensor], Layout] | None = None

    def __reduce__(self) -> tuple[type[LayoutCache[Layout]], tuple[()]]:
        return LayoutCache, ()

    def get(self, build: Callable[[], Layout], tensors: Sequence[Tensor], key: object) -> Layout:
        """The result of `build`, cached for the same tensors and key. Without version counters nothing is cached."""
        versions = [version_of(tensor) for tensor in tensors]
        if None in versions:
            return build()
        state = (key, *((tensor.data_ptr(), version) for tensor, version in zip(tensors, versions, strict=True)))
        cached = self._cached  # read once: another thread may replace it
        if cached is None or cached[0] != state:
            cached = self._cached = state, [tensor.detach() for tensor in tensors], build()
        return cached[2]


def _increase_versions(optimiser: torch.optim.Optimizer, *_: Any) -> None:
    """Increase the version of parameters after an optimiser step, because torch's fused optimisers do not."""
    parameters = (parameter for group in optimiser.param_groups for parameter in group["params"])
    torch.autograd.graph.increment_version([each for each in parameters if each.grad is not None])


register_optimizer_step_post_hook(_increase_versions)
