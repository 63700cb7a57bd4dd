"""A network's first convolution and the normalisation of its images as one operator.

torch reads and writes the pixels four times before it convolves them (to float32, factor, offset, to bfloat16), and
its convolutions are slow with three channels. The operator has no gradients: it is for inference and for a frozen stem.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cpu import loops
from bench.cpu.arrays import Array, as_array, in_groups, output_shape
from bench.cpu.fused_layer import FusedLayer

MOST_CHANNELS = 4  # of images; torch is faster with more


def lay_out(weight: Tensor, bias: Tensor, factor: Tensor, offset: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """The layer as the kernel reads it, for an output of `dtype`, float32 or bfloat16.

    weight: (O, C, K, K). bias: (O,). factor, offset: (C,), of the normalisation `pixels * factor + offset`.
    """
    rows = weight.detach().permute(0, 2, 3, 1).flatten(2)
    # bfloat16 values are multiplied in pairs
    rows = F.pad(rows, (0, rows.shape[2] % 2)) if dtype == torch.bfloat16 else rows
    arrays = [in_groups(rows.to(dtype), loops.stem.PANEL), in_groups(bias, loops.stem.PANEL)]
    arrays += [as_array(each.detach().repeat(loops.stem.LANES)) for each in (factor, offset)]
    return [torch.from_numpy(array) for array in arrays]


def stem(
    layers: list[Tensor],
    image: tuple[int, int, int],
    *,
    kernel: int,
    channels: int,
    stride: int,
    padding: Sequence[int],
) -> FusedLayer:
    """The layer for images of shape (C, H, W), uint8 or float32; the output is (channels, H', W').

    layers: from `lay_out`. padding: rows and columns of zeros at the top, bottom, left and right of the normalised
    image.
    """
    channels_in, height, width = image
    _, _, rows, columns = output_shape((1, *image), (channels, channels_in, kernel, kernel), stride, padding)
    halved = layers[0].dtype == torch.int16
    depth = kernel * channels_in + (kernel * channels_in % 2 if halved else 0)
    sizes = (height, width, channels_in, rows, columns, channels, padding[0], padding[2], depth)
    arrays, forward, window = [layer.numpy() for layer in layers], loops.stem.forward, (0,) * kernel

    def compute(x: Array, y: Array, images: int, bands: int, part: int, parts: int) -> None:
        forward(window, x, y, *arrays, (*sizes, images, bands), stride, part, parts)

    return FusedLayer(
        compute=compute, shape=(channels, rows, columns), dtype=torch.bfloat16 if halved else torch.float32
    )
