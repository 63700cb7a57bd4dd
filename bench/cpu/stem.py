"""A network's first convolution and the normalisation of its images as one operator of a CPU.

torch goes over the pixels four times before it convolves them (to float32, factor, offset, to bfloat16), and three
channels are few for its convolutions. It has no gradients: it is for inference, and for a stem that is frozen. A test
compares it with torch's operators.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cpu import loops
from bench.cpu.depthwise import Numbers, in_groups, numbers, output_shape
from bench.cpu.fused_layer import Pass

MOST_CHANNELS = 4  # of images; more are better convolved as they come


def lay_out(weight: Tensor, bias: Tensor, factor: Tensor, offset: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """The layers as the loops read them, for an output of `dtype`, float32 or bfloat16.

    weight: (O, C, K, K) and bias (O,), of images whose channels are multiplied by `factor` (C,), plus `offset` (C,).
    """
    rows = weight.detach().permute(0, 2, 3, 1).flatten(2)
    # bfloat16 are multiplied in pairs
    rows = F.pad(rows, (0, rows.shape[2] % 2)) if dtype == torch.bfloat16 else rows
    arrays = [in_groups(rows.to(dtype), loops.stem.PANEL), in_groups(bias, loops.stem.PANEL)]
    arrays += [numbers(each.detach().repeat(loops.stem.LANES)) for each in (factor, offset)]
    return [torch.from_numpy(array) for array in arrays]


def stem(
    layers: list[Tensor],
    image: tuple[int, int, int],
    *,
    kernel: int,
    channels: int,
    stride: int,
    padding: Sequence[int],
) -> Pass:
    """Images of a shape (C, H, W), uint8 or float32, to (channels, H', W'), of the type that they are laid out for.

    padding: rows and columns of zeros on the top, bottom, left and right, around the normalised images.
    """
    channels_in, height, width = image
    _, _, rows, columns = output_shape((1, *image), (channels, channels_in, kernel, kernel), stride, padding)
    halved = layers[0].dtype == torch.int16
    depth = kernel * channels_in + (kernel * channels_in % 2 if halved else 0)
    sizes = (height, width, channels_in, rows, columns, channels, padding[0], padding[2], depth)
    arrays, forward, window = [layer.numpy() for layer in layers], loops.stem.forward, (0,) * kernel

    def compute(x: Numbers, y: Numbers, images: int, bands: int, part: int, parts: int) -> None:
        forward(window, x, y, *arrays, (*sizes, images, bands), stride, part, parts)

    return Pass(loops=compute, shape=(channels, rows, columns), dtype=torch.bfloat16 if halved else torch.float32)
