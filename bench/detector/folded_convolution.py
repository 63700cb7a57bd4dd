"""A convolution with the frozen BatchNorm after it folded in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.padding import get_same_padding
from torch import Tensor, nn


class FoldedConvolution(nn.Module):
    """A convolution followed by a frozen BatchNorm, as one convolution with scaled weights.

    The trainable weight is that of the plain convolution, so a gradient step means the same as with the BatchNorm in
    place. Folding saves one pass over the activations, forward and backward.
    """

    scale: Tensor
    shift: Tensor

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
        # timm's TensorFlow-style layers pad by the size of their input, all others by a constant
        self.pads_by_size = "Same" in type(convolution).__name__
        self.padding = [0, 0] if self.pads_by_size else list(cast(tuple[int, int], convolution.padding))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H', W')."""
        padding, weight = self.padding_of(x.shape[-2:]), self.weight * self.scale
        if self.groups == 1 or not torch.is_autocast_enabled(x.device.type):
            return self.convolve(x, weight, padding)
        # oneDNN's backward pass of depthwise convolutions is several times slower in bfloat16 than in float32
        with torch.autocast(x.device.type, enabled=False):
            return self.convolve(x.float(), weight, padding)

    def convolve(self, x: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
        """The convolution with a scaled weight; only uneven padding costs a copy of `x`."""
        top, bottom, left, right = padding
        if top == bottom and left == right:
            return F.conv2d(x, weight, self.shift, self.stride, [top, left], self.dilation, self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, weight, self.shift, self.stride, 0, self.dilation, self.groups)

    def padding_of(self, size: Sequence[int]) -> list[int]:
        """Rows and columns of zeros at the top, bottom, left and right of an input of `size` (height, width)."""
        if not self.pads_by_size:
            return [pixels for pixels in self.padding for _ in range(2)]
        sizes = zip(size, self.weight.shape[-2:], self.stride, self.dilation, strict=True)
        total = [get_same_padding(*each) for each in sizes]
        return [part for pixels in total for part in (pixels // 2, pixels - pixels // 2)]
