"""Convolutions with a frozen BatchNorm folded into them, and what can be computed together with them.

On a CPU, where nothing learns, a block of them or the first one with the normalisation of its images is one operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.padding import get_same_padding
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from bench.cpu.depthwise import FREE, Bounds, computable, depthwise, in_use
from bench.cpu.fused_layer import Given, Pass, through
from bench.cpu.inverted_residual import fits, inverted_residual, lay_out
from bench.cpu.layout_cache import Kept, learns
from bench.cpu.stem import MOST_CHANNELS, stem
from bench.cpu.stem import lay_out as lay_out_stem


class FoldedConvolution(nn.Module):
    """A convolution followed by a frozen BatchNorm, as one convolution with scaled weights.

    The trainable weight is that of the plain convolution, so an update means what it would mean with
    the BatchNorm in its place; what is saved is a pass over the activations, forward and backward.

    before, after: activations that it computes too, of its input and of its output.
    factor, offset: None, or, (C,), what it normalises its input by, which then are the pixels of images.
    """

    before: nn.Module
    after: nn.Module

    scale: Tensor
    shift: Tensor
    factor: Tensor | None
    offset: Tensor | None

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        bias = convolution.bias.detach() if convolution.bias is not None else 0.0
        self.weight = nn.Parameter(convolution.weight.detach().clone())
        self.register_buffer("scale", scale.view(-1, 1, 1, 1))
        self.register_buffer("shift", norm.bias.detach() + (bias - norm.running_mean) * scale)
        self.stride, self.dilation = list(convolution.stride), list(convolution.dilation)
        self.groups = convolution.groups
        # timm's TensorFlow-style layers pad by the input's size, the others by a constant
        self.pads_by_size = "Same" in type(convolution).__name__
        self.padding = [0, 0] if self.pads_by_size else list(cast(tuple[int, int], convolution.padding))
        self.before, self.after = nn.Identity(), nn.Identity()
        self.register_buffer("factor", None, persistent=False)
        self.register_buffer("offset", None, persistent=False)
        self._kept: Kept[Pass] = Kept()

    @property
    def depthwise(self) -> bool:
        return self.groups == len(self.weight) > 1 and self.weight.shape[1] == 1

    @property
    def pointwise(self) -> bool:
        """Whether it is a product of each pixel's channels with a matrix, and nothing else."""
        plain = self.stride == [1, 1] and self.padding == [0, 0] and self.weight.shape[2:] == (1, 1)
        return self.groups == 1 and plain and self.bounds == (FREE, FREE)

    @property
    def square(self) -> bool:
        """Whether it does the same in both directions, without gaps."""
        height, width = self.weight.shape[2:]
        return height == width and self.stride[0] == self.stride[1] and self.dilation == [1, 1]

    @property
    def takes_pixels(self) -> bool:
        """Whether it could be a network's first convolution in one operator with the normalisation."""
        few = self.groups == 1 and self.weight.shape[1] <= MOST_CHANNELS
        return few and self.square and self.bounds == (FREE, FREE)

    def layer(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution that it is."""
        return self.weight * self.scale, self.shift

    def forward(self, x: Tensor) -> Tensor:
        if self.factor is not None and self.offset is not None:
            whole = None if learns(x) else self.as_pass(Given.of(x))
            if whole is not None:
                return through(x, [whole])
            self._kept.forget()
            x = normalised(x.float(), self.factor, self.offset)
        padding = self.padding_of(x.shape[-2:])
        weight = self.weight * self.scale
        if self.depthwise and computable(x, weight, self.stride, self.dilation, padding):
            before, after = self.bounds
            stride = self.stride[0]
            return depthwise(x, weight, self.shift, stride=stride, padding=padding, before=before, after=after)
        x = self.before(x)
        if self.groups == 1 or not torch.is_autocast_enabled(x.device.type):
            return self.after(self._convolve(x, weight, padding))
        # Depthwise: the backward pass of oneDNN is several times slower in bfloat16 than in float32.
        with torch.autocast(x.device.type, enabled=False):
            return self.after(self._convolve(x.float(), weight, padding))

    def as_pass(self, given: Given) -> Pass | None:
        """Of images as they come; None where compiled loops do not compute it here and now, or it is to learn."""
        factor, offset = self.factor, self.offset
        if factor is None or offset is None or learns(self.weight):
            return None
        kind = given.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        taken = given.dtype in (torch.uint8, torch.float32) and self.weight.dtype == torch.float32
        if not taken or not in_use(given.device, dtype):
            return None

        def make() -> Pass:
            channels, _, kernel, _ = self.weight.shape
            layers = lay_out_stem(*self.layer(), factor, offset, dtype)
            padding = self.padding_of(given.shape[1:])
            return stem(layers, given.shape, kernel=kernel, channels=channels, stride=self.stride[0], padding=padding)

        return self._kept.get(make, [self.weight, self.scale, self.shift, factor, offset], (dtype, given.shape))

    def padding_of(self, size: Sequence[int]) -> list[int]:
        """Rows and columns of zeros on the top, bottom, left and right of what is so high and wide."""
        if not self.pads_by_size:
            return [pixels for pixels in self.padding for _ in range(2)]
        sizes = zip(size, self.weight.shape[-2:], self.stride, self.dilation, strict=True)
        total = [get_same_padding(*each) for each in sizes]
        return [part for pixels in total for part in (pixels // 2, pixels - pixels // 2)]

    @property
    def bounds(self) -> tuple[Bounds, Bounds]:
        """Lowest and highest value that what it computes of its input, and of its output, lets through."""
        return CLAMPS[type(self.before)], CLAMPS[type(self.after)]

    def _convolve(self, x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
        """The convolution; what both sides of `x` get alike is left to it, the rest costs a copy."""
        top, bottom, left, right = padding
        if top == bottom and left == right:
            return F.conv2d(x, weight, self.shift, self.stride, [top, left], self.dilation, self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, weight, self.shift, self.stride, 0, self.dilation, self.groups)


class JoinedBlock(nn.Module):
    """An inverted residual block of timm's, whose parts keep their names; one operator where nothing learns."""

    def __init__(self, block: InvertedResidual | DepthwiseSeparableConv) -> None:
        super().__init__()
        for name, part in block.named_children():
            self.add_module(name, part)
        self.has_skip = block.has_skip
        self._kept: Kept[Pass] = Kept()

    @property
    def convolutions(self) -> list[FoldedConvolution]:
        """The parts that do something: expansion, if there is one, depthwise convolution and projection."""
        return [part for part in self.children() if isinstance(part, FoldedConvolution)]

    def joinable(self) -> bool:
        """Whether it consists of these parts alone, in a form that the operator takes."""
        idle = (part for part in self.children() if not isinstance(part, FoldedConvolution))
        if not all(isinstance(leaf, nn.Identity | nn.Sequential) for part in idle for leaf in _leaves(part)):
            return False
        *expansion, depthwise, projection = self.convolutions
        return (
            len(expansion) <= 1
            and all(part.pointwise for part in (*expansion, projection))
            and (depthwise.depthwise and depthwise.square)
            and depthwise.stride[0] <= depthwise.weight.shape[2]
        )

    def forward(self, x: Tensor) -> Tensor:
        whole = None if learns(x) else self.as_pass(Given.of(x))
        if whole is not None:
            return through(x, [whole])
        self._kept.forget()
        y = x
        for part in self.children():
            y = part(y)
        return y + x if self.has_skip else y

    def as_pass(self, given: Given) -> Pass | None:
        """The block as one; None where compiled loops do not compute it here and now, or something is to learn."""
        *expansion, depthwise, projection = parts = self.convolutions
        usable = depthwise.weight.dtype == torch.float32 and in_use(given.device, given.dtype)
        products = [part.weight for part in (*expansion, projection)]
        if not usable or learns(*(part.weight for part in parts)) or not fits(given.dtype, products):
            return None

        def make() -> Pass:
            layers = [part.layer() for part in expansion]
            before, after = depthwise.bounds
            return inverted_residual(
                lay_out(layers[0] if layers else None, depthwise.layer(), projection.layer(), given.dtype),
                given.shape,
                stride=depthwise.stride[0],
                padding=depthwise.padding_of(given.shape[1:]),
                before=before,
                after=after,
                residual=self.has_skip,
            )

        return self._kept.get(make, [each for part in parts for each in (part.weight, part.scale, part.shift)], given)


def _leaves(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if not list(part.children())]


CLAMPS: dict[type[nn.Module], Bounds] = {nn.Identity: FREE, nn.ReLU: (0.0, inf), nn.ReLU6: (0.0, 6.0)}


def normalised(images: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """`images * factor + offset` by channel, in one pass; by rows as they lie, since three channels fill no vector.

    images: (B, C, H, W) float32. factor, offset: (C,).
    """
    if not images.is_contiguous(memory_format=torch.channels_last):
        return torch.addcmul(offset.view(1, -1, 1, 1), images, factor.view(1, -1, 1, 1))
    batch, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).reshape(batch * height, width * channels)
    rows = torch.addcmul(offset.repeat(width), rows, factor.repeat(width))
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
