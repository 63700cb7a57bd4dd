"""An accelerated detector has the outputs and names of the plain one, and trains, freezes, saves and loads like it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import pytest
import torch

from bench.cpu.accelerate import AcceleratedVGG16, accelerate, has_kernels_for_grouped
from bench.cpu.layers import FusedBlock
from bench.data.targets import Targets
from bench.detector.ssd import SSD
from bench.device import fast_paths
from bench.spec import DetectorSpec, Phase
from bench.speed.cost import count_flops
from bench.training.trainer import Trainer
from tests import tiny
from tests.detector.oracles import relative_error, vgg16_specification
from variants.fpn import FPN

pytestmark = pytest.mark.usefixtures("kernels_on")


def lite(*, neck: bool = False) -> DetectorSpec:
    base = tiny.specification()
    base = FPN().apply(base, {}) if neck else base
    return replace(base.detector, backbone="efficientnet_lite0", weights="pretrained")


def pictures(count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 300, 300), generator=generator, dtype=torch.uint8)


@pytest.fixture(params=["light", "light with a pyramid", "another timm network", "VGG16"])
def detector(request: pytest.FixtureRequest) -> Iterator[DetectorSpec]:
    specs = {
        "light": lite(),
        "light with a pyramid": lite(neck=True),
        "another timm network": replace(tiny.specification().detector, backbone="resnet18"),
        "VGG16": vgg16_specification(2).detector,
    }
    yield specs[request.param]


def test_outputs_and_names_equal_those_of_the_plain_detector(detector: DetectorSpec) -> None:
    plain, ours = SSD(detector, seed=0).eval(), accelerate(SSD(detector, seed=0)).eval()
    with torch.inference_mode():
        for found, expected in zip(ours(pictures()), plain(pictures()), strict=True):
            assert relative_error(found, expected) < 1e-4
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in ours.state_dict().items())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in plain.named_parameters()]


def test_weights_load_in_both_directions(detector: DetectorSpec) -> None:
    plain, ours = SSD(detector, seed=1).eval(), accelerate(SSD(detector, seed=2)).eval()
    ours.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        assert relative_error(ours(pictures())[0], plain(pictures())[0]) < 1e-4
    back = SSD(detector, seed=3).eval()
    back.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        assert torch.equal(back(pictures())[0], plain(pictures())[0])


def test_without_fast_paths_outputs_equal_the_plain_detector_exactly() -> None:
    plain, ours = SSD(lite(), seed=0).eval(), accelerate(SSD(lite(), seed=0)).eval()
    fast_paths.enable(False)
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(ours(pictures()), plain(pictures()), strict=True))


def test_accelerating_twice_and_copying_change_nothing() -> None:
    ours = accelerate(SSD(lite(), seed=0)).eval()
    kinds = [type(module) for module in ours.modules()]
    assert [type(module) for module in accelerate(ours).modules()] == kinds
    other = copy.deepcopy(ours)
    with torch.inference_mode():
        before = ours(pictures())[0]
        assert torch.equal(other(pictures())[0], before)
    with torch.no_grad():
        other.backbone.features.conv_stem.weight.zero_()
    with torch.inference_mode():
        assert torch.equal(ours(pictures())[0], before)
        assert not torch.equal(other(pictures())[0], before)


def test_which_layers_have_kernels() -> None:
    light, large = accelerate(SSD(lite(), seed=0)), accelerate(SSD(vgg16_specification(2).detector, seed=0))
    assert sum(isinstance(module, FusedBlock) for module in light.modules()) == 16
    assert isinstance(large.backbone.features, AcceleratedVGG16)
    assert has_kernels_for_grouped(light)
    assert has_kernels_for_grouped(large)
    assert not has_kernels_for_grouped(SSD(lite(), seed=0))


def test_flops_equal_those_of_the_plain_detector(detector: DetectorSpec) -> None:
    plain, ours = SSD(detector, seed=0), accelerate(SSD(detector, seed=0))
    assert count_flops(ours, pictures(1)) == count_flops(plain, pictures(1)) > 0
    assert fast_paths.enabled()


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_new_weights_of_unfrozen_layers_are_used(optimiser: Literal["sgd", "adamw"]) -> None:
    """An optimiser step invalidates the layouts of layers that were frozen before."""
    training = replace(
        tiny.specification().training,
        steps=6,
        optimiser=optimiser,
        rate=0.01,
        frozen_stride=0,
        phases=(Phase(until=0.5, trainable=0.0), Phase(until=1.0, trainable=1.0)),
    )
    model = accelerate(SSD(lite(), seed=0))
    trainer = Trainer(model, training, tiny.NUMERICS)
    images = pictures()
    targets = Targets(
        torch.tensor([[[0.2, 0.2, 0.6, 0.6]]] * 2), torch.ones(2, 1, dtype=torch.long), torch.zeros(2, 1).bool()
    )

    def maps(kernels: bool) -> list[torch.Tensor]:
        fast_paths.enable(kernels)
        with torch.inference_mode():
            return model.backbone(images)

    def versions() -> list[int]:
        return [value._version for value in model.backbone.parameters()]

    before, unchanged = maps(True), versions()
    for step in range(6):
        trainer.step(step, images, targets)
        for found, expected, first in zip(maps(True), maps(False), before, strict=True):
            assert float((found - expected).abs().max()) < 1e-3 * float(expected.abs().max()), step
            assert torch.equal(found, first) == (step < 3)
        assert (versions() == unchanged) == (step < 3)  # frozen layers keep their layouts
        fast_paths.enable(True)
