"""Frozen BatchNorm layers of a pretrained network, folded into the convolutions before them.

Which convolution feeds which norm is traced in a forward pass. The folded network is used only if it gives the same
feature maps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from bench.detector.folded_convolution import FoldedConvolution


def with_folded_norms(network: Any) -> Any:
    """`network` with all its BatchNorm layers frozen, and each folded into the convolution that feeds it.

    If folding would change a feature map (because something else reads a convolution's output too), the norms are
    frozen where they stand.
    """
    network.eval()
    image = probe(-1, 1)
    with torch.no_grad():
        before = [level.clone() for level in network(image)]
        folded = copy.deepcopy(network)
        _fold_norms(folded, image)
        chosen = folded if same_maps(folded(image), before) else network
    freeze_norms(chosen)
    return chosen


def freeze_norms(network: nn.Module) -> None:
    """Stop the BatchNorm layers of `network` from learning."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)


def probe(low: float, high: float, channels: int = 3) -> Tensor:
    """(1, channels, 128, 128) with values from `low` to `high`: the image that a network is traced with."""
    return torch.linspace(low, high, channels * 128 * 128).view(1, channels, 128, 128)


def same_maps(ours: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether two lists of feature maps agree within 0.1% of the largest value of each map."""
    pairs = zip(ours, expected, strict=True)
    return all(float((a - b).abs().max()) <= 1e-3 * float(b.abs().max()) for a, b in pairs)


def trace_inputs(
    network: Any, image: Tensor, readers: Callable[[nn.Module], bool], writers: Callable[[nn.Module], bool]
) -> dict[str, str]:
    """For each reader that reads a writer's output in a forward pass, the name of that writer."""
    written: dict[int, str] = {}
    pairs: dict[str, str] = {}
    alive: list[Tensor] = []  # an id is only unique while its object lives
    names = {module: name for name, module in network.named_modules()}

    def remember(module: nn.Module, _: Any, output: Tensor) -> None:
        written[id(output)] = names[module]
        alive.append(output)

    def look_up(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in written:
            pairs[names[module]] = written[id(inputs[0])]

    hooks = [module.register_forward_hook(remember) for module in names if writers(module)]
    hooks += [module.register_forward_pre_hook(look_up) for module in names if readers(module)]
    network(image)
    for hook in hooks:
        hook.remove()
    return pairs


def _fold_norms(network: Any, image: Tensor) -> None:
    """Fold each BatchNorm into the convolution whose output it reads."""
    for norm_name, convolution_name in trace_inputs(network, image, _is(nn.BatchNorm2d), _is(nn.Conv2d)).items():
        norm = cast(nn.BatchNorm2d, network.get_submodule(norm_name))
        convolution = cast(nn.Conv2d, network.get_submodule(convolution_name))
        network.set_submodule(convolution_name, FoldedConvolution(convolution, norm))
        rest = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
        network.set_submodule(norm_name, rest)


def _is(kind: type[nn.Module]) -> Callable[[nn.Module], bool]:
    return lambda module: isinstance(module, kind)
