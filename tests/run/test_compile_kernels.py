"""Which kernels are compiled before the first cell."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bench.detector.prior_presets import preset_shapes
from bench.device import fast_paths
from bench.run import compile_kernels as room
from bench.run.compile_kernels import compile_inference, compile_kernels, compile_training
from bench.spec import Specification
from tests import tiny
from variants.baseline import baseline, training_of

KERNELS = replace(tiny.NUMERICS, cpu_kernels=True)


@pytest.fixture
def specification() -> Specification:
    detector = replace(tiny.specification().detector, backbone="efficientnet_lite0", weights="pretrained")
    return replace(tiny.specification(), detector=detector)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bool, torch.dtype]]]:
    """For what layers ask for kernels: with gradients or not, and the dtype. They get none."""
    asked = []

    def known(_: torch.device, dtype: torch.dtype) -> bool:
        asked.append((torch.is_grad_enabled(), dtype))
        return False

    for name in ("layers", "depthwise", "winograd"):
        monkeypatch.setattr(f"bench.cpu.{name}.kernels_apply", known)
    before, interrupt = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    yield asked
    torch.set_num_threads(before)
    fast_paths.enable(False)
    signal.signal(signal.SIGINT, interrupt)


def test_training_asks_for_the_kernels_with_gradients(
    specification: Specification, asked: list[tuple[bool, torch.dtype]]
) -> None:
    compile_training(specification, KERNELS)
    assert [learns for learns, _ in asked].count(True) == 16  # its depthwise convolutions; blocks do not ask


def test_inference_asks_for_the_kernels_without_gradients(
    specification: Specification, asked: list[tuple[bool, torch.dtype]]
) -> None:
    compile_inference(specification, KERNELS)
    assert {learns for learns, _ in asked} == {False}


def test_vgg16_asks_for_winograd_convolutions(asked: list[tuple[bool, torch.dtype]]) -> None:
    specification = baseline(
        classes=3,
        backbone="vgg16",
        weights="none",
        weights_fingerprint="",
        priors=preset_shapes("coco"),
        training=training_of("smoke", 100, scenes=False),
    )
    compile_training(specification, KERNELS)
    assert [learns for learns, _ in asked].count(True) == 12  # but for the first one, of three channels
    asked.clear()
    compile_inference(specification, KERNELS)
    assert [learns for learns, _ in asked].count(True) == 0
    assert len(asked) >= 2 * 12


class Processes:
    """Processes that are recorded, not started."""

    def __init__(self, exitcode: int = 0) -> None:
        self.record: list[str] = []
        self.exitcode = exitcode

    def Process(self, *, target: Callable[..., None], args: tuple[object, ...], daemon: bool) -> Processes:
        assert daemon
        self.record.append(target.__name__)
        return self

    def start(self) -> None:
        self.record.append("start")

    def join(self) -> None:
        self.record.append("join")


def test_inference_compiles_the_photometric_kernel_too(
    specification: Specification, asked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the first cell would compile it within its first step."""
    shapes = []

    def known(pixels: NDArray[np.uint8], *_: object) -> NDArray[np.float32]:
        shapes.append(pixels.shape)
        return pixels.astype(np.float32)

    monkeypatch.setattr(room, "photometric", known)
    compile_inference(specification, KERNELS)
    assert shapes == [(1, 1, 3)]


def test_a_process_that_fails_is_reported(specification: Specification, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "start_fork_server", lambda *, cpu_kernels: Processes(exitcode=-9))
    with pytest.raises(RuntimeError, match="CPU kernels could not be compiled"):
        compile_kernels(specification, KERNELS)


def test_both_run_at_a_time_if_cells_use_kernels(specification: Specification, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes()
    monkeypatch.setattr(room, "start_fork_server", lambda *, cpu_kernels: processes)
    assert compile_kernels(specification, tiny.NUMERICS) == 0
    assert processes.record == []
    compile_kernels(specification, KERNELS)
    assert processes.record[-6:] == ["compile_training", "compile_inference", "start", "start", "join", "join"]
