"""The fused depthwise convolution equals torch's three operators, with gradients."""

from __future__ import annotations

import copy
from math import inf

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cpu.accelerate import with_kernels
from bench.cpu.arrays import UNBOUNDED, Bounds
from bench.cpu.depthwise import depthwise, kernel_applies
from bench.cpu.layers import KernelConvolution
from bench.detector.folding import with_folded_norms
from bench.device import fast_paths
from tests.detector.oracles import needs_bfloat16, relative_error, spread_norms

pytestmark = pytest.mark.usefixtures("kernels_on")
EVEN = [1, 1, 1, 1]
RELU, RELU6 = (0.0, inf), (0.0, 6.0)


def case(
    channels: int, kernel: int, *, images: int = 3, size: tuple[int, int] = (13, 10), spread: float = 4.0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(channels * kernel)
    x = torch.randn(images, channels, *size, generator=generator) * spread
    weight = torch.randn(channels, 1, kernel, kernel, generator=generator)
    return x.contiguous(memory_format=torch.channels_last), weight, torch.randn(channels, generator=generator)


def reference(
    x: Tensor, weight: Tensor, bias: Tensor, *, stride: int, padding: list[int], before: Bounds, after: Bounds
) -> Tensor:
    """The same in torch, in the dtype of the arguments."""
    top, bottom, left, right = padding
    x = x if before == UNBOUNDED else F.hardtanh(x, *before)
    y = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, stride, groups=len(weight))
    return y if after == UNBOUNDED else F.hardtanh(y, *after)


@pytest.mark.parametrize(
    ("before", "after"), [(UNBOUNDED, UNBOUNDED), (RELU6, RELU6), (UNBOUNDED, RELU), (RELU6, UNBOUNDED)]
)
@pytest.mark.parametrize("padding", [[1, 1, 1, 1], [0, 1, 2, 0], [0, 0, 0, 0]])
@pytest.mark.parametrize("size", [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("channels", [1, 32, 40])
def test_it_computes_what_torch_computes(
    channels: int, size: tuple[int, int], padding: list[int], before: Bounds, after: Bounds
) -> None:
    kernel, stride = size
    x, weight, bias = case(channels, kernel)
    options = {"stride": stride, "padding": padding, "before": before, "after": after}
    x.requires_grad_()
    weight.requires_grad_()
    y = depthwise(x, weight, bias, **options)  # type: ignore[arg-type]
    exact_inputs = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    expected = reference(*exact_inputs, bias.double(), **options)  # type: ignore[arg-type]
    output_gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    ours = torch.autograd.grad(y, (x, weight), output_gradient)
    theirs = torch.autograd.grad(expected, exact_inputs, output_gradient.double())
    assert y.is_contiguous(memory_format=torch.channels_last)
    pairs = zip((y.detach(), *ours), (expected.detach(), *theirs), strict=True)
    errors = [relative_error(found, right.float()) for found, right in pairs]
    print(f"largest relative difference from torch in float64 {max(errors):.1e}")
    assert max(errors) < 2e-6


@needs_bfloat16
@pytest.mark.parametrize(("before", "after"), [(UNBOUNDED, UNBOUNDED), (RELU6, RELU6), (UNBOUNDED, RELU)])
@pytest.mark.parametrize("size", [(3, 1), (5, 2)])
@pytest.mark.parametrize("channels", [1, 32, 40])
def test_in_bfloat16_only_outputs_are_rounded(
    channels: int, size: tuple[int, int], before: Bounds, after: Bounds
) -> None:
    kernel, stride = size
    x, weight, bias = case(channels, kernel)
    options = {"stride": stride, "padding": [1, 1, 2, 1], "before": before}
    x = x.bfloat16().requires_grad_()
    weight.requires_grad_()
    y = depthwise(x, weight, bias, after=after, **options)  # type: ignore[arg-type]
    exact_inputs = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    expected = reference(*exact_inputs, bias.double(), after=UNBOUNDED, **options)  # type: ignore[arg-type]
    # An output that is rounded to a bound passes no gradient
    expected = expected.bfloat16().double() if after == UNBOUNDED else F.hardtanh(expected.bfloat16().double(), *after)
    output_gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).bfloat16()
    grad_x, grad_weight = torch.autograd.grad(y, (x, weight), output_gradient)
    exact_x, exact_weight = torch.autograd.grad(expected, exact_inputs, output_gradient.double())
    assert y.dtype == grad_x.dtype == torch.bfloat16
    assert grad_weight.dtype == torch.float32
    assert y.is_contiguous(memory_format=torch.channels_last)
    errors = [relative_error(grad_weight, exact_weight.float())]
    for found, right in ((y.detach(), expected.detach()), (grad_x, exact_x)):
        # Rounding of float32 sums may change to which bfloat16 neighbour they are rounded
        differs = float((found != right.bfloat16()).double().mean())
        errors.append(float(((found - right).abs() / right.abs().clamp(min=1e-2)).max()))
        assert differs < 1e-3
    print(f"largest relative difference from torch in float64: weights' {errors[0]:.1e}, of bfloat16 {max(errors):.1e}")
    assert errors[0] < 2e-6
    assert max(errors) < 2**-7


@pytest.mark.parametrize("images", [1, 5])
def test_results_do_not_depend_on_the_number_of_threads(images: int) -> None:
    x, weight, bias = case(160, 5, images=images)
    x.requires_grad_()
    weight.requires_grad_()
    found = []
    for threads in (1, 2, 4):  # four threads cannot divide five blocks of channels evenly
        torch.set_num_threads(threads)
        y = depthwise(x, weight, bias, stride=1, padding=[2, 2, 2, 2], before=RELU6, after=RELU6)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, weight))))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_only_required_gradients_are_computed() -> None:
    x, weight, bias = case(8, 3)
    options = {"stride": 1, "padding": [1, 1, 1, 1], "before": RELU6, "after": RELU6}
    assert not depthwise(x, weight, bias, **options).requires_grad  # type: ignore[arg-type]
    for trained, other in ((x, weight), (weight, x)):
        trained.requires_grad_()
        depthwise(x, weight, bias, **options).sum().backward()  # type: ignore[arg-type]
        assert trained.grad is not None
        assert other.grad is None
        trained.grad = None
        trained.requires_grad_(False)


def test_another_activation_may_overwrite_the_output() -> None:
    x, weight, bias = case(8, 3)
    weight.requires_grad_()
    options = {"stride": 1, "padding": [1, 1, 1, 1], "before": UNBOUNDED, "after": UNBOUNDED}
    F.silu(depthwise(x, weight, bias, **options), inplace=True).sum().backward()  # type: ignore[arg-type]
    plain = weight.detach().clone().requires_grad_()
    F.silu(reference(x, plain, bias, **options)).sum().backward()  # type: ignore[arg-type]
    assert weight.grad is not None
    assert plain.grad is not None
    assert relative_error(weight.grad, plain.grad) < 1e-5


def test_torch_runs_for_other_dtypes_and_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, _ = case(8, 3)
    assert kernel_applies(x, weight, [1, 1], [1, 1], EVEN)
    fast_paths.enable(False)
    assert not kernel_applies(x, weight, [1, 1], [1, 1], EVEN)
    fast_paths.enable(True)
    assert not kernel_applies(x.double(), weight.double(), [1, 1], [1, 1], EVEN)
    assert not kernel_applies(x, weight, [1, 2], [1, 1], EVEN)
    assert not kernel_applies(x, weight, [1, 1], [2, 2], EVEN)
    assert not kernel_applies(x, weight[:, :, :2], [1, 1], [1, 1], EVEN)
    assert not kernel_applies(x, weight.bfloat16(), [1, 1], [1, 1], EVEN)
    for has in (True, False):
        monkeypatch.setattr("bench.cpu.arrays.computes_bfloat16", lambda device, has=has: has)
        assert kernel_applies(x.bfloat16(), weight, [1, 1], [1, 1], EVEN) == has


def test_torch_runs_for_one_image_without_gradients() -> None:
    x, weight, _ = case(8, 3, images=1)
    assert kernel_applies(x, weight, [1, 1], [1, 1], EVEN)
    with torch.inference_mode():
        assert not kernel_applies(x, weight, [1, 1], [1, 1], EVEN)
        assert kernel_applies(x, weight, [1, 1], [1, 1], [0, 1, 0, 1])


@pytest.mark.parametrize(("name", "fused"), [("tf_efficientnet_lite0", 32), ("mobilenetv2_050", 34)])
def test_a_network_with_fused_activations_has_the_same_gradients(name: str, fused: int) -> None:
    network = timm.create_model(name, features_only=True).eval()
    spread_norms(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    ours = with_kernels(with_folded_norms(copy.deepcopy(network)))
    activations = [
        activation
        for module in ours.modules()
        if isinstance(module, KernelConvolution)
        for activation in (module.before, module.after)
    ]
    assert sum(not isinstance(activation, nn.Identity) for activation in activations) == fused
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    sum(level.square().mean() for level in network(images)).backward()
    sum(level.square().mean() for level in ours(images)).backward()
    for key, expected in network.named_parameters():
        if expected.grad is not None:
            own = ours.get_parameter(key).grad
            assert own is not None, key
            # Rounding moves single values across a clamp, and random layers amplify this
            assert float((own - expected.grad).norm() / expected.grad.norm()) < 0.03, key
