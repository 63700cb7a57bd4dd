"""A network as a line of layers: the same maps, image by image where nothing learns."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from bench.cpu import layers
from bench.cpu.accelerate import AcceleratedBackbone, layer_sequence, with_kernels
from bench.cpu.arrays import kernels_apply
from bench.cpu.fused_layer import FusedLayer, run_layers
from bench.detector.backbones import Backbone, restore_timm_network
from bench.speed.cost import count_flops
from tests.detector.oracles import needs_bfloat16

pytestmark = pytest.mark.usefixtures("kernels_on")


@pytest.fixture(scope="module")
def backbone() -> AcceleratedBackbone:
    plain = Backbone("efficientnet_lite0", "pretrained")
    plain.features = with_kernels(plain.features)
    return AcceleratedBackbone(plain)


def pixels(channels: int, *, images: int = 3, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    drawn = torch.randint(0, 256, (images, channels, *size), generator=generator, dtype=torch.uint8)
    return drawn.contiguous(memory_format=torch.channels_last)


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers were computed image by image, each time."""
    counts: list[int] = []

    def counted(x: Tensor, passes: Sequence[FusedLayer]) -> Tensor:
        counts.append(len(passes))
        return run_layers(x, passes)

    monkeypatch.setattr(layers, "run_layers", counted)
    return counts


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)])
@pytest.mark.parametrize(("images", "threads"), [(5, 2), (3, 1), (4, 3), (1, 1), (2, 2), (0, 1)])
def test_image_by_image_the_maps_are_the_same(
    images: int, threads: int, dtype: torch.dtype, backbone: AcceleratedBackbone, together: list[int]
) -> None:
    torch.set_num_threads(threads)
    x = pixels(3, images=5, size=(96, 80))[:images]
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        layer_by_layer, maps = list(backbone.features(x)), backbone(x)
    assert together == ([6, 6, 5] if images > threads else [])  # the stem and sixteen blocks, up to the three maps
    assert len(maps) == len(layer_by_layer) == 3
    assert all(torch.equal(ours, expected) for ours, expected in zip(maps, layer_by_layer, strict=True))


def test_what_learns_is_computed_layer_by_layer(backbone: AcceleratedBackbone, together: list[int]) -> None:
    torch.set_num_threads(2)
    frozen = copy.deepcopy(backbone).requires_grad_(False)
    frozen.features.blocks[2][1].requires_grad_(True)
    plain = copy.deepcopy(frozen)
    plain.sequence = None
    images = pixels(3, images=3, size=(64, 64)).float()
    for each in (frozen, plain):
        torch.stack([level.square().mean() for level in each(images)]).sum().backward()
    assert together == [5]  # all before that block; what comes after it needs its gradients
    found, expected = (
        {name: value.grad for name, value in each.named_parameters() if value.grad is not None}
        for each in (frozen, plain)
    )
    assert {name.rsplit(".", 2)[0] for name in found} == {"features.blocks.2.1"}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    images.requires_grad_(True)
    frozen(images)[0].sum().backward()
    assert together == [5]
    assert images.grad is not None


def test_a_copy_has_its_own_sequence(backbone: AcceleratedBackbone) -> None:
    other, images = copy.deepcopy(backbone), pixels(3, images=3, size=(64, 64))
    with torch.no_grad():
        before = backbone(images)
        other.features.blocks[1][0].conv_pwl.weight.zero_()
        assert not torch.equal(other(images)[0], before[0])
        assert torch.equal(backbone(images)[0], before[0])


def test_its_operations_are_counted_as_those_of_timms_own_network(backbone: AcceleratedBackbone) -> None:
    plain, images = Backbone("efficientnet_lite0", "pretrained"), pixels(3, images=3, size=(64, 64))
    restore_timm_network(plain, "efficientnet_lite0", "pretrained")
    assert count_flops(backbone, images) == count_flops(plain, images) > 0
    assert kernels_apply(images.device, torch.float32)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.idle = nn.Identity()


class Straight(Layers):
    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.idle(self.first(x))
        return [x, self.third(self.second(x))]


class Skipping(Layers):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.second(self.first(x)) + x]


class AddingInPlace(Layers):
    def forward(self, x: Tensor) -> list[Tensor]:
        y = self.first(x)
        y += x
        return [self.third(self.second(y))]


class Branching(Layers):
    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.first(x)
        return [self.second(x), self.third(x)]


class EndingElsewhere(Layers):
    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.first(x)
        self.second(x)
        return [x]


@pytest.mark.parametrize("kind", [Straight, Skipping, AddingInPlace, Branching, EndingElsewhere])
def test_only_one_layer_after_another_is_a_sequence(kind: type[Layers]) -> None:
    torch.manual_seed(0)
    network, images = kind(), torch.randn(2, 3, 8, 8)
    sequence = layer_sequence(network, images)
    if kind is not Straight:
        assert sequence is None
        return
    assert sequence is not None
    assert sequence.parts == [[network.first], [network.second, network.third]]
    for ours, expected in zip(sequence(images), network(images), strict=True):
        assert torch.equal(ours, expected)
