"""An inverted residual block (MobileNetV2, https://arxiv.org/abs/1801.04381) as one operator of a CPU.

It expands channels by a 1 x 1 convolution, convolves each for itself, and projects them back. It has no gradients:
it is for inference, and for stages that are frozen. A test compares it with torch's operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, library
from torch.utils.flop_counter import register_flop_formula

from bench.detector.depthwise import Bounds, Numbers, empty_like, flat, in_groups, numbers, output_shape
from bench.detector.team import share_out

Layer = tuple[Tensor, Tensor]  # weight and bias
# Bytes of the weights of one layer. More do not stay in a core's cache beside the rows; torch's convolutions are faster
LARGEST = 1 << 19


def fits(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether the operator takes products of such numbers as x with these weights, (O, I, 1, 1), and is worth it."""
    small = all(weight.numel() * x.element_size() <= LARGEST for weight in weights)
    return small and (x.dtype == torch.float32 or all(weight.shape[1] % 2 == 0 for weight in weights))


def inverted_residual(
    x: Tensor,
    expansion: Layer | None,
    depthwise: Layer,
    projection: Layer,
    *,
    stride: int,
    padding: Sequence[int],
    before: Bounds,
    after: Bounds,
    residual: bool,
) -> Tensor:
    """(B, C, H, W) to (B, C', H', W'), both channels last, both float32 or both bfloat16.

    In bfloat16 products with the expansion and the projection are too, summed in float32; C and M are even.
    expansion: weight (M, C, 1, 1) and bias (M,), or None where C is M. depthwise: (M, 1, K, K) and (M,). projection:
    (C', M, 1, 1) and (C',). padding: rows and columns of zeros on the top, bottom, left and right of what is convolved.
    before, after: lowest and highest value of what is convolved, and of what comes of it. residual: x is added.
    """
    layers = [*(expansion or ()), *depthwise, *projection]
    return torch.ops.ssd_ablation.inverted_residual(x, layers, stride, list(padding), [*before, *after], residual)


def _forward(
    x: Tensor, layers: list[Tensor], stride: int, padding: Sequence[int], bounds: Sequence[float], residual: bool
) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    *expansion, weight, bias, projection, projection_bias = layers
    images, channels_in, height, width = x.shape
    shape = output_shape((images, len(weight), height, width), weight.shape, stride, padding)
    y = empty_like(x, (images, len(projection), *shape[2:]))
    loops = _loops()
    pixels = flat(x)
    nothing = pixels[:0]

    def laid_out(weight: Tensor, bias: Tensor) -> tuple[Numbers, Numbers]:
        return in_groups(weight.to(x.dtype), loops.PANEL), in_groups(bias, loops.PANEL)

    expanding = laid_out(*expansion) if expansion else (nothing, numbers(bias)[:0])
    convolving = [in_groups(layer, loops.BLOCK) for layer in (weight, bias)]
    added = pixels if residual else nothing
    tensors = (pixels, flat(y), *expanding, *convolving, *laid_out(projection, projection_bias), added)
    threads = torch.get_num_threads()
    # Whole images for each thread; few images are parted by rows
    bands = min(shape[2], -(-threads // images)) if images % threads else 1
    sizes = (height, width, len(weight), *shape[2:], padding[0], padding[2], channels_in, y.shape[1], images, bands)
    how = (tuple(int(size) for size in sizes), tuple(np.float32(bound) for bound in bounds))
    kernel, steps = (0,) * weight.shape[-1], (0,) * stride
    parts = max(1, min(threads, images * bands))

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
    "inverted_residual(Tensor x, Tensor[] layers, int stride, int[] padding, float[] bounds, bool residual) -> Tensor"
)
_LIBRARY.impl("inverted_residual", _forward, "CPU")


@register_flop_formula(torch.ops.ssd_ablation.inverted_residual)
def _flops(x: Sequence[int], layers: Sequence[Any], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Of its convolutions: numbers of weights, times the places that they are used at."""
    *expansion, depthwise, _, projection, _ = layers
    here, there = x[0] * x[2] * x[3], out_shape[0] * out_shape[2] * out_shape[3]
    expanding = expansion[0][0] * expansion[0][1] if expansion else 0
    return 2 * (here * expanding + there * depthwise[0] * (depthwise[2] * depthwise[3] + projection[0]))
