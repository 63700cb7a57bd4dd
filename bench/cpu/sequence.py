"""Networks that are one layer after another: what nothing is to learn in is computed image by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.cpu.fused_layer import Given, Pass, through
from bench.detector.folded_convolution import FoldedConvolution, JoinedBlock
from bench.detector.folding import same_maps


class Line:
    """The parts of a network in their order, up to each of its maps.

    It gives the maps that the network gives. Where nothing learns on a CPU, and there are more images than threads,
    the first parts up to a map are computed image by image, so that what lies between them stays in the cache.
    """

    def __init__(self, stretches: Sequence[Sequence[nn.Module]]) -> None:
        self.stretches = [list(stretch) for stretch in stretches]

    def __call__(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stretch in self.stretches:
            passes = _passes(x, stretch)
            x = through(x, passes) if passes else x
            for part in stretch[len(passes) :]:
                x = part(x)
            maps.append(x)
        return maps


def _passes(x: Tensor, parts: Sequence[nn.Module]) -> list[Pass]:
    """What the first of the parts are image by image; of a single one there is nothing to gain."""
    passes: list[Pass] = []
    if len(x) <= torch.get_num_threads() or (torch.is_grad_enabled() and x.requires_grad):
        return passes
    given = Given.of(x)
    for part in parts:
        found = part.as_pass(given) if isinstance(part, FoldedConvolution | JoinedBlock) else None
        if found is None:
            break
        passes.append(found)
        given = Given(found.shape, found.dtype, given.device)
    return passes if len(passes) > 1 else []


def straight_line(network: Any, images: Tensor) -> Line | None:
    """The network as a line, read off a forward pass; None where it is none, or gives other maps as one.

    It is one if each part takes what the one before gives, the maps are what parts give, and the last part gives one.
    """
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def remember(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((part, inputs[0], output))

    hooks = [part.register_forward_hook(remember) for part in _parts(network)]
    with torch.no_grad():
        maps = list(network(images))
        for hook in hooks:
            hook.remove()
        stretches: list[list[nn.Module]] = [[]]
        before = images
        for part, given, made in calls:
            if given is not before or len(stretches) > len(maps):
                return None
            if not isinstance(part, nn.Identity):
                stretches[-1].append(part)
            if made is maps[len(stretches) - 1]:
                stretches.append([])
            before = made
        line = Line(stretches[:-1])
        return line if len(stretches) == len(maps) + 1 and same_maps(line(images), maps) else None


def _parts(network: nn.Module) -> list[nn.Module]:
    """The modules that compute: those of folded layers as a whole, else those without parts of their own."""
    children = list(network.children())
    if isinstance(network, FoldedConvolution | JoinedBlock) or not children:
        return [network]
    return [part for child in children for part in _parts(child)]
