"""What is made of weights, kept until they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """What is made of tensors for one purpose, made anew only where a tensor or the purpose has changed.

    For few images laying out weights takes longer than the arithmetic. The tensors are kept with what is made of them,
    so that no other can be where they were. Changes are those that torch counts. Its fused optimisers do not count
    theirs, so whoever learns from a forward pass forgets; after that, nothing may be kept again before the optimiser's
    step. Copies begin with nothing.
    """

    def __init__(self) -> None:
        self._made: tuple[tuple[Any, ...], list[Tensor], Value] | None = None

    def __reduce__(self) -> tuple[type[Kept[Value]], tuple[()]]:
        return Kept, ()

    def get(self, make: Callable[[], Value], tensors: Sequence[Tensor], purpose: object) -> Value:
        """What `make` gives, or gave for the same tensors and purpose."""
        if any(tensor.is_inference() for tensor in tensors):  # torch does not count their changes
            return make()
        state = (purpose, *((tensor.data_ptr(), tensor._version) for tensor in tensors))
        made = self._made  # read once: another thread may forget it
        if made is None or made[0] != state:
            made = self._made = state, [tensor.detach() for tensor in tensors], make()
        return made[2]

    def forget(self) -> None:
        self._made = None


def learns(*tensors: Tensor) -> bool:
    """Whether gradients are to reach one of them, here and now."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
