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
from bench.cpu.winograd import WinogradConvolution, lay_out
from bench.device import fast_paths
from tests.detector.oracles import relative_error

pytestmark = pytest.mark.usefixtures("kernels_on")
SHAPES = [(3, 13, 10), (2, 8, 12), (1, 19, 19), (5, 1, 1), (1, 2, 3), (1, 1, 40)]


def layer(channels_in: int, channels_out: int) -> nn.Conv2d:
    torch.manual_seed(channels_in + channels_out)
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def picture(channels: int, shape: tuple[int, int, int]) -> Tensor:
    images, *size = shape
    x = torch.randn(images, channels, *size, generator=torch.Generator().manual_seed(channels))
    return x.contiguous(memory_format=torch.channels_last)


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
    print(f"largest relative difference from torch in float64 {error:.1e}")
    assert error < 2e-6


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
    print(f"largest relative difference from torch in float64 {max(errors):.1e}")
    assert len(errors) == 3
    assert max(errors) < 5e-6


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


def test_gradients_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "ROUND", 1 << 15)
    x, gradient = picture(48, (3, 13, 10)), output_gradient(80, (3, 13, 10))
    found = []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        found.append(winograd.layer_gradients(x, gradient))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_filters_are_laid_out_again_only_if_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, x, calls = WinogradConvolution(layer(16, 16)), picture(16, (2, 6, 6)), []

    def recorded(weight: Tensor, *, transposed: bool = False) -> Tensor:
        calls.append(transposed)
        return lay_out(weight, transposed=transposed)

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


def test_without_the_kernel_results_are_torchs(winograd_inputs: list[int]) -> None:
    """On other shapes and dtypes, and in bfloat16, where it would be less exact than torch."""
    few, odd, usual = layer(3, 16), layer(16, 21), layer(16, 16)
    x = picture(16, (2, 9, 9))
    with torch.no_grad():
        for plain, given in ((few, picture(3, (2, 9, 9))), (odd, x), (usual, x[0]), (usual, x[:0])):
            assert torch.equal(WinogradConvolution(plain, relu=True)(given), plain(given).relu())
        double = copy.deepcopy(usual).double()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(WinogradConvolution(double)(x.double()), double(x.double()))
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


def test_filters_of_frozen_layers_are_laid_out_once_while_others_train(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, trained, calls = WinogradConvolution(layer(16, 16)), WinogradConvolution(layer(16, 16)), []

    def recorded(weight: Tensor, *, transposed: bool = False) -> Tensor:
        calls.append(weight is frozen.weight)
        return lay_out(weight, transposed=transposed)

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
