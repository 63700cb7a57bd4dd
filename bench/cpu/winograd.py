"""3 x 3 convolution with less than half the multiplications (Winograd's minimal filtering, Lavin and Gray 2016).

It computes `conv2d(x, weight, bias, padding=1)`, optionally with a ReLU, and its gradients, in float32 as exactly as
torch. There is no bfloat16 form: it would round after the transforms, which add inputs, and be less exact than torch's
convolution (feature maps of VGG16 had 1.2 to 1.3 times the error).
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.cpu import loops
from bench.cpu.arrays import as_array, as_flat, compute_dtype, empty_like, kernels_apply, needs_grad
from bench.cpu.layout_cache import LayoutCache
from bench.cpu.threads import parallel_for

MULTIPLE = 16  # channels must be a multiple of this: `loops.lanes.LANES`, without importing numba
ROUND = 1 << 23  # bytes of transformed inputs and gradients in a round of the weight gradient, to fit the cache


class WinogradConvolution(nn.Conv2d):
    """A 3 x 3 convolution of stride 1 that keeps the size of its map, optionally with a ReLU.

    It shares the parameters of `like`, under the same names. Raises ValueError if `like` is another convolution.
    """

    def __init__(self, like: nn.Conv2d, *, relu: bool = False) -> None:
        super().__init__(like.in_channels, like.out_channels, 3, padding=1)
        attributes = ("kernel_size", "stride", "padding", "padding_mode", "dilation", "groups")
        if like.bias is None or any(getattr(like, name) != getattr(self, name) for name in attributes):
            raise ValueError(f"not a 3 x 3 convolution of stride 1 with zero padding and a bias: {like}")
        self.weight, self.bias = like.weight, like.bias
        self.relu = relu
        self._layout: LayoutCache[Tensor] = LayoutCache()

    def reset_parameters(self) -> None:
        """Draw nothing: the parameters are shared."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, cast(Tensor, self.bias)
        if not self._kernel_applies(x):
            y = super().forward(x)
            return F.relu_(y) if self.relu else y
        if needs_grad(x, weight, bias):
            return cast(Tensor, _Differentiable.apply(x, weight, bias, self.relu))
        filters = self._layout.get(lambda: lay_out(weight), [weight], None)
        return convolve(x, filters, bias, relu=self.relu)

    def _kernel_applies(self, x: Tensor) -> bool:
        """Whether the kernel supports this input."""
        whole_vectors = self.in_channels % MULTIPLE == 0 and self.out_channels % MULTIPLE == 0
        float32 = x.dtype == self.weight.dtype == compute_dtype(x.device) == torch.float32
        shape_fits = x.dim() == 4 and x.numel() > 0 and x.shape[1] == self.in_channels
        return whole_vectors and float32 and shape_fits and kernels_apply(x.device, torch.float32)


def lay_out(weight: Tensor, *, transposed: bool = False) -> Tensor:
    """Transform `weight` (O, C, 3, 3) to filters as the kernel reads them.

    transposed: for the gradient of the input, which is a convolution of O channels to C.
    """
    outputs, inputs = weight.shape[:2]
    flat_weight = as_flat(weight)  # (O, 3, 3, C)
    channels_out, channels_in = (inputs, outputs) if transposed else (outputs, inputs)
    steps = (8 * inputs, 1, 9 * inputs, -inputs) if transposed else (0, 9 * inputs, 1, inputs)
    panels = -(-channels_out // loops.winograd.PANEL)
    filters = torch.zeros(loops.winograd.POINTS * panels * loops.winograd.PANEL * channels_in)
    _run_parallel(loops.winograd.lay_out, flat_weight, as_array(filters), channels_in, channels_out, steps)
    return filters


def convolve(x: Tensor, filters: Tensor, bias: Tensor, *, relu: bool) -> Tensor:
    """Convolve (B, C, H, W) to (B, O, H, W), channels last.

    filters: from `lay_out`. bias: (O,).
    """
    x = x.contiguous(memory_format=torch.channels_last)
    images, channels, height, width = x.shape
    y = empty_like(x, (images, len(bias), height, width))
    tiles = _tiles(x)
    threads = torch.get_num_threads()
    tasks = threads * -(-tiles // (threads * loops.winograd.TILES))  # the same number for each thread
    sizes = (images, height, width, channels, len(bias), -(-tiles // tasks))
    bounds = (np.float32(0 if relu else -inf), np.float32(inf))
    _run_parallel(
        loops.winograd.forward,
        as_flat(x),
        as_flat(y),
        as_array(filters),
        as_array(bias.detach().contiguous()),
        sizes,
        bounds,
    )
    return y


def layer_gradients(x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of weight (O, C, 3, 3) and bias (O,).

    x: (B, C, H, W). gradient: of the output, (B, O, H, W).
    """
    x, gradient = (each.contiguous(memory_format=torch.channels_last) for each in (x, gradient))
    inputs, height, width = x.shape[1:]
    outputs = gradient.shape[1]
    panel, points, stagger = loops.winograd.PANEL, loops.winograd.POINTS, loops.winograd.STAGGER
    count = _tiles(x)
    columns = -(-inputs // panel) * panel
    rounds = -(-count * points * (columns + outputs) * x.element_size() // ROUND)
    round_ = -(-count // (2 * rounds)) * 2
    strides = [round_ * columns + stagger, round_ * outputs + stagger]
    windows, tiles = (as_array(torch.empty(points * each)) for each in strides)
    sums, grad_weight = torch.zeros(points * outputs * inputs), torch.empty(outputs, 3, 3, inputs)
    bias_sums = torch.zeros(outputs)
    source, grad_y, out = as_flat(x), as_flat(gradient), as_array(grad_weight).reshape(-1)
    flat_sums, flat_bias_sums = as_array(sums), as_array(bias_sums)
    sizes = (height, width, inputs, outputs, round_, *strides)
    for begin in range(0, count, round_):
        end = min(begin + round_, count)
        _run_parallel(loops.winograd_gradients.transform, source, grad_y, windows, tiles, sizes, begin, end)
        _run_parallel(
            loops.winograd_gradients.sum_products, windows, tiles, flat_sums, flat_bias_sums, sizes, end - begin
        )
    _run_parallel(loops.winograd_gradients.transform_sums, flat_sums, out, inputs, outputs)
    return grad_weight.permute(0, 3, 1, 2), bias_sums


class _Differentiable(torch.autograd.Function):
    """The convolution with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        y = convolve(x, lay_out(weight), bias, relu=relu)
        ctx.save_for_backward(x, weight, *([y] if relu else []))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, *relu = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        gradient = torch.ops.aten.threshold_backward(gradient, relu[0], 0) if relu else gradient
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        grad_x, grad_weight, grad_bias = None, None, None
        if need_x:
            no_bias = weight.new_zeros(weight.shape[1])
            grad_x = convolve(gradient, lay_out(weight, transposed=True), no_bias, relu=False)
        if need_weight or need_bias:
            grad_weight, grad_bias = layer_gradients(x, gradient)
        return grad_x, grad_weight, grad_bias, None


def _tiles(x: Tensor) -> int:
    """The number of 2 x 2 tiles of all maps of x."""
    images, _, height, width = x.shape
    return int(images * -(-height // 2) * -(-width // 2))


def _run_parallel(loop: Callable[..., object], *arguments: object) -> None:
    """Run a loop whose last two arguments are the part of the work and the number of parts, in all threads."""
    threads = torch.get_num_threads()
    parallel_for(lambda part: loop(*arguments, part, threads), threads)
