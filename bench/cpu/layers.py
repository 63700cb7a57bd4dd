"""Modules that compute layers of a detector by kernels. They share the parameters of the plain modules they replace.

Each runs as plain torch code wherever its kernel does not apply: on another device, for another dtype, with fast paths
off, or, for the operators without gradients, while something in it learns.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor, nn

from bench.cpu.arrays import UNBOUNDED, Bounds, kernels_apply, needs_grad
from bench.cpu.depthwise import computable, depthwise
from bench.cpu.fused_layer import FusedLayer, InputSpec
from bench.cpu.inverted_residual import fits, inverted_residual, lay_out
from bench.cpu.layout_cache import LayoutCache
from bench.detector.folded_convolution import FoldedConvolution

CLAMPS: dict[type[nn.Module], Bounds] = {nn.Identity: UNBOUNDED, nn.ReLU: (0.0, inf), nn.ReLU6: (0.0, 6.0)}


class KernelConvolution(FoldedConvolution):
    """A folded convolution with the activations around it; depthwise ones have kernels.

    before, after: activations of its input and output.
    """

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
        """Whether it is a 1 x 1 convolution and nothing else."""
        plain = self.stride == [1, 1] and self.padding == [0, 0] and self.weight.shape[2:] == (1, 1)
        return self.groups == 1 and plain and self.bounds == (UNBOUNDED, UNBOUNDED)

    @property
    def square(self) -> bool:
        """Whether kernel and stride are the same in both directions, without dilation."""
        height, width = self.weight.shape[2:]
        return height == width and self.stride[0] == self.stride[1] and self.dilation == [1, 1]

    @property
    def bounds(self) -> tuple[Bounds, Bounds]:
        """The bounds that its activations clamp the input and the output to."""
        return CLAMPS[type(self.before)], CLAMPS[type(self.after)]

    def layer(self) -> tuple[Tensor, Tensor]:
        """Scaled weight, and bias."""
        return self.weight * self.scale, self.shift

    def forward(self, x: Tensor) -> Tensor:
        if self.depthwise:
            padding, weight = self.padding_of(x.shape[-2:]), self.weight * self.scale
            if computable(x, weight, self.stride, self.dilation, padding):
                before, after = self.bounds
                stride = self.stride[0]
                return depthwise(x, weight, self.shift, stride=stride, padding=padding, before=before, after=after)
        y: Tensor = self.after(super().forward(self.before(x)))
        return y


class FusedBlock(nn.Module):
    """An inverted residual block of timm's; one operator while nothing in it learns. Its parts keep their names."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        for name, part in block.named_children():
            self.add_module(name, part)
        self.has_skip = bool(block.has_skip)
        self._layout: LayoutCache[FusedLayer] = LayoutCache()

    @property
    def convolutions(self) -> list[KernelConvolution]:
        """Expansion (if there is one), depthwise convolution and projection."""
        return [part for part in self.children() if isinstance(part, KernelConvolution)]

    def fusible(self) -> bool:
        """Whether it has these parts alone, in a form that the operator takes."""
        idle = (part for part in self.children() if not isinstance(part, KernelConvolution))
        if not all(isinstance(leaf, nn.Identity | nn.Sequential) for part in idle for leaf in _leaves(part)):
            return False
        if len(self.convolutions) < 2:
            return False
        *expansion, middle, projection = self.convolutions
        return (
            len(expansion) <= 1
            and all(part.pointwise for part in (*expansion, projection))
            and (middle.depthwise and middle.square)
            and middle.stride[0] <= middle.weight.shape[2]
        )

    def forward(self, x: Tensor) -> Tensor:
        fused = None if needs_grad(x) else self.fused(InputSpec.of(x))
        if fused is not None:
            return fused.run(x)
        y = x
        for part in self.children():
            y = part(y)
        return y + x if self.has_skip else y

    def fused(self, given: InputSpec) -> FusedLayer | None:
        """The block as one operator; None if it does not apply or something in the block learns."""
        *expansion, middle, projection = parts = self.convolutions
        applies = middle.weight.dtype == torch.float32 and kernels_apply(given.device, given.dtype)
        products = [part.weight for part in (*expansion, projection)]
        if not applies or needs_grad(*(part.weight for part in parts)) or not fits(given.dtype, products):
            return None

        def build() -> FusedLayer:
            layers = [part.layer() for part in expansion]
            before, after = middle.bounds
            return inverted_residual(
                lay_out(layers[0] if layers else None, middle.layer(), projection.layer(), given.dtype),
                given.shape,
                stride=middle.stride[0],
                padding=middle.padding_of(given.shape[1:]),
                before=before,
                after=after,
                residual=self.has_skip,
            )

        tensors = [each for part in parts for each in (part.weight, part.scale, part.shift)]
        return self._layout.get(build, tensors, given)


def _leaves(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if not list(part.children())]
