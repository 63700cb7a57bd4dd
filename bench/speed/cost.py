"""What a network costs by count: parameters, operations, and the rate that the device could reach."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.device import fast_paths


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trainable or not. A shared parameter counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(model: nn.Module, example: Tensor) -> int:
    """Floating-point operations of one forward pass in evaluation mode; a multiply-add counts as two.

    Counts convolutions, matrix products and attention, as `torch.utils.flop_counter` does. The model must not be
    compiled; it keeps its training mode and its statistics.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        # CPU kernels have the same count, but would have to be compiled first
        with torch.no_grad(), fast_paths.disabled(), FlopCounterMode(display=False) as counter:
            model(example)
    finally:
        for module, training in modes.items():
            module.training = training
    return int(counter.get_total_flops())


def dense_convolution(device: str, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """A 3x3 convolution, large enough that arithmetic dominates, and its number of operations."""
    batch, channels, side = (64, 512, 64) if device == "cuda" else (8, 256, 38)
    layout = torch.channels_last
    images = torch.rand(batch, channels, side, side).to(device, dtype).contiguous(memory_format=layout)
    weight = torch.rand(channels, channels, 3, 3).to(device, dtype).contiguous(memory_format=layout)

    def call() -> object:
        with torch.inference_mode():
            return F.conv2d(images, weight, padding=1)

    return call, 2 * batch * side * side * channels * channels * 9
