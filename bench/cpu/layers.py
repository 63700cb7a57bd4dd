"""Modules that compute layers of a detector by kernels. They share the parameters of the plain modules they replace.

Each runs as plain torch code wherever its kernel does not apply: on another device, for another dtype, with fast paths
off, or, for the operators without gradients, while something in it learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor, nn

from bench.cpu.arrays import UNBOUNDED, Bounds, compute_dtype, kernels_apply, needs_grad
from bench.cpu.depthwise import computable, depthwise
from bench.cpu.fused_layer import FusedLayer, InputSpec, run_layers
from bench.cpu.inverted_residual import fits, inverted_residual, lay_out
from bench.cpu.layout_cache import LayoutCache
from bench.cpu.stem import MOST_CHANNELS, stem
from bench.cpu.stem import lay_out as lay_out_stem
from bench.detector.folded_convolution import FoldedConvolution

CLAMPS: dict[type[nn.Module], Bounds] = {nn.Identity: UNBOUNDED, nn.ReLU: (0.0, inf), nn.ReLU6: (0.0, 6.0)}


class KernelConvolution(FoldedConvolution):
    """A folded convolution with the activations around it; depthwise ones, and the first one, have kernels.

    before, after: activations of its input and output.
    factor, offset: (C,), set for the first convolution, which then normalises the pixels of images itself.
    """

    before: nn.Module
    after: nn.Module
    factor: Tensor | None
    offset: Tensor | None

    def __init__(self, plain: FoldedConvolution) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(plain.__dict__)
        self.before, self.after = nn.Identity(), nn.Identity()
        self.register_buffer("factor", None, persistent=False)
        self.register_buffer("offset", None, persistent=False)
        self._layout: LayoutCache[FusedLayer] = LayoutCache()

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
    def takes_pixels(self) -> bool:
        """Whether it could be one operator with the normalisation of the images."""
        few = self.groups == 1 and self.weight.shape[1] <= MOST_CHANNELS
        return few and self.square and self.bounds == (UNBOUNDED, UNBOUNDED)

    @property
    def bounds(self) -> tuple[Bounds, Bounds]:
        """The bounds that its activations clamp the input and the output to."""
        return CLAMPS[type(self.before)], CLAMPS[type(self.after)]

    def layer(self) -> tuple[Tensor, Tensor]:
        """Scaled weight, and bias."""
        return self.weight * self.scale, self.shift

    def forward(self, x: Tensor) -> Tensor:
        if self.factor is not None and self.offset is not None:
            fused = None if needs_grad(x) else self.fused(InputSpec.of(x))
            if fused is not None:
                return run_layers(x, [fused])
            x = torch.addcmul(self.offset.view(1, -1, 1, 1), x.float(), self.factor.view(1, -1, 1, 1))
        if self.depthwise:
            padding, weight = self.padding_of(x.shape[-2:]), self.weight * self.scale
            if computable(x, weight, self.stride, self.dilation, padding):
                before, after = self.bounds
                stride = self.stride[0]
                return depthwise(x, weight, self.shift, stride=stride, padding=padding, before=before, after=after)
        y: Tensor = self.after(super().forward(self.before(x)))
        return y

    def fused(self, given: InputSpec) -> FusedLayer | None:
        """The operator with the normalisation; None if it does not apply or the weight learns."""
        factor, offset = self.factor, self.offset
        if factor is None or offset is None or needs_grad(self.weight):
            return None
        dtype = compute_dtype(given.device)
        taken = given.dtype in (torch.uint8, torch.float32) and self.weight.dtype == torch.float32
        if not taken or not kernels_apply(given.device, dtype):
            return None

        def build() -> FusedLayer:
            channels, _, kernel, _ = self.weight.shape
            layers = lay_out_stem(*self.layer(), factor, offset, dtype)
            padding = self.padding_of(given.shape[1:])
            return stem(layers, given.shape, kernel=kernel, channels=channels, stride=self.stride[0], padding=padding)

        return self._layout.get(build, [self.weight, self.scale, self.shift, factor, offset], (dtype, given.shape))


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
            return run_layers(x, [fused])
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


class LayerSequence:
    """The layers of a network in their order, split after each feature map that it returns.

    While nothing learns, and with more images than threads, the first layers of each part run image by image.
    """

    def __init__(self, parts: Sequence[Sequence[nn.Module]]) -> None:
        self.parts = [list(part) for part in parts]

    def __call__(self, x: Tensor) -> list[Tensor]:
        maps = []
        for part in self.parts:
            fused = _fusible_start(x, part)
            x = run_layers(x, fused) if fused else x
            for layer in part[len(fused) :]:
                x = layer(x)
            maps.append(x)
        return maps


def _fusible_start(x: Tensor, layers: Sequence[nn.Module]) -> list[FusedLayer]:
    """The first layers that can run image by image; none if that is just one, which gains nothing."""
    fused: list[FusedLayer] = []
    if len(x) <= torch.get_num_threads() or needs_grad(x):
        return fused
    given = InputSpec.of(x)
    for layer in layers:
        found = layer.fused(given) if isinstance(layer, KernelConvolution | FusedBlock) else None
        if found is None:
            break
        fused.append(found)
        given = InputSpec(found.shape, found.dtype, given.device)
    return fused if len(fused) > 1 else []


def _leaves(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if not list(part.children())]
