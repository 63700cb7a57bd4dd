"""VGG16 with Winograd convolutions: the maps and gradients of the plain network."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from bench.cpu.accelerate import AcceleratedVGG16
from bench.detector.backbones import Backbone
from bench.detector.vgg import VGG16
from bench.device import fast_paths
from bench.speed.torchvision_peer import torchvision_image
from tests.detector.oracles import needs_bfloat16, relative_error


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
    errors = [relative_error(ours, torchs) for ours, torchs in zip(*found, strict=True)]
    print(f"largest relative difference of maps {max(errors[:2]):.1e}, of gradients {max(errors[2:]):.1e}")
    assert 0 < max(errors[:2]) < 1e-5
    assert max(errors[2:]) < 1e-3  # inputs near zero may pass a ReLU in only one of the two


@needs_bfloat16
@pytest.mark.usefixtures("kernels_on", "without_amx")
def test_errors_in_bfloat16_on_photographs_are_similar_to_torch(shared_data: Path, winograd_inputs: list[int]) -> None:
    weights = shared_data.parent / "weights" / "vgg16_features_fp16.pth"
    if not weights.is_file():
        pytest.skip(f"{weights.name} is missing")
    backbone = Backbone("vgg16", str(weights)).eval()
    backbone.features = AcceleratedVGG16(backbone.features)
    files = sorted((shared_data / "bccd" / "JPEGImages").glob("*.jpg"))[:2]
    images = torch.stack([torchvision_image(file)[:, :300, :300] for file in files])
    found = []
    for wanted, half in ((False, False), (True, True), (False, True)):
        fast_paths.enable(wanted)
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            found.append([level.double() for level in backbone(images)])
    assert len(winograd_inputs) == 12  # all except the first, which has three channels
    for expected, ours, torchs in zip(*found, strict=True):
        error, torch_error = (float((each - expected).norm() / expected.norm()) for each in (ours, torchs))
        print(f"relative error {error:.1e}, of torch's in bfloat16 {torch_error:.1e}")
        assert error < 1.7 * torch_error
