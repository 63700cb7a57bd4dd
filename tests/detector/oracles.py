"""Comparisons that tests of the detector and of its kernels share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.device.hardware import computes_bfloat16

needs_bfloat16 = pytest.mark.skipif(not computes_bfloat16("cpu"), reason="this CPU does not multiply in bfloat16")


def relative_error(ours: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest expected value."""
    return float((ours - expected).abs().max() / expected.abs().max())


def spread_norms(network: nn.Module) -> None:
    """Give BatchNorm layers statistics as training leaves them; those of a new network would hide folding errors."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
