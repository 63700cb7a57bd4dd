"""The number format that a run computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from bench.spec import Numerics


def dtype_of(numerics: Numerics) -> torch.dtype:
    """The dtype of the run's precision."""
    return torch.bfloat16 if numerics.precision == "bfloat16" else torch.float32


def autocast(numerics: Numerics) -> AbstractContextManager[Any]:
    """The context in which the network runs in the run's precision."""
    if numerics.precision == "float32":
        return nullcontext()
    return torch.autocast(numerics.device, dtype=dtype_of(numerics))
