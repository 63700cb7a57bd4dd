"""An inverted residual block (MobileNetV2, https://arxiv.org/abs/1801.04381) as one operator of a CPU.

It expands channels by a 1 x 1 convolution, convolves each for itself, and projects them back. It has no gradients:
it is for inference, and for stages that are frozen. A test compares it with torch's operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, library
from torch.utils.flop_counter import register_flop_formula

from bench.detector.depthwise import Bounds, empty_like, flat, in_groups, numbers, output_shape
from bench.detector.team import share_out

Layer = tuple[Tensor, Tensor]  # weight and bias
LARGEST = 1 << 21  # bytes of the weights of one layer; they are read again for every row of the output


def fits(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether the operator takes products of such numbers as x with these weights, (O, I, 1, 1), and is worth it."""
    small = all(weight.numel() * x.element_size() <= LARGEST for weight in weights)
    return small and (x.dtype == torch.float32 or all(weight.shape[1] % 2 == 0 for weight in weights))


@dataclass(frozen=True, kw_only=True, eq=False)
class LaidOut:
    """The layers of a block as the loops read them.

    layers: flat weights and biases of expansion, depthwise convolution and projection, empty where there is no
        expansion. sizes: channels that come in, in the middle and that go out; side of the depthwise kernel.
    """

    layers: list[Tensor]
    sizes: tuple[int, int, int, int]


def lay_out(expansion: Layer | None, depthwise: Layer, projection: Layer, dtype: torch.dtype) -> LaidOut:
    """The layers of a block for tensors of `dtype`, float32 or bfloat16, which `fits` says that it takes.

    expansion: weight (M, C, 1, 1) and bias (M,), or None where C is M. depthwise: (M, 1, K, K) and (M,). projection:
    (C', M, 1, 1) and (C',). All are float32; of bfloat16 are the products with expansion and projection, whose sums
    are float32.
    """
    loops = _loops()
    middle = len(depthwise[0])
    pointwise = [
        (in_groups(weight.to(dtype), loops.PANEL), in_groups(bias, loops.PANEL))
        for weight, bias in (projection, *([expansion] if expansion else []))
    ]
    empty = numbers(depthwise[0].detach().new_empty(0, dtype=dtype)), numbers(depthwise[1].detach()[:0])
    convolving = [in_groups(layer, loops.BLOCK) for layer in depthwise]
    arrays = [*(pointwise[1] if expansion else empty), *convolving, *pointwise[0]]
    return LaidOut(
        layers=[torch.from_numpy(array) for array in arrays],
        sizes=(expansion[0].shape[1] if expansion else middle, middle, len(projection[0]), depthwise[0].shape[-1]),
    )


def inverted_residual(
    x: Tensor,
    block: LaidOut,
    *,
    stride: int,
    padding: Sequence[int],
    before: Bounds,
    after: Bounds,
    residual: bool,
) -> Tensor:
    """(B, C, H, W) to (B, C', H', W'), both channels last, of the type that the block is laid out for.

    padding: rows and columns of zeros on the top, bottom, left and right of what is convolved. before, after: lowest
    and highest value of what is convolved, and of what comes of it. residual: x is added.
    """
    return torch.ops.ssd_ablation.inverted_residual(
        x, block.layers, list(block.sizes), stride, list(padding), [*before, *after], residual
    )


def _forward(
    x: Tensor,
    layers: list[Tensor],
    channels: Sequence[int],
    stride: int,
    padding: Sequence[int],
    bounds: Sequence[float],
    residual: bool,
) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    channels_in, middle, channels_out, side = channels
    images, _, height, width = x.shape
    shape = output_shape((images, middle, height, width), (middle, 1, side, side), stride, padding)
    y = empty_like(x, (images, channels_out, *shape[2:]))
    pixels = flat(x)
    tensors = (pixels, flat(y), *(layer.numpy() for layer in layers), pixels if residual else pixels[:0])
    threads = torch.get_num_threads()
    # Whole images for each thread; few images are parted by rows
    bands = min(shape[2], -(-threads // images)) if images % threads else 1
    sizes = (height, width, middle, *shape[2:], padding[0], padding[2], channels_in, channels_out, images, bands)
    how = (tuple(int(size) for size in sizes), tuple(np.float32(bound) for bound in bounds))
    kernel, steps = (0,) * side, (0,) * stride
    parts = max(1, min(threads, images * bands))
    loops = _loops()

    def do(part: int) -> None:
        loops.forward(kernel, steps, *tensors, *how, part, parts)

    share_out(do, parts)
    return y


def _loops() -> ModuleType:
    """The loops; their compiler is imported where they are needed, since that takes a second."""
    from bench.detector import inverted_residual_kernels  # noqa: PLC0415

    return inverted_residual_kernels


_LIBRARY = library.Library("ssd_ablation", "FRAGMENT")
_LIBRARY.define(
    "inverted_residual(Tensor x, Tensor[] layers, int[] sizes, int stride, int[] padding, float[] bounds, "
    "bool residual) -> Tensor"
)
_LIBRARY.impl("inverted_residual", _forward, "CPU")


@register_flop_formula(torch.ops.ssd_ablation.inverted_residual)
def _flops(
    x: Sequence[int], layers: Sequence[Any], sizes: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any
) -> int:
    """Of its convolutions: numbers of weights, times the places that they are used at."""
    channels_in, middle, channels_out, side = sizes
    here, there = x[0] * x[2] * x[3], out_shape[0] * out_shape[2] * out_shape[3]
    expanding = middle * channels_in if layers[0][0] else 0
    return 2 * (here * expanding + there * middle * (side * side + channels_out))
