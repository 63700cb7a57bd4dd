"""Depthwise convolution with a clamp before and after (ReLU6 and its like) as one operator of a CPU.

What it computes is `clamp(conv2d(clamp(x), weight, bias, groups=channels))` with torch's gradients; a test
compares. torch computes it in three passes over the network's largest tensors, and the weights' gradient slowly, in
bfloat16 several times more so. Here bfloat16 is how tensors lie in memory; the arithmetic is that of float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, library
from torch.autograd.function import once_differentiable

from bench.cpu import loops
from bench.cpu.threads import share_out

Bounds = tuple[float, float]
Numbers = npt.NDArray[np.float32] | npt.NDArray[np.int16]  # the latter hold bfloat16
FREE: Bounds = (-inf, inf)
_in_use = False


def use_compiled_loops(wanted: bool) -> None:
    """Whether this process computes with compiled loops what it has some for. It does not, until told to."""
    global _in_use  # noqa: PLW0603
    _in_use = wanted


@contextmanager
def without_compiled_loops() -> Iterator[None]:
    """Not used within: where a network is tried out once, compiling them would take longer than all that is tried."""
    before = _in_use
    use_compiled_loops(False)
    try:
        yield
    finally:
        use_compiled_loops(before)


def in_use(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether compiled loops are in use, here and now, for such numbers."""
    known = dtype == torch.float32 or (dtype == torch.bfloat16 and computes_bfloat16())
    return _in_use and known and device.type == "cpu"


def computes_bfloat16() -> bool:
    """Whether the CPU multiplies in bfloat16; elsewhere it is emulated, ten times slower than float32."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported is not None and supported())


def computable(
    x: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int], padding: Sequence[int]
) -> bool:
    """Whether the operator is in use, takes this input and these weights, (C, 1, K, K), and is worth it.

    Without gradients torch is faster where threads have to share an image, unless it has to copy the image first
    for a padding that its two sides do not get alike.
    """
    top, bottom, left, right = padding
    return (
        in_use(x.device, x.dtype)
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

    x: float32 or bfloat16, and so is what comes out; the rest is float32.
    weight: (C, 1, K, K). bias: (C,); it gets no gradient. padding: rows and columns of zeros on the top, bottom,
    left and right, put around the clamped x. before, after: lowest and highest value of x and of what comes out.
    """
    return torch.ops.ssd_ablation.depthwise(x, weight, bias, stride, list(padding), [*before, *after])


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: Sequence[int], bounds: Sequence[float]
) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    y = empty_like(x, output_shape(x.shape, weight.shape, stride, padding))
    call = _Call(x, y, weight, stride, padding, bounds)
    block = loops.depthwise.BLOCK
    call.run(loops.depthwise.forward, flat(x), flat(y), in_groups(weight, block), in_groups(bias, block))
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
    for_x: bool,
    for_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and of the weight; None where they are not asked for."""
    x, y, gradient = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, y, gradient))
    call = _Call(x, y, weight, stride, padding, bounds)
    to_x = empty_like(x, x.shape) if for_x else x.new_empty(0)
    sums = weight.new_zeros((len(x), *call.shape_of_blocks) if for_weight else 0)
    flat_to_x = flat(to_x) if for_x else numbers(to_x)
    weights = in_groups(weight, loops.depthwise.BLOCK)
    call.run(loops.depthwise.backward, flat(x), flat(y), flat(gradient), weights, flat_to_x, sums.numpy().reshape(-1))
    if not for_weight:
        return to_x, None
    by_channel = sums.sum(0).transpose(1, 2).reshape(-1, weight[0].numel())[: len(weight)]
    return to_x if for_x else None, by_channel.reshape(weight.shape)


class _Call:
    """Sizes of one call, and how its work is divided."""

    def __init__(
        self, x: Tensor, y: Tensor, weight: Tensor, stride: int, padding: Sequence[int], bounds: Sequence[float]
    ) -> None:
        images, channels, height, width = x.shape
        blocks = -(-channels // loops.depthwise.BLOCK)
        self.threads = torch.get_num_threads()
        # Whole images for each thread: their rows are read as they lie. Channels are parted where images are few
        per_group = -(-blocks // self.threads) if images < self.threads else blocks
        groups = -(-blocks // per_group)
        sizes = (height, width, channels, *y.shape[2:], padding[0], padding[2], groups, per_group, images)
        self.sizes = tuple(int(size) for size in sizes)
        self.bounds = tuple(np.float32(bound) for bound in bounds)
        self.kernel, self.stride = (0,) * weight.shape[-1], (0,) * stride
        self.shape_of_blocks = (blocks, weight[0].numel(), loops.depthwise.BLOCK)
        self.tasks = images * groups

    def run(self, loop: Any, *tensors: Numbers) -> None:
        """`loop` on all tasks."""
        parts = max(1, min(self.threads, self.tasks))

        def do(part: int) -> None:
            loop(self.kernel, self.stride, *tensors, self.sizes, self.bounds, part, parts)

        share_out(do, parts)


def in_groups(values: Tensor, group: int) -> Numbers:
    """(C, ...) as flat (groups, N, group) with the N values of each channel, filled up with zeros.

    Of bfloat16, of which N is even, neighbours are side by side: (groups, N / 2, group, 2).
    """
    rows = numbers(values.detach().reshape(len(values), -1))
    channels, each = rows.shape
    out = np.empty(-(-channels // group) * group * each, rows.dtype)
    lay_out = loops.depthwise.in_groups if values.dtype == torch.float32 else loops.depthwise.in_groups_of_pairs
    lay_out(rows.reshape(-1), channels, each, group, out)
    return out


def numbers(tensor: Tensor) -> Numbers:
    """A view of a tensor; NumPy has no bfloat16, so it is one of int16."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def empty_like(x: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """Channels last, of the type of `x` where no other is given."""
    return torch.empty(tuple(shape), dtype=dtype or x.dtype, memory_format=torch.channels_last)


def flat(tensor: Tensor) -> Numbers:
    """A view of a channels-last tensor as it lies in memory."""
    return numbers(tensor.detach().permute(0, 2, 3, 1)).reshape(-1)


def output_shape(
    x: Sequence[int], weight: Sequence[int], stride: int, padding: Sequence[int]
) -> tuple[int, int, int, int]:
    top, bottom, left, right = padding
    rows = (x[2] + top + bottom - weight[2]) // stride + 1
    return x[0], x[1], rows, (x[3] + left + right - weight[3]) // stride + 1


class _Differentiable(torch.autograd.Function):
    """The operator with its gradients."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            y: Tensor = torch.ops.ssd_ablation.depthwise(*arguments)
        x, weight, _, ctx.stride, ctx.padding, ctx.bounds = arguments
        # What comes out is only kept where it was clamped; elsewhere an activation may overwrite it in place
        ctx.save_for_backward(x, weight, *([] if tuple(ctx.bounds[2:]) == FREE else [y]))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        for_x, for_weight = ctx.needs_input_grad[:2]
        x, weight, *clamped = ctx.saved_tensors
        y = clamped[0] if clamped else gradients[0]  # any that is finite will do: none is beyond infinite bounds
        to_x, to_weight = _backward(
            gradients[0], x, y, weight, ctx.stride, ctx.padding, ctx.bounds, for_x=for_x, for_weight=for_weight
        )
        return to_x, to_weight, None, None, None, None


# torch's `custom_op` does the same, and imports a compiler at its first call: two seconds of each process
_LIBRARY = library.Library("ssd_ablation", "DEF")
_LIBRARY.define("depthwise(Tensor x, Tensor weight, Tensor bias, int stride, int[] padding, float[] bounds) -> Tensor")
_LIBRARY.impl("depthwise", _forward, "CPU")
_LIBRARY.impl("depthwise", _Differentiable.apply, "AutogradCPU")
