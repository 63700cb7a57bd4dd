"""Without each private interface of another library, its fallback gives the same results."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.cpu import layout_cache
from bench.cpu.accelerate import with_kernels
from bench.cpu.arrays import kernels_apply
from bench.cpu.depthwise import depthwise
from bench.cpu.inverted_residual import inverted_residual, lay_out
from bench.cpu.layers import FusedBlock
from bench.cpu.photometric import photometric
from bench.cpu.postprocess import margins, suppress
from bench.cpu.winograd import WinogradConvolution
from bench.data.augment import Photometric
from bench.detector.backbones import Backbone
from bench.device import private_interfaces
from bench.device.hardware import computes_bfloat16
from bench.device.private_interfaces import (
    below_autograd,
    inverted_residual_blocks,
    multiplies_bfloat16,
    openmp_library,
    set_malloc_options,
    version_of,
)
from bench.device.process_settings import disable_malloc_trim
from tests.conftest import REPOSITORY

PRIVATE_NAMES = re.compile(
    r"torch\.cpu\._is|_efficientnet_blocks|GOMP_parallel|mallopt|\._version\b|llvm\.x86|torch\._C\b|AutoDispatchBelow"
    r"|_args_from_interpreter_flags"
)


def test_only_one_module_names_private_interfaces() -> None:
    sources = [
        *(REPOSITORY / "bench").rglob("*.py"),
        *(REPOSITORY / "variants").glob("*.py"),
        REPOSITORY / "run_all.py",
    ]
    naming = {path for path in sources if PRIVATE_NAMES.search(path.read_text(encoding="utf-8"))}
    assert naming == {Path(private_interfaces.__file__)}


def results_of_kernels() -> list[Tensor]:
    """Outputs and gradients of every kernel that runs in parallel, and the photometric kernel."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, weight, bias = random(3, 16, 9, 7).requires_grad_(), random(16, 1, 3, 3).requires_grad_(), random(16)
    filtered = depthwise(x, weight, bias, stride=1, padding=[1] * 4, before=(0.0, 6.0), after=(0.0, 6.0))
    results = [filtered.detach(), *torch.autograd.grad(filtered.square().sum(), (x, weight))]
    torch.manual_seed(0)
    convolution = WinogradConvolution(nn.Conv2d(16, 32, 3, padding=1), relu=True)
    y = convolution(x)
    results += [y.detach(), *torch.autograd.grad(y.square().sum(), (x, *convolution.parameters()))]
    block = lay_out((random(32, 16, 1, 1), random(32)), (random(32, 1, 3, 3), random(32)),
                    (random(16, 32, 1, 1), random(16)), torch.float32)  # fmt: skip
    layer = inverted_residual(
        block, (16, 9, 7), stride=1, padding=[1] * 4, before=(0.0, 6.0), after=(0.0, 6.0), residual=True
    )
    results.append(layer.run(x.detach()))
    results.append(margins(random(2, 50, 5)))
    boxes = torch.rand(60, 4, generator=generator).cumsum(1)
    results.append(suppress(boxes, torch.arange(60) // 20, 0.45))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    draws = Photometric(brightness=9.0, contrast=1.2, saturation=1.3, hue=0.1, contrast_first=True)
    results.append(torch.from_numpy(photometric(pixels, draws, (0, 0, 8, 8), np.zeros(3, np.float32))))
    return results


def fail(*_: object, **__: object) -> Any:
    raise OSError("no such library")


@pytest.fixture
def uncached_openmp() -> Iterator[None]:
    """Look for the OpenMP library again, in the test and after it."""
    openmp_library.cache_clear()
    yield
    openmp_library.cache_clear()


@pytest.mark.usefixtures("kernels_on", "uncached_openmp")
@pytest.mark.parametrize("load", [fail, lambda *_, **__: SimpleNamespace()], ids=["no library", "no function"])
def test_without_openmp_kernels_run_in_a_thread_pool(load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = results_of_kernels()
    openmp_library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", load)
    assert openmp_library() is None
    for result, other in zip(results_of_kernels(), expected, strict=True):
        assert torch.equal(result, other)


@pytest.mark.usefixtures("kernels_on")
def test_without_the_dispatch_guard_depthwise_gradients_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = results_of_kernels()
    monkeypatch.delattr(torch._C, "_AutoDispatchBelowAutograd")
    assert below_autograd() is None
    for result, other in zip(results_of_kernels(), expected, strict=True):
        assert torch.equal(result, other)


@pytest.mark.usefixtures("kernels_on")
def test_without_timms_block_classes_no_block_is_fused_and_maps_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Backbone("efficientnet_lite0", "pretrained").eval()
    fused = with_kernels(plain.features)
    assert any(isinstance(module, FusedBlock) for module in fused.modules())
    name = "timm.models._efficientnet_blocks"
    for replacement in (None, ModuleType(name)):  # the module is gone; its classes are gone
        monkeypatch.setitem(sys.modules, name, replacement)
        assert inverted_residual_blocks() == ()
        unfused = with_kernels(plain.features)
        assert not any(isinstance(module, FusedBlock) for module in unfused.modules())
        images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            for result, expected in zip(unfused(images), fused(images), strict=True):
                torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("kernels_on")
def test_without_version_counters_nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    uncounted: Any = SimpleNamespace(is_inference=lambda: False)
    assert version_of(uncounted) is None
    assert version_of(torch.ones(1)) == 0
    monkeypatch.setattr(layout_cache, "version_of", lambda _: None)
    cache: layout_cache.LayoutCache[object] = layout_cache.LayoutCache()
    tensor = torch.ones(1)
    assert cache.get(object, [tensor], None) is not cache.get(object, [tensor], None)
    torch.manual_seed(0)
    convolution, x = WinogradConvolution(nn.Conv2d(16, 16, 3, padding=1)), torch.randn(2, 16, 6, 6)
    with torch.no_grad():
        before = convolution(x)
        convolution.weight.mul_(2)
        convolution.bias.mul_(2)  # type: ignore[union-attr]
        torch.testing.assert_close(convolution(x), 2 * before)


def test_inference_tensors_have_no_version() -> None:
    with torch.inference_mode():
        assert version_of(torch.ones(1)) is None


@pytest.mark.usefixtures("kernels_on")
@pytest.mark.parametrize("supported", [None, lambda: False], ids=["no function", "not supported"])
def test_without_avx512_bfloat16_kernels_do_not_multiply_bfloat16(
    supported: Callable[[], bool] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the LLVM instruction is never compiled."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", supported, raising=False)
    assert not multiplies_bfloat16()
    assert not computes_bfloat16("cpu")
    assert not kernels_apply(torch.device("cpu"), torch.bfloat16)
    assert kernels_apply(torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("load", [fail, lambda *_: SimpleNamespace()], ids=["no library", "no function"])
def test_without_malloc_options_nothing_is_set(load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", load)
    assert not set_malloc_options({private_interfaces.MALLOC_ARENA_MAX: 1})
    assert not disable_malloc_trim()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_platforms_have_no_malloc_options(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert not disable_malloc_trim()


def test_malloc_options_are_all_set_or_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    def mallopt(name: int, value: int) -> int:
        calls.append((name, value))
        return int(name != private_interfaces.MALLOC_TOP_PAD)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    assert set_malloc_options({private_interfaces.MALLOC_ARENA_MAX: 1})
    assert calls == [(private_interfaces.MALLOC_ARENA_MAX, 1)]
    assert not set_malloc_options({private_interfaces.MALLOC_TOP_PAD: 1})
