"""What is compiled before the first cell, and where."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.cpu.depthwise import use_compiled_loops
from bench.detector.priors import preset_shapes
from bench.run import compile_kernels as compiling
from bench.run.compile_kernels import compile_loops, learn, look
from bench.spec import Specification
from tests import tiny
from variants.baseline import baseline, training_of

COMPILED = replace(tiny.NUMERICS, cpu_kernels=True)


@pytest.fixture
def specification() -> Specification:
    detector = replace(tiny.specification().detector, backbone="efficientnet_lite0", weights="pretrained")
    return replace(tiny.specification(), detector=detector)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bool, torch.dtype]]]:
    """For what layers ask for loops, of which there are none: with gradients or not, and of which numbers."""
    asked = []

    def known(_: torch.device, dtype: torch.dtype) -> bool:
        asked.append((torch.is_grad_enabled(), dtype))
        return False

    for room in ("folded_layers", "depthwise", "winograd"):
        monkeypatch.setattr(f"bench.detector.{room}.in_use", known)
    before, interrupt = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    yield asked
    torch.set_num_threads(before)
    use_compiled_loops(False)
    signal.signal(signal.SIGINT, interrupt)


def test_one_half_is_what_learns(specification: Specification, asked: list[tuple[bool, torch.dtype]]) -> None:
    learn(specification, COMPILED)
    assert [learns for learns, _ in asked].count(True) == 16  # its depthwise convolutions; blocks do not ask


def test_the_other_half_is_what_does_not(specification: Specification, asked: list[tuple[bool, torch.dtype]]) -> None:
    """Images of either kind: whole ones and views."""
    look(specification, COMPILED)
    assert {learns for learns, _ in asked} == {False}


def test_of_vgg16_they_are_its_convolutions(asked: list[tuple[bool, torch.dtype]]) -> None:
    specification = baseline(
        classes=3,
        backbone="vgg16",
        weights="none",
        weights_fingerprint="",
        priors=preset_shapes("coco"),
        training=training_of("smoke", 100, scenes=False),
    )
    learn(specification, COMPILED)
    assert [learns for learns, _ in asked].count(True) == 12  # but for the first one, of three channels
    asked.clear()
    look(specification, COMPILED)
    assert [learns for learns, _ in asked].count(True) == 0
    assert len(asked) >= 2 * 12


class Beside:
    """Processes that are only told of."""

    def __init__(self, exitcode: int = 0) -> None:
        self.told: list[str] = []
        self.exitcode = exitcode

    def Process(self, *, target: Callable[..., None], args: tuple[object, ...], daemon: bool) -> Beside:
        assert daemon
        self.told.append(target.__name__)
        return self

    def start(self) -> None:
        self.told.append("start")

    def join(self) -> None:
        self.told.append("join")


def test_the_colours_of_a_view_are_of_the_other_half(
    specification: Specification, asked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the first cell would compile them within its first step."""
    shapes = []

    def known(pixels: NDArray[np.uint8], *_: object) -> NDArray[np.float32]:
        shapes.append(pixels.shape)
        return pixels.astype(np.float32)

    monkeypatch.setattr(compiling, "distorted", known)
    look(specification, COMPILED)
    assert shapes == [(1, 1, 3)]


def test_a_process_that_ends_early_is_told_of(specification: Specification, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "fresh_processes", lambda *, cpu_kernels: Beside(exitcode=-9))
    with pytest.raises(RuntimeError, match="loops could not be compiled"):
        compile_loops(specification, COMPILED)


def test_both_run_beside_each_other_where_cells_need_them(
    specification: Specification, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = Beside()
    monkeypatch.setattr(compiling, "fresh_processes", lambda *, cpu_kernels: beside)
    assert compile_loops(specification, tiny.NUMERICS) == 0
    assert beside.told == []
    compile_loops(specification, COMPILED)
    assert beside.told[-6:] == ["learn", "look", "start", "start", "join", "join"]
