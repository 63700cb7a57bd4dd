"""How precision and kernels are decided."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.run import numerics
from bench.run.numerics import WORTH_COMPILING, decide, worth_compiling
from bench.spec import Numerics, Specification
from tests import tiny


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def training(images: int, weights: str = "none") -> Specification:
    spec = tiny.specification(weights)
    return replace(spec, training=replace(spec.training, steps=images, batch=1))


def test_a_cpu_without_bfloat16_uses_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "computes_bfloat16", lambda device: False)
    for images in (1, WORTH_COMPILING):
        decided = decide(training(images), "cpu", jobs=1)
        assert (decided.precision, decided.cpu_kernels) == ("float32", images == WORTH_COMPILING)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("gain", "precision"), [(0.5, "float32"), (1.1, "float32"), (2.0, "bfloat16")])
def test_with_kernels_a_dense_convolution_decides(
    gain: float, precision: str, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numerics, "computes_bfloat16", lambda device: True)
    monkeypatch.setattr(numerics, "_dense_gain", lambda: gain)
    monkeypatch.setattr(numerics, "step_seconds", lambda *_: pytest.fail("kernels would have to be compiled"))
    decided = decide(training(WORTH_COMPILING, str(tiny_weights)), "cpu", jobs=1)
    assert (decided.precision, decided.cpu_kernels) == (precision, True)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_with_torchs_depthwise_convolutions_a_training_step_decides(
    pretrained: bool, faster: str, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too short a training for kernels, or norms that learn and are therefore not folded."""

    def seconds(spec: Specification, each: Numerics) -> tuple[float, int]:
        return (1.0 if each.precision == faster else 1.1), 0

    monkeypatch.setattr(numerics, "computes_bfloat16", lambda device: True)
    monkeypatch.setattr(numerics, "_dense_gain", lambda: pytest.fail("depthwise convolutions may lose more"))
    monkeypatch.setattr(numerics, "step_seconds", seconds)
    spec = training(WORTH_COMPILING - 1, str(tiny_weights)) if pretrained else training(WORTH_COMPILING)
    assert decide(spec, "cpu", jobs=1).precision == faster


def test_long_trainings_on_a_cpu_use_kernels() -> None:
    spec = training(WORTH_COMPILING).training
    assert worth_compiling(spec, "cpu")
    assert not worth_compiling(spec, "cuda")
    assert not worth_compiling(replace(spec, steps=spec.steps - 1), "cpu")
    assert numerics._dense_gain() > 0


@pytest.mark.parametrize("wanted", [True, False])
def test_the_choice_of_the_user_overrides_the_length_of_training(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "computes_bfloat16", lambda device: False)
    for images in (1, WORTH_COMPILING):
        assert decide(training(images), "cpu", jobs=1, cpu_kernels=wanted).cpu_kernels == wanted
