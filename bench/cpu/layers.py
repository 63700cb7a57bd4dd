"""Modules that run layers of a detector as kernels. They share the parameters of the plain modules they replace.

Each runs plain torch code if its kernel does not apply: on another device, for another dtype, with fast paths off, or,
for the operator without gradients, if autograd needs it.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor, nn

from bench.cpu.arrays import UNBOUNDED, Bounds, kernels_apply, needs_grad
from bench.cpu.depthwise import depthwise, kernel_applies
from bench.cpu.inverted_residual import FusedLayer, inverted_residual, lay_out, supports
from bench.cpu.layout_cache import LayoutCache
from bench.detector.folded_convolution import FoldedConvolution

CLAMPS: dict[type[nn.Module], Bounds] = {nn.Identity: UNBOUNDED, nn.ReLU: (0.0, inf), nn.ReLU6: (0.0, 6.0)}


class KernelConvolution(FoldedConvolution):
    """A folded convolution with the activations before and after it; depthwise ones run as a kernel."""

    before: nn.Module
    after: nn.Module

    def __init__(self, plain: FoldedConvolution) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(plain.__dict__)
        self.before, self.after = nn.Identity(), nn.Identity()

    @property
    def depthwise(self) -> bool:
        return self.groups == len(self.weight) > 1 and self.weight.shape[1] == 1

    @property
    def pointwise(self) -> bool:
        """Whether it is a 1 x 1 convolution without stride, padding or activations."""
        plain = self.stride == [1, 1] and self.padding == [0, 0] and self.weight.shape[2:] == (1, 1)
        return self.groups == 1 and plain and self.bounds == (UNBOUNDED, UNBOUNDED)

    @property
    def square(self) -> bool:
        """Whether kernel and stride are equal in both directions, without dilation."""
        height, width = self.weight.shape[2:]
        return height == width and self.stride[0] == self.stride[1] and self.dilation == [1, 1]

    @property
    def bounds(self) -> tuple[Bounds, Bounds]:
        """The bounds to which its activations clamp the input and the output."""
        return CLAMPS[type(self.before)], CLAMPS[type(self.after)]

    def folded(self) -> tuple[Tensor, Tensor]:
        """The scaled weight, and the bias."""
        return self.weight * self.scale, self.shift

    def forward(self, x: Tensor) -> Tensor:
        if self.depthwise:
            padding, weight = self.padding_of(x.shape[-2:]), self.weight * self.scale
            if kernel_applies(x, weight, self.stride, self.dilation, padding):
                before, after = self.bounds
                stride = self.stride[0]
                return depthwise(x, weight, self.shift, stride=stride, padding=padding, before=before, after=after)
        y: Tensor = self.after(super().forward(self.before(x)))
        return y


class FusedBlock(nn.Module):
    """timm's inverted residual block, with the same names, which runs as one operator if no gradients are needed."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        for name, layer in block.named_children():
            self.add_module(name, layer)
        self.has_skip = bool(block.has_skip)
        self._layout: LayoutCache[FusedLayer] = LayoutCache()

    @property
    def convolutions(self) -> list[KernelConvolution]:
        """The expansion (if there is one), the depthwise convolution and the projection."""
        return [layer for layer in self.children() if isinstance(layer, KernelConvolution)]

    def fusible(self) -> bool:
        """Whether the block has no other layers, and the operator supports these."""
        others = (layer for layer in self.children() if not isinstance(layer, KernelConvolution))
        if not all(isinstance(leaf, nn.Identity | nn.Sequential) for layer in others for leaf in _leaves(layer)):
            return False
        if len(self.convolutions) < 2:
            return False
        *expansion, middle, projection = self.convolutions
        return (
            len(expansion) <= 1
            and all(layer.pointwise for layer in (*expansion, projection))
            and (middle.depthwise and middle.square)
            and middle.stride[0] <= middle.weight.shape[2]
        )

    def forward(self, x: Tensor) -> Tensor:
        fused = None if needs_grad(x) else self.fused(x)
        if fused is not None:
            return fused.run(x)
        y = x
        for layer in self.children():
            y = layer(y)
        return y + x if self.has_skip else y

    def fused(self, x: Tensor) -> FusedLayer | None:
        """The block as one operator for images like `x`; None if it does not apply or a weight needs gradients."""
        *expansion, middle, projection = convolutions = self.convolutions
        image = (x.shape[1], x.shape[2], x.shape[3])
        applies = middle.weight.dtype == torch.float32 and kernels_apply(x.device, x.dtype)
        pointwise = [layer.weight for layer in (*expansion, projection)]
        if not applies or not supports(x.dtype, pointwise) or needs_grad(*(layer.weight for layer in convolutions)):
            return None

        def build() -> FusedLayer:
            expanding = [layer.folded() for layer in expansion]
            before, after = middle.bounds
            return inverted_residual(
                lay_out(expanding[0] if expanding else None, middle.folded(), projection.folded(), x.dtype),
                image,
                stride=middle.stride[0],
                padding=middle.padding_of(image[1:]),
                before=before,
                after=after,
                residual=self.has_skip,
            )

        tensors = [tensor for layer in convolutions for tensor in (layer.weight, layer.scale, layer.shift)]
        return self._layout.get(build, tensors, (image, x.dtype))


def _leaves(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if not list(layer.children())]
