"""Depthwise convolution with a clamp before and after it (ReLU6 and the like) as one operator with gradients.

It computes `clamp(conv2d(clamp(x), weight, bias, groups=channels))`. torch needs three passes over the network's
largest tensors, and its weight gradients are slow, above all in bfloat16. Here bfloat16 is only the storage format; the
arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, library
from torch.autograd.function import once_differentiable

from bench.cpu import loops
from bench.cpu.arrays import (
    UNBOUNDED,
    Array,
    Bounds,
    as_array,
    as_flat,
    empty_like,
    kernels_apply,
    output_shape,
    pack_channels,
)
from bench.cpu.threads import parallel_for
from bench.device.private_interfaces import below_autograd


def kernel_applies(
    x: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int], padding: Sequence[int]
) -> bool:
    """Whether the operator supports this input and these weights (C, 1, K, K), and is faster than torch.

    Without gradients, torch is faster if threads would share an image, unless uneven padding makes it copy the image.
    """
    top, bottom, left, right = padding
    return (
        kernels_apply(x.device, x.dtype)
        and weight.dtype == torch.float32
        and weight.shape[0] == x.shape[1]
        and weight.shape[2] == weight.shape[3] >= stride[0] == stride[1]
        and tuple(dilation) == (1, 1)
        and (torch.is_grad_enabled() or len(x) >= torch.get_num_threads() or (top, left) != (bottom, right))
    )


def depthwise(
    x: Tensor, weight: Tensor, bias: Tensor, *, stride: int, padding: Sequence[int], before: Bounds, after: Bounds
) -> Tensor:
    """(B, C, H, W) to (B, C, H', W'), both channels last.

    x: float32 or bfloat16, and so is the output; everything else is float32. weight: (C, 1, K, K).
    bias: (C,); it gets no gradient. padding: rows and columns of zeros at the top, bottom, left and right of the
    clamped x. before, after: bounds of x and of the output.
    """
    return torch.ops.ssd_ablation.depthwise(x, weight, bias, stride, list(padding), [*before, *after])


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: Sequence[int], bounds: Sequence[float]
) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    y = empty_like(x, output_shape(x.shape, weight.shape, stride, padding))
    call = _Call(x, y, weight, stride, padding, bounds)
    block = loops.depthwise.BLOCK
    call.run(loops.depthwise.forward, as_flat(x), as_flat(y), pack_channels(weight, block), pack_channels(bias, block))
    return y


def _backward(
    gradient: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    stride: int,
    padding: Sequence[int],
    bounds: Sequence[float],
    *,
    need_x: bool,
    need_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and of the weight; None for one that is not needed."""
    x, y, gradient = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, y, gradient))
    call = _Call(x, y, weight, stride, padding, bounds)
    grad_x = empty_like(x, x.shape) if need_x else x.new_empty(0)
    image_gradients = weight.new_zeros((len(x), *call.packed_shape) if need_weight else 0)
    flat_grad_x = as_flat(grad_x) if need_x else as_array(grad_x)
    weights = pack_channels(weight, loops.depthwise.BLOCK)
    call.run(
        loops.depthwise.backward,
        as_flat(x),
        as_flat(y),
        as_flat(gradient),
        weights,
        flat_grad_x,
        image_gradients.numpy().reshape(-1),
    )
    if not need_weight:
        return grad_x, None
    packed = image_gradients.sum(0).transpose(1, 2).reshape(-1, weight[0].numel())[: len(weight)]
    return grad_x if need_x else None, packed.reshape(weight.shape)


class _Call:
    """The sizes of one call, and how its work is divided among threads."""

    def __init__(
        self, x: Tensor, y: Tensor, weight: Tensor, stride: int, padding: Sequence[int], bounds: Sequence[float]
    ) -> None:
        images, channels, height, width = x.shape
        blocks = -(-channels // loops.depthwise.BLOCK)
        self.threads = torch.get_num_threads()
        # Each thread takes whole images, which are contiguous. Few images are divided by channels
        per_group = -(-blocks // self.threads) if images < self.threads else blocks
        groups = -(-blocks // per_group)
        sizes = (height, width, channels, *y.shape[2:], padding[0], padding[2], groups, per_group, images)
        self.sizes = tuple(int(size) for size in sizes)
        self.bounds = tuple(np.float32(bound) for bound in bounds)
        self.kernel, self.stride = (0,) * weight.shape[-1], (0,) * stride
        self.packed_shape = (blocks, weight[0].numel(), loops.depthwise.BLOCK)
        self.tasks = images * groups

    def run(self, loop: Any, *tensors: Array) -> None:
        """Run `loop` on all tasks."""
        parts = max(1, min(self.threads, self.tasks))

        def do(part: int) -> None:
            loop(self.kernel, self.stride, *tensors, self.sizes, self.bounds, part, parts)

        parallel_for(do, parts)


class _Differentiable(torch.autograd.Function):
    """The operator with its gradients."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        guard = below_autograd()
        if guard is None:  # profilers and FLOP counters then miss the operator
            y = _forward(*arguments)
        else:
            with guard:
                y = torch.ops.ssd_ablation.depthwise(*arguments)
        x, weight, _, ctx.stride, ctx.padding, ctx.bounds = arguments
        # The output is only needed if it was clamped; otherwise an activation may overwrite it in place
        ctx.save_for_backward(x, weight, *([] if tuple(ctx.bounds[2:]) == UNBOUNDED else [y]))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        need_x, need_weight = ctx.needs_input_grad[:2]
        x, weight, *clamped = ctx.saved_tensors
        y = clamped[0] if clamped else gradients[0]  # any finite tensor will do: its bounds are infinite
        grad_x, grad_weight = _backward(
            gradients[0], x, y, weight, ctx.stride, ctx.padding, ctx.bounds, need_x=need_x, need_weight=need_weight
        )
        return grad_x, grad_weight, None, None, None, None


# The first call of torch's `custom_op` would import a compiler, which takes two seconds in each process
_LIBRARY = library.Library("ssd_ablation", "DEF")
_LIBRARY.define("depthwise(Tensor x, Tensor weight, Tensor bias, int stride, int[] padding, float[] bounds) -> Tensor")
_LIBRARY.impl("depthwise", _forward, "CPU")
_LIBRARY.impl("depthwise", _Differentiable.apply, "AutogradCPU")
