"""The fused inverted residual block equals torch's operators, and runs only without gradients."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cpu.accelerate import with_kernels
from bench.cpu.arrays import UNBOUNDED, Bounds
from bench.cpu.inverted_residual import MAX_WEIGHT_BYTES, LaidOut, Layer, inverted_residual, lay_out, supports
from bench.cpu.layers import FusedBlock
from bench.detector.folding import freeze_norms, with_folded_norms
from bench.device import fast_paths
from tests.detector.oracles import needs_bfloat16, relative_error, spread_norms

pytestmark = pytest.mark.usefixtures("kernels_on")
RELU6 = (0.0, 6.0)


def layers(channels: tuple[int, int, int], kernel: int, *, expanded: bool) -> tuple[Layer | None, Layer, Layer]:
    generator = torch.Generator().manual_seed(sum(channels) * kernel)

    def drawn(*shape: int) -> Layer:
        return torch.randn(*shape, generator=generator), torch.randn(shape[0], generator=generator)

    inside, middle, outside = channels
    expansion = drawn(middle, inside, 1, 1) if expanded else None
    return expansion, drawn(middle, 1, kernel, kernel), drawn(outside, middle, 1, 1)


def picture(channels: int, *, images: int = 3, size: tuple[int, int] = (13, 21)) -> Tensor:
    x = torch.randn(images, channels, *size, generator=torch.Generator().manual_seed(channels))
    return x.contiguous(memory_format=torch.channels_last)


def reference(
    x: Tensor, weights: tuple[Layer | None, Layer, Layer], *, stride: int, padding: list[int], before: Bounds,
    after: Bounds, residual: bool, rounding: bool = False,
) -> Tensor:  # fmt: skip
    """The same in torch, in float64; with `rounding`, the input of the projection is rounded to bfloat16."""
    top, bottom, left, right = padding
    expansion, depthwise, projection = (part and (part[0].double(), part[1].double()) for part in weights)
    assert depthwise is not None
    assert projection is not None
    y = x.double() if expansion is None else F.conv2d(x.double(), *expansion)
    y = F.pad(y.clamp(*before), (left, right, top, bottom))
    y = F.conv2d(y, *depthwise, stride, groups=len(depthwise[0])).clamp(*after)
    y = F.conv2d(y.bfloat16().double() if rounding else y, *projection)
    return y + x if residual else y


def computed(x: Tensor, block: LaidOut, **options: Any) -> Tensor:
    return inverted_residual(block, (x.shape[1], x.shape[2], x.shape[3]), **options).run(x)


@pytest.mark.parametrize("bounds", [(RELU6, RELU6), (UNBOUNDED, RELU6), (RELU6, UNBOUNDED)])
@pytest.mark.parametrize("shape", [(1, 13, 21), (3, 13, 21), (4, 7, 4), (3, 1, 1)])
@pytest.mark.parametrize("geometry", [(3, 1, [1, 1, 1, 1]), (3, 2, [1, 1, 1, 2]), (5, 2, [2, 2, 3, 2])])
@pytest.mark.parametrize("channels", [(16, 96, 24), (5, 30, 7), (40, 40, 40)])
def test_it_computes_what_torch_computes(
    channels: tuple[int, int, int],
    geometry: tuple[int, int, list[int]],
    shape: tuple[int, int, int],
    bounds: tuple[Bounds, Bounds],
) -> None:
    kernel, stride, padding = geometry
    images, *size = shape
    weights = layers(channels, kernel, expanded=channels[0] != channels[1])
    x = picture(channels[0], images=images, size=(size[0], size[1]))
    residual = channels[0] == channels[2] and stride == 1
    options: dict[str, Any] = {"stride": stride, "padding": padding, "residual": residual}
    options |= {"before": bounds[0], "after": bounds[1]}
    y = computed(x, lay_out(*weights, x.dtype), **options)
    assert y.is_contiguous(memory_format=torch.channels_last)
    error = relative_error(y, reference(x, weights, **options).float())
    print(f"largest relative difference from torch in float64 {error:.1e}")
    assert error < 2e-6


@needs_bfloat16
@pytest.mark.parametrize("shape", [(1, 13, 21), (3, 13, 21), (3, 1, 1)])
@pytest.mark.parametrize("geometry", [(3, 1, [1, 1, 1, 1]), (5, 2, [2, 2, 3, 2])])
@pytest.mark.parametrize("channels", [(16, 96, 24), (6, 30, 7), (40, 40, 40)])
def test_in_bfloat16_factors_and_outputs_are_rounded(
    channels: tuple[int, int, int], geometry: tuple[int, int, list[int]], shape: tuple[int, int, int]
) -> None:
    kernel, stride, padding = geometry
    images, *size = shape
    weights = layers(channels, kernel, expanded=channels[0] != channels[1])
    x = picture(channels[0], images=images, size=(size[0], size[1])).bfloat16()
    residual = channels[0] == channels[2] and stride == 1
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "residual": residual,
        "before": RELU6,
        "after": RELU6,
    }
    y = computed(x, lay_out(*weights, x.dtype), **options)
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    expansion, depthwise, projection = weights
    rounded = (part and (part[0].bfloat16().float(), part[1]) for part in (expansion, projection))
    first, last = rounded
    assert last is not None
    expected = reference(x, (first, depthwise, last), rounding=True, **options)
    scale = float(expected.abs().max())
    error = float((y.double() - expected).abs().max()) / scale
    plain = float((y.double() - reference(x, weights, **options)).abs().max()) / scale
    print(f"largest difference, of the largest value: {error:.1e}; to torch in float64 {plain:.1e}")
    # Half of the last of eight bits, plus float32 rounding
    assert error < 2**-8
    assert plain < 2**-5


def test_torch_runs_for_large_layers_and_odd_channels_in_bfloat16() -> None:
    half, odd = torch.bfloat16, [torch.zeros(30, 5, 1, 1), torch.zeros(7, 30, 1, 1)]
    assert supports(torch.float32, odd)
    assert not supports(half, odd)
    assert supports(half, odd[1:])
    large = [torch.empty(MAX_WEIGHT_BYTES // 4, 2, 1, 1)]
    assert not supports(torch.float32, large)
    assert supports(half, large)


@pytest.mark.parametrize("images", [1, 5])
def test_results_do_not_depend_on_the_number_of_threads(images: int) -> None:
    weights, x, found = layers((16, 96, 16), 5, expanded=True), picture(16, images=images), []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found.append(
            computed(x, lay_out(*weights, x.dtype), stride=1, padding=[2] * 4, before=RELU6, after=RELU6, residual=True)
        )
    assert all(torch.equal(found[0], other) for other in found[1:])


def fused_network() -> tuple[nn.Module, nn.Module]:
    """EfficientNet-Lite0 from timm, and the same with kernels."""
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    spread_norms(network)
    freeze_norms(network)
    return network, with_kernels(with_folded_norms(timm_copy(network)))


def timm_copy(network: nn.Module) -> nn.Module:
    other = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    other.load_state_dict(network.state_dict())
    return other


def count_fused(network: nn.Module, images: Tensor, fused_inputs: list[int]) -> tuple[int, list[Tensor]]:
    """The number of fused blocks, and the maps."""
    fused_inputs.clear()
    maps = network(images)
    return len(fused_inputs), [level.detach() for level in maps]


def test_a_network_with_fused_blocks_keeps_its_parameter_names() -> None:
    network, ours = fused_network()
    blocks = [module for module in ours.modules() if isinstance(module, FusedBlock)]
    assert len(blocks) == 16
    parameters = {name for name, _ in network.named_parameters() if ".bn" not in name and "bn1" not in name}
    assert {name for name, _ in ours.named_parameters()} == parameters


def test_only_blocks_without_gradients_are_fused(fused_inputs: list[int]) -> None:
    network, ours = fused_network()
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        count, maps = count_fused(ours, images, fused_inputs)
        expected = network(images)
    assert count == 16
    assert max(relative_error(a, b) for a, b in zip(maps, expected, strict=True)) < 1e-4
    assert count_fused(ours, images, fused_inputs)[0] == 0
    blocks = [module for module in ours.modules() if isinstance(module, FusedBlock)]
    ours.get_submodule("conv_stem").requires_grad_(False)
    for block in blocks[:4]:
        block.requires_grad_(False)
    count, maps = count_fused(ours, images, fused_inputs)
    assert count == 4
    assert max(relative_error(a, b) for a, b in zip(maps, expected, strict=True)) < 1e-4
    fast_paths.enable(False)
    assert count_fused(ours, images, fused_inputs)[0] == 0


@needs_bfloat16
def test_blocks_are_fused_in_bfloat16_under_autocast(fused_inputs: list[int]) -> None:
    network, ours = fused_network()
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            count, maps = count_fused(ours, images, fused_inputs)
            plain = network(images)
    assert count == 16
    assert all(level.dtype == torch.bfloat16 for level in maps)
    for found, other, right in zip(maps, plain, expected, strict=True):
        error, torch_error = (float((each - right).norm() / right.norm()) for each in (found, other))
        print(f"relative error {error:.1e}, of torch's in bfloat16 {torch_error:.1e}")
        assert error < 1.2 * torch_error


def test_changed_weights_are_used() -> None:
    _, ours = fused_network()
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    weight = next(module for module in ours.modules() if isinstance(module, FusedBlock)).convolutions[-1].weight
    with torch.no_grad():
        before = ours(images)
        weight.mul_(-1)
        after = ours(images)
        fast_paths.enable(False)
        expected = ours(images)
    assert relative_error(after[0], before[0]) > 1e-2
    assert max(relative_error(a, b) for a, b in zip(after, expected, strict=True)) < 1e-4


def test_blocks_with_other_layers_are_not_fused(fused_inputs: list[int]) -> None:
    """Two blocks of MobileNetV3 have only ReLU and no squeeze-and-excitation."""
    network = timm.create_model("mobilenetv3_small_100", features_only=True).eval()
    spread_norms(network)
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(images)
        ours = with_kernels(with_folded_norms(network))
        count, maps = count_fused(ours, images, fused_inputs)
    assert count == 2
    assert max(relative_error(a, b) for a, b in zip(maps, expected, strict=True)) < 1e-4
