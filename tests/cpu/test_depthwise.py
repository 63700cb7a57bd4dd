"""Depthwise convolution with its activations in one: equal to torch's three operators, gradients included."""

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
from bench.cpu.depthwise import computable, depthwise
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


def torchs(
    x: Tensor, weight: Tensor, bias: Tensor, *, stride: int, padding: list[int], before: Bounds, after: Bounds
) -> Tensor:
    """The same by torch, in float64."""
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
    how = {"stride": stride, "padding": padding, "before": before, "after": after}
    x.requires_grad_()
    weight.requires_grad_()
    y = depthwise(x, weight, bias, **how)  # type: ignore[arg-type]
    precise = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    expected = torchs(*precise, bias.double(), **how)  # type: ignore[arg-type]
    arriving = torch.randn(y.shape, generator=torch.Generator().manual_seed(5))
    ours = torch.autograd.grad(y, (x, weight), arriving)
    theirs = torch.autograd.grad(expected, precise, arriving.double())
    assert y.is_contiguous(memory_format=torch.channels_last)
    pairs = zip((y.detach(), *ours), (expected.detach(), *theirs), strict=True)
    errors = [relative_error(found, right.float()) for found, right in pairs]
    print(f"largest relative difference to torch in float64 {max(errors):.1e}")
    assert max(errors) < 2e-6


@needs_bfloat16
@pytest.mark.parametrize(("before", "after"), [(UNBOUNDED, UNBOUNDED), (RELU6, RELU6), (UNBOUNDED, RELU)])
@pytest.mark.parametrize("size", [(3, 1), (5, 2)])
@pytest.mark.parametrize("channels", [1, 32, 40])
def test_of_bfloat16_only_what_is_written_is_rounded(
    channels: int, size: tuple[int, int], before: Bounds, after: Bounds
) -> None:
    kernel, stride = size
    x, weight, bias = case(channels, kernel)
    how = {"stride": stride, "padding": [1, 1, 2, 1], "before": before}
    x = x.bfloat16().requires_grad_()
    weight.requires_grad_()
    y = depthwise(x, weight, bias, after=after, **how)  # type: ignore[arg-type]
    precise = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    expected = torchs(*precise, bias.double(), after=UNBOUNDED, **how)  # type: ignore[arg-type]
    # What is rounded to a bound lies on it, and lets no gradient through
    expected = expected.bfloat16().double() if after == UNBOUNDED else F.hardtanh(expected.bfloat16().double(), *after)
    arriving = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).bfloat16()
    to_x, to_weight = torch.autograd.grad(y, (x, weight), arriving)
    exact_x, exact_weight = torch.autograd.grad(expected, precise, arriving.double())
    assert y.dtype == to_x.dtype == torch.bfloat16
    assert to_weight.dtype == torch.float32
    assert y.is_contiguous(memory_format=torch.channels_last)
    errors = [relative_error(to_weight, exact_weight.float())]
    for found, right in ((y.detach(), expected.detach()), (to_x, exact_x)):
        # A sum that float32 rounds may lie on the other side of the middle between two numbers
        differs = float((found != right.bfloat16()).double().mean())
        errors.append(float(((found - right).abs() / right.abs().clamp(min=1e-2)).max()))
        assert differs < 1e-3
    print(f"largest relative difference to torch in float64: weights' {errors[0]:.1e}, of bfloat16 {max(errors):.1e}")
    assert errors[0] < 2e-6
    assert max(errors) < 2**-7


@pytest.mark.parametrize("images", [1, 5])
def test_results_do_not_depend_on_the_number_of_threads(images: int) -> None:
    x, weight, bias = case(160, 5, images=images)
    x.requires_grad_()
    weight.requires_grad_()
    found = []
    for threads in (1, 2, 4):  # four cannot share five blocks of channels evenly
        torch.set_num_threads(threads)
        y = depthwise(x, weight, bias, stride=1, padding=[2, 2, 2, 2], before=RELU6, after=RELU6)
        found.append((y, *torch.autograd.grad(y.square().sum(), (x, weight))))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    x, weight, bias = case(8, 3)
    how = {"stride": 1, "padding": [1, 1, 1, 1], "before": RELU6, "after": RELU6}
    assert not depthwise(x, weight, bias, **how).requires_grad  # type: ignore[arg-type]
    for wanted, other in ((x, weight), (weight, x)):
        wanted.requires_grad_()
        depthwise(x, weight, bias, **how).sum().backward()  # type: ignore[arg-type]
        assert wanted.grad is not None
        assert other.grad is None
        wanted.grad = None
        wanted.requires_grad_(False)


def test_an_activation_that_is_not_joined_may_overwrite_what_comes_out() -> None:
    x, weight, bias = case(8, 3)
    weight.requires_grad_()
    how = {"stride": 1, "padding": [1, 1, 1, 1], "before": UNBOUNDED, "after": UNBOUNDED}
    F.silu(depthwise(x, weight, bias, **how), inplace=True).sum().backward()  # type: ignore[arg-type]
    plain = weight.detach().clone().requires_grad_()
    F.silu(torchs(x, plain, bias, **how)).sum().backward()  # type: ignore[arg-type]
    assert weight.grad is not None
    assert plain.grad is not None
    assert relative_error(weight.grad, plain.grad) < 1e-5


def test_other_kinds_of_numbers_and_shapes_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, _ = case(8, 3)
    assert computable(x, weight, [1, 1], [1, 1], EVEN)
    fast_paths.enable(False)
    assert not computable(x, weight, [1, 1], [1, 1], EVEN)
    fast_paths.enable(True)
    assert not computable(x.double(), weight.double(), [1, 1], [1, 1], EVEN)
    assert not computable(x, weight, [1, 2], [1, 1], EVEN)
    assert not computable(x, weight, [1, 1], [2, 2], EVEN)
    assert not computable(x, weight[:, :, :2], [1, 1], [1, 1], EVEN)
    assert not computable(x, weight.bfloat16(), [1, 1], [1, 1], EVEN)
    for has in (True, False):
        monkeypatch.setattr("bench.cpu.arrays.computes_bfloat16", lambda device, has=has: has)
        assert computable(x.bfloat16(), weight, [1, 1], [1, 1], EVEN) == has


def test_one_image_is_left_to_torch_unless_gradients_are_wanted() -> None:
    x, weight, _ = case(8, 3, images=1)
    assert computable(x, weight, [1, 1], [1, 1], EVEN)
    with torch.inference_mode():
        assert not computable(x, weight, [1, 1], [1, 1], EVEN)
        assert computable(x, weight, [1, 1], [1, 1], [0, 1, 0, 1])


@pytest.mark.parametrize(("name", "joined"), [("tf_efficientnet_lite0", 32), ("mobilenetv2_050", 34)])
def test_a_network_with_joined_activations_learns_as_it_stands(name: str, joined: int) -> None:
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
    assert sum(not isinstance(activation, nn.Identity) for activation in activations) == joined
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    sum(level.square().mean() for level in network(images)).backward()
    sum(level.square().mean() for level in ours(images)).backward()
    for key, expected in network.named_parameters():
        if expected.grad is not None:
            own = ours.get_parameter(key).grad
            assert own is not None, key
            # Rounding moves single values across a clamp, which random layers then spread
            assert float((own - expected.grad).norm() / expected.grad.norm()) < 0.03, key
