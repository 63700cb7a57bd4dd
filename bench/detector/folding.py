"""Frozen BatchNorm folded into the convolutions of a network, and operators that are computed together.

What is folded or joined is read off a forward pass, and kept only if the network gives the same maps with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from timm.layers.norm_act import BatchNormAct2d
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from bench.detector.folded_convolution import CLAMPS, FoldedConvolution, JoinedBlock, normalised


def with_folded_norms(network: Any) -> Any:
    """`network` with every BatchNorm frozen, and folded into the convolution before it where there is one.

    Which convolution that is, is read off a forward pass. If the folded network does not give the same
    maps (something else reads a convolution's output), the norms are frozen where they stand.
    """
    network.eval()
    tried = probe(-1, 1)
    with torch.no_grad():
        before = [level.clone() for level in network(tried)]
        folded = copy.deepcopy(network)
        _fold_norms(folded, tried)
        joined = copy.deepcopy(folded)
        _join_clamps(joined, tried)
        _join_blocks(joined)
        chosen = next((each for each in (joined, folded) if same_maps(each(tried), before)), network)
    freeze_norms(chosen)
    return chosen


def join_normalisation(network: Any, mean: Tensor, deviation: Tensor) -> bool:
    """Let the network's first convolution normalise the images, in place; False where it has none that can.

    mean, deviation: (C,), of pixels of 0 to 255.
    """
    convolutions = [module for module in network.modules() if isinstance(module, FoldedConvolution)]
    if not convolutions:
        return False
    factor, offset = 1 / deviation, -mean / deviation
    pixels = probe(0, 255, len(mean))
    images = normalised(pixels, factor, offset)
    first: list[FoldedConvolution] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0] is images:
            first.append(cast(FoldedConvolution, module))

    hooks = [convolution.register_forward_pre_hook(look) for convolution in convolutions]
    with torch.no_grad():
        expected = [level.clone() for level in network(images)]
        for hook in hooks:
            hook.remove()
        if len(first) != 1 or not first[0].takes_pixels:
            return False
        first[0].factor, first[0].offset = factor, offset
        if same_maps(network(pixels), expected):
            return True
    first[0].factor = first[0].offset = None  # something else reads the images too
    return False


def probe(low: float, high: float, channels: int = 3) -> Tensor:
    """(1, channels, 128, 128) of `low` to `high`: the image that a network is tried on."""
    return torch.linspace(low, high, channels * 128 * 128).view(1, channels, 128, 128)


def freeze_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)


def _fold_norms(network: Any, tried: Tensor) -> None:
    """Every BatchNorm into the convolution whose output it receives."""
    for norm_name, convolution_name in _sources(network, tried, _is(nn.BatchNorm2d), _is(nn.Conv2d)).items():
        norm = cast(nn.BatchNorm2d, network.get_submodule(norm_name))
        convolution = cast(nn.Conv2d, network.get_submodule(convolution_name))
        network.set_submodule(convolution_name, FoldedConvolution(convolution, norm))
        rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
        network.set_submodule(norm_name, rest)


def _join_clamps(network: Any, tried: Tensor) -> None:
    """Activations that only clamp into the depthwise convolution that receives them, or that they receive."""

    def depthwise(module: nn.Module) -> bool:
        return isinstance(module, FoldedConvolution) and module.depthwise

    def clamps(module: nn.Module) -> bool:
        return type(module) in CLAMPS and not isinstance(module, nn.Identity)

    before = _sources(network, tried, depthwise, clamps)
    after = _sources(network, tried, clamps, depthwise)
    for convolution, activation in before.items():
        network.get_submodule(convolution).before = network.get_submodule(activation)
    for activation, convolution in after.items():
        network.get_submodule(convolution).after = network.get_submodule(activation)
    for activation in {*before.values(), *after}:
        network.set_submodule(activation, nn.Identity())


def _join_blocks(network: Any) -> None:
    """Inverted residual blocks into one operator each, where it takes them."""
    for name, module in list(network.named_modules()):
        if type(module) in (InvertedResidual, DepthwiseSeparableConv):
            block = JoinedBlock(module)
            if len(block.convolutions) >= 2 and block.joinable():
                network.set_submodule(name, block.train(module.training))


def _is(kind: type[nn.Module]) -> Callable[[nn.Module], bool]:
    return lambda module: isinstance(module, kind)


def same_maps(ours: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    pairs = zip(ours, expected, strict=True)
    return all(float((a - b).abs().max()) <= 1e-3 * float(b.abs().max()) for a, b in pairs)


def _sources(
    network: Any, tried: Tensor, takes: Callable[[nn.Module], bool], gives: Callable[[nn.Module], bool]
) -> dict[str, str]:
    """Names of modules that take, each with that of the module that gives what it receives, in a forward pass."""
    made: dict[int, str] = {}
    pairs: dict[str, str] = {}
    alive: list[Tensor] = []  # an id is only unique while its object lives
    names = {module: name for name, module in network.named_modules()}

    def remember(module: nn.Module, _: Any, output: Tensor) -> None:
        made[id(output)] = names[module]
        alive.append(output)

    def look_up(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            pairs[names[module]] = made[id(inputs[0])]

    hooks = [module.register_forward_hook(remember) for module in names if gives(module)]
    hooks += [module.register_forward_pre_hook(look_up) for module in names if takes(module)]
    network(tried)
    for hook in hooks:
        hook.remove()
    return pairs
