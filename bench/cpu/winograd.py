"""3 x 3 convolutions of a CPU with less than half the multiplications, by Winograd's minimal filtering.

What they compute is `conv2d(x, weight, bias, padding=1)`, perhaps with a ReLU after it, and the gradients of that; a
test compares. In float32 they are exact to its rounding. In bfloat16 what is multiplied is rounded after the
transforms, which add inputs up. So the error of a map of VGG16's is some 1.3 times that of torch's in bfloat16; of
noise, where neighbours have nothing in common, that of an output is 1.8 times, that of a weight's gradient 2.3 times.
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
from bench.cpu.depthwise import empty_like, flat, in_use, numbers
from bench.cpu.layout_cache import Kept, learns
from bench.cpu.threads import share_out

MULTIPLE = 16  # channels are whole vectors: `loops.lanes.LANES`, without waiting for its compiler
ROUND = 1 << 23  # bytes of transformed windows and tiles of which a weight's gradient is summed at once, for the cache


class Convolution(nn.Conv2d):
    """A 3 x 3 convolution of stride 1 that keeps its map's size, perhaps with a ReLU after it.

    It takes over the weights of another, and their names in a state dict. Raises ValueError where that is no such one.
    """

    def __init__(self, like: nn.Conv2d, *, rectified: bool = False) -> None:
        super().__init__(like.in_channels, like.out_channels, 3, padding=1)
        same = ("kernel_size", "stride", "padding", "padding_mode", "dilation", "groups")
        if like.bias is None or any(getattr(like, name) != getattr(self, name) for name in same):
            raise ValueError(f"not a 3 x 3 convolution of stride 1 with a bias and zeros around its input: {like}")
        self.weight, self.bias = like.weight, like.bias
        self.rectified = rectified
        self._kept: Kept[Tensor] = Kept()

    def reset_parameters(self) -> None:
        """Draw nothing: weights come from another."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, cast(Tensor, self.bias)
        learning = learns(x, weight, bias)
        if learning:
            self._kept.forget()
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        if not self._computable(x, dtype):
            y = super().forward(x)
            return F.relu_(y) if self.rectified else y
        x = x.to(dtype)
        if learning:
            return cast(Tensor, _Differentiable.apply(x, weight, bias, self.rectified))
        filters = self._kept.get(lambda: lay_out(weight, dtype), [weight], dtype)
        return convolve(x, filters, bias, rectified=self.rectified)

    def _computable(self, x: Tensor, dtype: torch.dtype) -> bool:
        """Whether loops compute it here and now, and not more slowly than torch."""
        whole = self.in_channels % MULTIPLE == 0 and self.out_channels % MULTIPLE == 0
        usual = x.dtype in (torch.float32, dtype) and self.weight.dtype == torch.float32
        fits = x.dim() == 4 and x.numel() > 0 and x.shape[1] == self.in_channels
        return whole and usual and fits and in_use(x.device, dtype) and not (dtype == torch.bfloat16 and has_amx())


def has_amx() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 by AMX, as torch does and these loops do not: far faster."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported is not None and supported())


def lay_out(weight: Tensor, dtype: torch.dtype, *, turned: bool = False) -> Tensor:
    """The filters of `weight`, (O, C, 3, 3), transformed, as the loops read them, in float32 or bfloat16.

    turned: for the gradient of the input, which is a convolution too, of O channels to C.
    """
    outputs, inputs = weight.shape[:2]
    taps = flat(weight)  # (O, 3, 3, C)
    channels_out, channels_in = (inputs, outputs) if turned else (outputs, inputs)
    steps = (8 * inputs, 1, 9 * inputs, -inputs) if turned else (0, 9 * inputs, 1, inputs)
    panels = -(-channels_out // loops.winograd.PANEL)
    filters = torch.zeros(loops.winograd.POINTS * panels * loops.winograd.PANEL * channels_in, dtype=dtype)
    _in_parts(loops.winograd.lay_out, taps, numbers(filters), channels_in, channels_out, steps)
    return filters


def convolve(x: Tensor, filters: Tensor, bias: Tensor, *, rectified: bool) -> Tensor:
    """(B, C, H, W) to (B, O, H, W), channels last; `filters` are laid out for the type of x, bias is (O,), float32."""
    x = x.contiguous(memory_format=torch.channels_last)
    images, channels, height, width = x.shape
    y = empty_like(x, (images, len(bias), height, width))
    tiles = _tiles(x)
    threads = torch.get_num_threads()
    tasks = threads * -(-tiles // (threads * loops.winograd.TILES))  # as many for each thread
    sizes = (images, height, width, channels, len(bias), -(-tiles // tasks))
    bounds = (np.float32(0 if rectified else -inf), np.float32(inf))
    _in_parts(
        loops.winograd.forward, flat(x), flat(y), numbers(filters), numbers(bias.detach().contiguous()), sizes, bounds
    )
    return y


def layer_gradients(x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of weight, (O, C, 3, 3), and bias, (O,), float32.

    x: (B, C, H, W). gradient: of y, (B, O, H, W), of the same type.
    """
    x, gradient = (each.contiguous(memory_format=torch.channels_last) for each in (x, gradient))
    inputs, height, width = x.shape[1:]
    outputs = gradient.shape[1]
    panel, points, stagger = loops.winograd.PANEL, loops.winograd.POINTS, loops.winograd.STAGGER
    count = _tiles(x)
    columns = -(-inputs // panel) * panel
    rounds = -(-count * points * (columns + outputs) * x.element_size() // ROUND)
    round_ = -(-count // (2 * rounds)) * 2
    apart = [round_ * columns + stagger, round_ * outputs + stagger]
    windows, tiles = (numbers(torch.empty(points * each, dtype=x.dtype)) for each in apart)
    sums, to_weight = torch.zeros(points * outputs * inputs), torch.empty(outputs, 3, 3, inputs)
    of_tiles = torch.zeros(outputs, 2 if x.dtype == torch.bfloat16 else 1)
    source, arrived, out = flat(x), flat(gradient), numbers(to_weight).reshape(-1)
    summed, in_all = numbers(sums), numbers(of_tiles).reshape(-1)
    sizes = (height, width, inputs, outputs, round_, *apart)
    for begin in range(0, count, round_):
        end = min(begin + round_, count)
        _in_parts(loops.winograd_gradients.transform, source, arrived, windows, tiles, sizes, begin, end)
        _in_parts(loops.winograd_gradients.sum_products, windows, tiles, summed, in_all, sizes, end - begin)
    _in_parts(loops.winograd_gradients.filter_sums, summed, out, inputs, outputs)
    return to_weight.permute(0, 3, 1, 2), of_tiles.sum(1)


class _Differentiable(torch.autograd.Function):
    """The convolution with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rectified: bool) -> Tensor:
        y = convolve(x, lay_out(weight, x.dtype), bias, rectified=rectified)
        ctx.save_for_backward(x, weight, *([y] if rectified else []))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, *rectified = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        gradient = torch.ops.aten.threshold_backward(gradient, rectified[0], 0) if rectified else gradient
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        to_x, to_weight, to_bias = None, None, None
        if for_x:
            nothing = weight.new_zeros(weight.shape[1])
            to_x = convolve(gradient, lay_out(weight, x.dtype, turned=True), nothing, rectified=False)
        if for_weight or for_bias:
            to_weight, to_bias = layer_gradients(x, gradient)
        return to_x, to_weight, to_bias, None


def _tiles(x: Tensor) -> int:
    """Of 2 x 2, which the maps of x are parted into."""
    images, _, height, width = x.shape
    return int(images * -(-height // 2) * -(-width // 2))


def _in_parts(loop: Callable[..., object], *arguments: object) -> None:
    """A loop that is told last which part of its work is to be done, and of how many."""
    threads = torch.get_num_threads()
    share_out(lambda part: loop(*arguments, part, threads), threads)
