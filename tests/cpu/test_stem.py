"""A network's first convolution with the normalisation in it: torch's numbers, where it learns nothing."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cpu.accelerate import AcceleratedBackbone, join_normalisation, with_kernels
from bench.cpu.fused_layer import InputSpec, run_layers
from bench.cpu.layers import KernelConvolution
from bench.cpu.stem import lay_out, stem
from bench.detector.backbones import Backbone, restore_timm_network
from bench.detector.folded_convolution import FoldedConvolution
from bench.device import fast_paths
from tests.detector.oracles import needs_bfloat16, relative_error

pytestmark = pytest.mark.usefixtures("kernels_on")
Layers = tuple[Tensor, Tensor, Tensor, Tensor]  # weight, bias, factor and offset
CASES = [(3, 32, 3, 2, [0, 1, 0, 1]), (1, 7, 3, 1, [1, 1, 1, 1]), (4, 40, 7, 2, [3, 2, 3, 3])]


def layers(channels: int, outputs: int, kernel: int) -> Layers:
    generator = torch.Generator().manual_seed(channels)
    weight = torch.randn(outputs, channels, kernel, kernel, generator=generator)
    factor, offset = torch.rand(2, channels, generator=generator)
    return weight, torch.randn(outputs, generator=generator), factor / 64 + 1 / 128, offset - 1


def pixels(channels: int, *, images: int = 3, size: tuple[int, int] = (13, 21)) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    drawn = torch.randint(0, 256, (images, channels, *size), generator=generator, dtype=torch.uint8)
    return drawn.contiguous(memory_format=torch.channels_last)


def torchs(images: Tensor, parts: Layers, stride: int, padding: list[int], *, rounding: bool = False) -> Tensor:
    """The same by torch, in float64; with what is multiplied rounded to bfloat16."""
    weight, bias, factor, offset = (part.double() for part in parts)
    top, bottom, left, right = padding
    x = images.double() * factor.view(-1, 1, 1) + offset.view(-1, 1, 1)
    if rounding:
        x, weight = x.bfloat16().double(), weight.bfloat16().double()
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride)


def computed(
    images: Tensor, layers: list[Tensor], *, kernel: int, channels: int, stride: int, padding: list[int]
) -> Tensor:
    shape = InputSpec.of(images).shape
    return run_layers(images, [stem(layers, shape, kernel=kernel, channels=channels, stride=stride, padding=padding)])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(1, 13, 21), (3, 13, 21), (2, 3, 40)])
@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_torch_computes(
    case: tuple[int, int, int, int, list[int]], shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    channels, outputs, kernel, stride, padding = case
    parts = layers(channels, outputs, kernel)
    images = pixels(channels, images=shape[0], size=shape[1:]).to(dtype)
    how = {"kernel": kernel, "channels": outputs, "stride": stride, "padding": padding}
    y = computed(images, lay_out(*parts, torch.float32), **how)  # type: ignore[arg-type]
    assert y.dtype == torch.float32
    assert y.is_contiguous(memory_format=torch.channels_last)
    error = relative_error(y, torchs(images, parts, stride, padding).float())
    print(f"largest relative difference to torch in float64 {error:.1e}")
    assert error < 2e-6


@needs_bfloat16
@pytest.mark.parametrize("case", CASES)
def test_in_bfloat16_what_is_multiplied_and_written_is_rounded(case: tuple[int, int, int, int, list[int]]) -> None:
    channels, outputs, kernel, stride, padding = case
    parts, images = layers(channels, outputs, kernel), pixels(channels)
    how = {"kernel": kernel, "channels": outputs, "stride": stride, "padding": padding}
    y = computed(images, lay_out(*parts, torch.bfloat16), **how)  # type: ignore[arg-type]
    assert y.dtype == torch.bfloat16
    expected = torchs(images, parts, stride, padding, rounding=True)
    error = float((y.double() - expected).abs().max() / expected.abs().max())
    print(f"largest difference, of the largest value: {error:.1e}")
    assert error < 2**-8  # half of the last of eight bits, and a number beside the middle of two


@pytest.mark.parametrize("images", [1, 5])
def test_results_do_not_depend_on_the_number_of_threads(images: int) -> None:
    parts, x, found = lay_out(*layers(3, 32, 3), torch.float32), pixels(3, images=images), []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found.append(computed(x, parts, kernel=3, channels=32, stride=2, padding=[0, 1, 0, 1]))
    assert all(torch.equal(found[0], other) for other in found[1:])


def accelerated(name: str, weights: str) -> AcceleratedBackbone:
    backbone = Backbone(name, weights)
    backbone.features = with_kernels(backbone.features)
    return AcceleratedBackbone(backbone)


def stems(backbone: Backbone, images: Tensor, fused_inputs: list[int]) -> tuple[int, list[Tensor]]:
    """How often the operator was called, and the maps."""
    fused_inputs.clear()
    maps = backbone(images)
    return fused_inputs.count(3), maps


def test_a_pretrained_networks_stem_takes_pixels_where_it_learns_nothing(fused_inputs: list[int]) -> None:
    plain, ours = Backbone("efficientnet_lite0", "pretrained"), accelerated("efficientnet_lite0", "pretrained")
    restore_timm_network(plain, "efficientnet_lite0", "pretrained")
    assert ours.normalises
    images = pixels(3, images=2, size=(96, 96))
    with torch.inference_mode():
        for x in (images, images.float()):
            counted, maps = stems(ours, x, fused_inputs)
            assert counted == 1
            assert max(relative_error(a, b) for a, b in zip(maps, plain(x), strict=True)) < 1e-4
        assert stems(ours, images.double(), fused_inputs)[0] == 0
    counted, maps = stems(ours, images, fused_inputs)
    assert counted == 0
    maps[0].sum().backward()
    assert ours.features.conv_stem.weight.grad is not None
    ours.features.conv_stem.requires_grad_(False)
    assert stems(ours, images, fused_inputs)[0] == 1
    fast_paths.enable(False)
    with torch.no_grad():
        counted, found = stems(ours, images, fused_inputs)
        assert max(relative_error(a, b) for a, b in zip(found, plain(images), strict=True)) < 1e-4
    assert counted == 0


def test_weights_that_have_changed_are_used_as_they_are() -> None:
    ours = accelerated("efficientnet_lite0", "pretrained")
    images = pixels(3, images=2, size=(96, 96))
    with torch.no_grad():
        before = ours.features.conv_stem(images)
        ours.features.conv_stem.weight.mul_(-1)
        after = ours.features.conv_stem(images)
        other = copy.deepcopy(ours)
        ours.features.conv_stem.weight.mul_(-1)
        again = ours.features.conv_stem(images)
        kept = other.features.conv_stem(images)
    assert relative_error(after, before) > 1e-2
    assert torch.equal(again, before)
    assert torch.equal(kept, after)


def test_an_untrained_network_normalises_before_it() -> None:
    ours = accelerated("test_efficientnet", "none").eval()
    assert not ours.normalises
    images = pixels(3, images=2, size=(96, 96))
    with torch.no_grad():
        x = (images.float() - ours.mean) / ours.deviation
        assert max(relative_error(a, b) for a, b in zip(ours(images), ours.features(x), strict=True)) < 1e-4


class Forked(nn.Module):
    """A network that reads its images twice."""

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        self.twice = twice
        self.first = KernelConvolution(FoldedConvolution(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval()))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.first(x), x.mean(dim=1)] if self.twice else [self.first(x)]


@pytest.mark.parametrize("twice", [True, False])
def test_images_that_something_else_reads_are_normalised_before(twice: bool) -> None:
    network = Forked(twice=twice)
    mean, deviation = torch.tensor([120.0, 110.0, 100.0]), torch.tensor([50.0, 60.0, 70.0])
    assert join_normalisation(network, mean, deviation) == (not twice)
    assert (network.first.factor is None) == twice
