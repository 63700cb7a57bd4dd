"""An inverted residual block (MobileNetV2, https://arxiv.org/abs/1801.04381) as one operator.

A 1 x 1 convolution expands the channels, a depthwise convolution filters them, and another 1 x 1 projects them back.
The operator has no gradients: it is for inference and for frozen stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.cpu import loops
from bench.cpu.arrays import Array, Bounds, as_array, as_flat, empty_like, output_shape, pack_channels
from bench.cpu.threads import parallel_for

Layer = tuple[Tensor, Tensor]  # weight and bias
MAX_WEIGHT_BYTES = 1 << 21  # of one layer, whose weights are read again for every output row


def supports(dtype: torch.dtype, weights: Sequence[Tensor]) -> bool:
    """Whether the operator supports 1 x 1 weights (O, I, 1, 1) of this dtype, and is faster than torch with them."""
    small = all(weight.numel() * dtype.itemsize <= MAX_WEIGHT_BYTES for weight in weights)
    return small and (dtype == torch.float32 or all(weight.shape[1] % 2 == 0 for weight in weights))


@dataclass(frozen=True, kw_only=True, eq=False)
class LaidOut:
    """The weights of a block as the kernel reads them.

    layers: flat weights and biases of expansion (empty without one), depthwise convolution and projection.
    sizes: channels of the input, of the depthwise convolution and of the output; depthwise kernel size.
    """

    layers: list[Tensor]
    sizes: tuple[int, int, int, int]


def lay_out(expansion: Layer | None, depthwise: Layer, projection: Layer, dtype: torch.dtype) -> LaidOut:
    """Lay out the weights of a block for tensors of `dtype`, float32 or bfloat16, if `supports` holds.

    expansion: weight (M, C, 1, 1) and bias (M,), or None if C is M. depthwise: (M, 1, K, K) and (M,).
    projection: (C', M, 1, 1) and (C',). All are float32. In bfloat16, expansion and projection multiply bfloat16 and
    sum in float32.
    """
    middle = len(depthwise[0])
    pointwise = [
        (
            pack_channels(weight.to(dtype), loops.inverted_residual.PANEL),
            pack_channels(bias, loops.inverted_residual.PANEL),
        )
        for weight, bias in (projection, *([expansion] if expansion else []))
    ]
    empty = as_array(depthwise[0].detach().new_empty(0, dtype=dtype)), as_array(depthwise[1].detach()[:0])
    middle_layer = [pack_channels(layer, loops.inverted_residual.BLOCK) for layer in depthwise]
    arrays = [*(pointwise[1] if expansion else empty), *middle_layer, *pointwise[0]]
    return LaidOut(
        layers=[torch.from_numpy(array) for array in arrays],
        sizes=(expansion[0].shape[1] if expansion else middle, middle, len(projection[0]), depthwise[0].shape[-1]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class FusedLayer:
    """A layer without gradients, prepared once for images of one size.

    compute: from a flat input to a flat output; further arguments: the number of images, the number of bands that the
        rows of an image are divided into, the part of this work to do, and the number of parts.
    shape, dtype: (C, H, W) of one image of the output, and its dtype.
    """

    compute: Callable[[Array, Array, int, int, int, int], object]
    shape: tuple[int, int, int]
    dtype: torch.dtype

    def run(self, x: Tensor) -> Tensor:
        """Run the layer on images (B, C, H, W); the output is channels last."""
        x = x.contiguous(memory_format=torch.channels_last)
        images, threads = len(x), torch.get_num_threads()
        y = empty_like(x, (images, *self.shape), self.dtype)
        # Each thread takes whole images; few images are divided by rows
        bands = min(self.shape[1], -(-threads // images)) if images % threads else 1
        parts = max(1, min(threads, images * bands))
        source, target = as_flat(x), as_flat(y)
        parallel_for(lambda part: self.compute(source, target, images, bands, part, parts), parts)
        return y


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
    """The block for images of shape (C, H, W); the output is (C', H', W') in the dtype of the laid-out weights.

    padding: rows and columns of zeros that the depthwise convolution adds at the top, bottom, left and right.
    before, after: bounds of its input and output. residual: add the block's input to its output.
    """
    channels_in, middle, channels_out, side = block.sizes
    _, height, width = image
    _, _, rows, columns = output_shape((1, middle, height, width), (middle, 1, side, side), stride, padding)
    sizes = (height, width, middle, rows, columns, padding[0], padding[2], channels_in, channels_out)
    bounds = tuple(np.float32(bound) for bound in (*before, *after))
    arrays, forward = [layer.numpy() for layer in block.layers], loops.inverted_residual.forward
    kernel, steps = (0,) * side, (0,) * stride

    def compute(x: Array, y: Array, images: int, bands: int, part: int, parts: int) -> None:
        residual_input = x if residual else x[:0]
        forward(kernel, steps, x, y, *arrays, residual_input, (*sizes, images, bands), bounds, part, parts)

    dtype = torch.bfloat16 if block.layers[0].dtype == torch.int16 else torch.float32
    return FusedLayer(compute=compute, shape=(channels_out, rows, columns), dtype=dtype)
