"""An inverted residual block (MobileNetV2, https://arxiv.org/abs/1801.04381) as one operator.

A 1 x 1 convolution expands the channels, a depthwise convolution filters them, and another 1 x 1 projects them back.
The operator has no gradients: it is for inference and for frozen stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.cpu import loops
from bench.cpu.arrays import Array, Bounds, as_array, in_groups, output_shape
from bench.cpu.fused_layer import FusedLayer

Layer = tuple[Tensor, Tensor]  # weight and bias
LARGEST = 1 << 21  # bytes of the weights of one layer: they are read again for every row of the output


def fits(dtype: torch.dtype, weights: Sequence[Tensor]) -> bool:
    """Whether the operator takes 1 x 1 weights (O, I, 1, 1) of this dtype, and is faster than torch with them."""
    small = all(weight.numel() * dtype.itemsize <= LARGEST for weight in weights)
    return small and (dtype == torch.float32 or all(weight.shape[1] % 2 == 0 for weight in weights))


@dataclass(frozen=True, kw_only=True, eq=False)
class LaidOut:
    """The layers of a block as the kernel reads them.

    layers: flat weights and biases of expansion, depthwise convolution and projection; empty without an expansion.
    sizes: channels of the input, between, and of the output; side of the depthwise kernel.
    """

    layers: list[Tensor]
    sizes: tuple[int, int, int, int]


def lay_out(expansion: Layer | None, depthwise: Layer, projection: Layer, dtype: torch.dtype) -> LaidOut:
    """The layers of a block for tensors of `dtype`, float32 or bfloat16, for which `fits` holds.

    expansion: weight (M, C, 1, 1) and bias (M,), or None if C is M. depthwise: (M, 1, K, K) and (M,).
    projection: (C', M, 1, 1) and (C',). All are float32. With bfloat16 the products of expansion and projection are
    bfloat16, and their sums are float32.
    """
    middle = len(depthwise[0])
    pointwise = [
        (in_groups(weight.to(dtype), loops.inverted_residual.PANEL), in_groups(bias, loops.inverted_residual.PANEL))
        for weight, bias in (projection, *([expansion] if expansion else []))
    ]
    empty = as_array(depthwise[0].detach().new_empty(0, dtype=dtype)), as_array(depthwise[1].detach()[:0])
    convolving = [in_groups(layer, loops.inverted_residual.BLOCK) for layer in depthwise]
    arrays = [*(pointwise[1] if expansion else empty), *convolving, *pointwise[0]]
    return LaidOut(
        layers=[torch.from_numpy(array) for array in arrays],
        sizes=(expansion[0].shape[1] if expansion else middle, middle, len(projection[0]), depthwise[0].shape[-1]),
    )


def inverted_residual(
    block: LaidOut,
    image: tuple[int, int, int],
    *,
    stride: int,
    padding: Sequence[int],
    before: Bounds,
    after: Bounds,
    residual: bool,
) -> FusedLayer:
    """The block for images of shape (C, H, W); the output is (C', H', W') of the dtype that the block is laid out for.

    padding: rows and columns of zeros at the top, bottom, left and right, for the depthwise convolution. before, after:
    bounds of its input and output. residual: add the input.
    """
    channels_in, middle, channels_out, side = block.sizes
    _, height, width = image
    _, _, rows, columns = output_shape((1, middle, height, width), (middle, 1, side, side), stride, padding)
    sizes = (height, width, middle, rows, columns, padding[0], padding[2], channels_in, channels_out)
    bounds = tuple(np.float32(bound) for bound in (*before, *after))
    arrays, forward = [layer.numpy() for layer in block.layers], loops.inverted_residual.forward
    kernel, steps = (0,) * side, (0,) * stride

    def compute(x: Array, y: Array, images: int, bands: int, part: int, parts: int) -> None:
        added = x if residual else x[:0]
        forward(kernel, steps, x, y, *arrays, added, (*sizes, images, bands), bounds, part, parts)

    dtype = torch.bfloat16 if block.layers[0].dtype == torch.int16 else torch.float32
    return FusedLayer(compute=compute, shape=(channels_out, rows, columns), dtype=dtype)
