"""VGG16 with Winograd convolutions: the maps and gradients of the plain network."""

from __future__ import annotations

import copy

import pytest
import torch

from bench.cpu.accelerate import AcceleratedVGG16
from bench.detector.vgg import VGG16
from bench.device import fast_paths
from tests.detector.oracles import relative_error


def test_moved_relus_do_not_change_maps_or_gradients() -> None:
    torch.manual_seed(0)
    plain, images = VGG16(), torch.randn(2, 3, 100, 100)
    ours = AcceleratedVGG16(copy.deepcopy(plain))
    assert ours.order != sorted(ours.order)
    assert len(ours.order) < len(plain.features)
    found = []
    for network in (ours, plain):
        maps = network(images)
        torch.stack([level.square().sum() for level in maps]).sum().backward()
        gradients = [value.grad for value in network.features.parameters()]
        assert None not in gradients
        found.append([level.detach() for level in maps] + [each for each in gradients if each is not None])
    assert len(found[0]) == 2 + 26
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.usefixtures("kernels_on")
def test_kernels_give_the_same_maps_and_gradients() -> None:
    torch.manual_seed(0)
    network, images = AcceleratedVGG16(VGG16()), torch.randn(2, 3, 100, 100)
    found = []
    for wanted in (True, False):
        fast_paths.enable(wanted)
        maps = network(images)
        torch.stack([level.square().mean() for level in maps]).sum().backward()
        gradients = [value.grad.clone() for value in network.parameters() if value.grad is not None]
        network.zero_grad()
        found.append([level.detach() for level in maps] + gradients)
    pairs = list(zip(*found, strict=True))
    map_error = max(relative_error(ours, torchs) for ours, torchs in pairs[:2])
    gradient_error = max(relative_error(ours, torchs) for ours, torchs in pairs[2:])
    print(f"largest relative difference of maps {map_error:.1e}, of gradients {gradient_error:.1e}")
    assert 0 < map_error < 1e-5
    assert gradient_error < 5e-3  # an input near zero may pass a ReLU in only one of the two
