"""Winograd convolutions equal torch's, with gradients, and run only if the kernel applies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cpu import winograd
from bench.cpu.winograd import WinogradConvolution, convolve, lay_out
from bench.device import fast_paths
from tests.detector.oracles import needs_bfloat16, relative_error

pytestmark = pytest.mark.usefixtures("kernels_on")
# Transforms of 4 inputs and 3 taps to 4 points, and of 4 sums to 2 outputs, as in the paper
INPUT = torch.tensor([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], dtype=torch.float64)
TAPS = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
OUTPUT = torch.tensor([[1, 1, 1, 0], [0, 1, -1, -1]], dtype=torch.float64)
SHAPES = [(3, 13, 10), (2, 8, 12), (1, 19, 19), (5, 1, 1), (1, 2, 3), (1, 1, 40)]


def layer(channels_in: int, channels_out: int) -> nn.Conv2d:
    torch.manual_seed(channels_in + channels_out)
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def picture(channels: int, shape: tuple[int, int, int]) -> Tensor:
    images, *size = shape
    x = torch.randn(images, channels, *size, generator=torch.Generator().manual_seed(channels))
    return x.contiguous(memory_format=torch.channels_last)


def with_rounding(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The algorithm of the paper in float64, with factors rounded to bfloat16."""
    height, width = x.shape[2:]
    padded = F.pad(x.double(), (1, 1 + width % 2, 1, 1 + height % 2))
    windows = padded.unfold(2, 4, 2).unfold(3, 4, 2)
    windows = torch.einsum("ij,bcyxjk,lk->bcyxil", INPUT, windows, INPUT).bfloat16().double()
    filters = torch.einsum("ij,ocjk,lk->ocil", TAPS, weight.double(), TAPS).bfloat16().double()
    sums = torch.einsum("bcyxil,ocil->boyxil", windows, filters)
    tiles = torch.einsum("ij,boyxjk,lk->boyixl", OUTPUT, sums, OUTPUT)
    return tiles.flatten(4, 5).flatten(2, 3)[..., :height, :width] + bias.double().view(1, -1, 1, 1)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [(16, 16), (32, 48), (80, 16), (48, 64)])
def test_it_computes_what_torch_computes(
    channels: tuple[int, int], shape: tuple[int, int, int], relu: bool, winograd_inputs: list[int]
) -> None:
    plain, x = layer(*channels), picture(channels[0], shape)
    with torch.no_grad():
        y = WinogradConvolution(plain, relu=relu)(x)
        expected = plain.double()(x.double())
    assert winograd_inputs == [channels[0]]
    assert y.is_contiguous(memory_format=torch.channels_last)
    error = relative_error(y.double(), expected.relu() if relu else expected)
    print(f"largest relative difference to torch in float64 {error:.1e}")
    assert error < 2e-6


@needs_bfloat16
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [(16, 16), (32, 48), (80, 16)])
def test_in_bfloat16_factors_and_outputs_are_rounded(channels: tuple[int, int], shape: tuple[int, int, int]) -> None:
    plain, x = layer(*channels), picture(channels[0], shape).bfloat16()
    weight, bias = plain.weight.detach(), plain.bias.detach() if plain.bias is not None else torch.zeros(0)
    y = convolve(x, lay_out(weight, x.dtype), bias, relu=False)
    assert y.dtype == torch.bfloat16
    expected = with_rounding(x, weight, bias)
    error = relative_error(y.double(), expected)
    print(f"largest difference, of the largest value: {error:.1e}")
    assert error < 2**-8  # half of the last of eight bits, plus float32 rounding


@needs_bfloat16
@pytest.mark.usefixtures("without_amx")
def test_rounding_after_the_transforms_costs_less_than_one_bit(winograd_inputs: list[int]) -> None:
    """For smooth, non-negative maps like those of networks. For noise the error is 1.8 times that of torch."""
    plain = layer(64, 64)
    x = F.avg_pool2d(picture(64, (2, 40, 40)), 3, stride=1).relu().bfloat16()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found, torch_result = WinogradConvolution(plain)(x), plain(x)
    assert winograd_inputs == [64]
    with torch.no_grad():
        expected = plain.double()(x.double())
    error, torch_error = (float((each.double() - expected).norm() / expected.norm()) for each in (found, torch_result))
    print(f"relative error {error:.1e}, of torch's in bfloat16 {torch_error:.1e}")
    assert error < 1.6 * torch_error


def gradients(network: nn.Conv2d, x: Tensor, gradient: Tensor, *, relu: bool = False) -> list[Tensor]:
    """Of input, weight and bias."""
    x = x.detach().requires_grad_()
    network.zero_grad()
    y = network(x)
    (y.relu() if relu else y).backward(gradient.to(y.dtype))
    found = [x.grad, network.weight.grad, network.bias.grad if network.bias is not None else None]
    return [each.double() for each in found if each is not None]


def output_gradient(channels: int, shape: tuple[int, int, int]) -> Tensor:
    images, *size = shape
    return torch.randn(images, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[winograd.ROUND, 1 << 15], ids=["one round", "rounds"])
def rounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tiles in one round, and in several rounds."""
    monkeypatch.setattr(winograd, "ROUND", request.param)


@pytest.mark.usefixtures("rounds")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [(32, 48), (48, 80)])
def test_gradients_equal_torch(
    channels: tuple[int, int], shape: tuple[int, int, int], relu: bool, winograd_inputs: list[int]
) -> None:
    plain, x, gradient = layer(*channels), picture(channels[0], shape), output_gradient(channels[1], shape)
    found = gradients(WinogradConvolution(plain, relu=relu), x, gradient)
    assert winograd_inputs == list(channels)  # the gradient of the input is a convolution too
    expected = gradients(plain.double(), x.double(), gradient, relu=relu)
    errors = [relative_error(*pair) for pair in zip(found, expected, strict=True)]
    print(f"largest relative difference to torch in float64 {max(errors):.1e}")
    assert len(errors) == 3
    assert max(errors) < 5e-6


@needs_bfloat16
@pytest.mark.usefixtures("rounds", "without_amx")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(2, 20, 20), (3, 13, 10), (5, 1, 1)])
@pytest.mark.parametrize("channels", [(64, 64), (48, 80), (80, 48)])
def test_gradients_in_bfloat16_have_similar_errors_to_torch(
    channels: tuple[int, int], shape: tuple[int, int, int], relu: bool, winograd_inputs: list[int]
) -> None:
    plain, x = layer(*channels), picture(channels[0], shape).bfloat16()
    gradient = output_gradient(channels[1], shape).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = plain(x)
        if relu:  # drop outputs near zero, where rounding decides whether a gradient passes
            gradient = gradient * (y.abs() > 0.05)
        torch_result = gradients(plain, x, gradient, relu=relu)
        ours = gradients(WinogradConvolution(plain, relu=relu), x, gradient)
    assert winograd_inputs == list(channels)
    expected = gradients(copy.deepcopy(plain).double(), x.double(), gradient, relu=relu)
    for found, theirs, right in zip(ours, torch_result, expected, strict=True):
        error, torch_error = (float((each - right).norm() / right.norm()) for each in (found, theirs))
        print(f"relative error {error:.1e}, of torch's {torch_error:.1e}")
        # Weight gradients are rounded to bfloat16 twice before the sum instead of once after it
        assert error < 3 * max(torch_error, 2**-9)


def test_only_required_gradients_are_computed(winograd_inputs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, x = WinogradConvolution(layer(16, 32)), picture(16, (2, 6, 6))
    ours(x).sum().backward()
    assert winograd_inputs == [16]
    assert ours.weight.grad is not None

    def refused(*_: object) -> None:
        raise AssertionError("no gradients of weights are needed")

    monkeypatch.setattr(winograd, "layer_gradients", refused)
    ours.requires_grad_(False)
    x.requires_grad_()
    ours(x).sum().backward()
    assert winograd_inputs == [16, 16, 32]
    assert x.grad is not None


def test_second_derivatives_are_an_error() -> None:
    ours, x = WinogradConvolution(layer(16, 16)), picture(16, (1, 4, 4)).requires_grad_()
    (first,) = torch.autograd.grad(ours(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_results_do_not_depend_on_threads_or_other_images() -> None:
    ours, x = WinogradConvolution(layer(32, 32)), picture(32, (5, 19, 19))
    with torch.no_grad():
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ours(x))
        found.append(torch.cat([ours(image[None]) for image in x]))
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bfloat16)])
def test_gradients_do_not_depend_on_threads(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "ROUND", 1 << 15)
    x, gradient = picture(48, (3, 13, 10)).to(dtype), output_gradient(80, (3, 13, 10)).to(dtype)
    found = []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        found.append(winograd.layer_gradients(x, gradient))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_filters_are_laid_out_again_only_if_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, x, calls = WinogradConvolution(layer(16, 16)), picture(16, (2, 6, 6)), []

    def recorded(weight: Tensor, dtype: torch.dtype, *, transposed: bool = False) -> Tensor:
        calls.append(transposed)
        return lay_out(weight, dtype, transposed=transposed)

    monkeypatch.setattr(winograd, "lay_out", recorded)
    with torch.no_grad():
        first, again = ours(x), ours(x)
        assert calls == [False]
        ours.weight.mul_(2)
        changed = ours(x)
        expected = F.conv2d(x, ours.weight, ours.bias, padding=1)
    assert calls == [False, False]
    assert torch.equal(first, again)
    assert relative_error(changed, expected) < 1e-5
    optimiser = torch.optim.SGD(ours.parameters(), lr=0.1, fused=True)  # does not increase versions
    for kernels in (True, False):
        fast_paths.enable(kernels)
        ours(x).sum().backward()
        optimiser.step()
        fast_paths.enable(True)
        with torch.no_grad():
            expected = F.conv2d(x, ours.weight, ours.bias, padding=1)
            assert relative_error(ours(x), expected) < 1e-5


def test_without_the_kernel_results_are_torchs(winograd_inputs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    few, odd, usual = layer(3, 16), layer(16, 21), layer(16, 16)
    x = picture(16, (2, 9, 9))
    with torch.no_grad():
        for plain, given in ((few, picture(3, (2, 9, 9))), (odd, x), (usual, x[0]), (usual, x[:0])):
            assert torch.equal(WinogradConvolution(plain, relu=True)(given), plain(given).relu())
        double = copy.deepcopy(usual).double()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(WinogradConvolution(double)(x.double()), double(x.double()))
            monkeypatch.setattr(winograd, "has_amx", lambda: True)
            assert torch.equal(WinogradConvolution(usual)(x), usual(x))
        fast_paths.enable(False)
        assert torch.equal(WinogradConvolution(usual)(x), usual(x))
    assert winograd_inputs == []


def test_any_memory_layout_works() -> None:
    ours, x = WinogradConvolution(layer(16, 32)), picture(16, (2, 9, 7))
    with torch.no_grad():
        assert torch.equal(ours(x.contiguous()), ours(x))
        expected = ours(x)
        ours.to(memory_format=torch.channels_last)
        assert torch.equal(ours(x), expected)
        ours.bias = nn.Parameter(torch.stack([cast(Tensor, ours.bias)] * 2, dim=1)[:, 0])
        assert not ours.bias.is_contiguous()
        assert torch.equal(ours(x), expected)


@needs_bfloat16
@pytest.mark.usefixtures("without_amx")
def test_autocast_sets_the_dtype(winograd_inputs: list[int]) -> None:
    ours, x = WinogradConvolution(layer(16, 32)), picture(16, (2, 9, 7))
    for trained in (False, True):
        with torch.set_grad_enabled(trained):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                half = ours(x)
                assert torch.equal(half, ours(x.bfloat16()))
            assert half.dtype == torch.bfloat16
            assert ours(x).dtype == torch.float32
    assert winograd_inputs == [16] * 6
    with pytest.raises(RuntimeError, match="type"):  # torch's own error: input and bias differ
        ours(x.bfloat16())


def test_filters_of_frozen_layers_are_laid_out_once_while_others_train(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, trained, calls = WinogradConvolution(layer(16, 16)), WinogradConvolution(layer(16, 16)), []

    def recorded(weight: Tensor, dtype: torch.dtype, *, transposed: bool = False) -> Tensor:
        calls.append(weight is frozen.weight)
        return lay_out(weight, dtype, transposed=transposed)

    monkeypatch.setattr(winograd, "lay_out", recorded)
    frozen.requires_grad_(False)
    for _ in range(3):
        trained(frozen(picture(16, (2, 6, 6)))).sum().backward()
    assert calls == [True, False, False, False]


@pytest.mark.parametrize(
    "copy_of", [copy.deepcopy, lambda ours: pickle.loads(pickle.dumps(ours))], ids=["copy", "pickle"]
)
def test_a_copy_has_its_own_filters(copy_of: Callable[[WinogradConvolution], WinogradConvolution]) -> None:
    ours, x = WinogradConvolution(layer(16, 16), relu=True), picture(16, (2, 6, 6))
    with torch.no_grad():
        before = ours(x)
        other = copy_of(ours)
        assert torch.equal(other(x), before)
        other.weight.zero_()
        assert not torch.equal(other(x), before)
        assert torch.equal(ours(x), before)


def test_a_wrong_number_of_channels_is_torch_error() -> None:
    with pytest.raises(RuntimeError, match="to have 16 channels, but got 32"):
        WinogradConvolution(layer(16, 16))(picture(32, (1, 4, 4)))


def test_a_map_without_pixels_is_torch_error() -> None:
    with pytest.raises(RuntimeError, match="can't be greater than actual input size"):
        WinogradConvolution(layer(16, 16))(picture(16, (1, 4, 4))[..., :0])


def test_parameters_are_shared_and_no_random_numbers_are_drawn() -> None:
    plain = layer(16, 32)
    state = torch.get_rng_state()
    ours = WinogradConvolution(plain)
    assert torch.equal(state, torch.get_rng_state())
    assert ours.weight is plain.weight
    assert ours.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(
    "other", [{"padding": 2, "dilation": 2}, {"padding": 1, "bias": False}, {"padding": 1, "padding_mode": "reflect"}]
)
def test_other_convolutions_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="3 x 3"):
        WinogradConvolution(nn.Conv2d(16, 16, 3, **other))
