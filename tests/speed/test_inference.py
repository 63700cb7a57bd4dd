"""Latency and throughput of networks of known speed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.errors import UserError
from bench.speed.inference import SpeedSettings, batches_of, measure_inference

CPU = torch.device("cpu")
IMAGES = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)


class Clock:
    """A clock that moves only when a network works."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("bench.speed.inference.time", "bench.device.clock.time"):
        monkeypatch.setattr(module, SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def network_of(clock: Clock, seconds: Callable[[int], float]) -> Callable[[Tensor], object]:
    """A network that takes `seconds(batch)`."""

    def predict(images: Tensor) -> None:
        clock.now += seconds(len(images))

    return predict


def test_a_network_of_known_speed_is_reported() -> None:
    settings = SpeedSettings(budget_seconds=1.0, batches=(1, 2, 4), most=10)
    speed = measure_inference(lambda images: time.sleep(0.01), IMAGES, settings)
    assert speed["best_batch"] == 4
    assert 40 < speed["images_per_second"] <= 400
    assert 10 <= speed["latency_p50_ms"] <= speed["latency_p90_ms"] <= speed["latency_p99_ms"]


def test_throughput_and_latency_of_each_batch_size(clock: Clock) -> None:
    predict = network_of(clock, lambda batch: 0.0002 + 0.0001 * batch)
    settings = SpeedSettings(most=20)
    speed = measure_inference(predict, IMAGES, settings, precision="bfloat16")
    assert [row["batch"] for row in speed["sweep"]] == list(settings.batches)
    differences = []
    for row in speed["sweep"]:
        expected = row["batch"] / (0.0002 + 0.0001 * row["batch"])
        differences.append(abs(row["images_per_second"] / expected - 1))
        assert row["samples"] == 20
    print(f"largest relative difference of a throughput {max(differences):.1e}")
    assert max(differences) < 1e-9
    assert speed["best_batch"] == 128
    assert speed["images_per_second"] == speed["sweep"][-1]["images_per_second"]
    assert (speed["latency_p50_ms"], speed["latency_p99_ms"]) == pytest.approx((0.3, 0.3))
    assert speed["latency_samples"] == 20
    assert (speed["device"], speed["precision"]) == ("cpu", "bfloat16")
    assert speed["threads"] == torch.get_num_threads()
    json.dumps(speed, allow_nan=False)


def test_the_sweep_ends_when_throughput_falls(clock: Clock) -> None:
    predict = network_of(clock, lambda batch: 0.001 * batch * (2 if batch > 2 else 1))
    speed = measure_inference(predict, IMAGES)
    assert [row["batch"] for row in speed["sweep"]] == [1, 2, 8, 32]
    assert speed["images_per_second"] == pytest.approx(1000)


def test_one_slow_batch_size_does_not_end_the_sweep(clock: Clock) -> None:
    predict = network_of(clock, lambda batch: 0.001 * batch * (2 if batch == 2 else 1))
    speed = measure_inference(predict, IMAGES)
    assert [row["batch"] for row in speed["sweep"]] == [1, 2, 8, 32]


@pytest.mark.parametrize("milliseconds", [1, 40, 100, 150])
def test_a_slow_network_stays_within_the_budget(clock: Clock, milliseconds: int) -> None:
    predict = network_of(clock, lambda batch: 0.001 * milliseconds * batch)
    settings = SpeedSettings()
    speed = measure_inference(predict, IMAGES, settings)
    assert clock.now <= settings.budget_seconds + 0.001 * milliseconds * speed["best_batch"]
    assert speed["latency_samples"] >= settings.fewest
    assert len(speed["sweep"]) >= (2 if milliseconds <= 100 else 1)


def test_the_rest_of_the_budget_goes_to_the_best_size(clock: Clock) -> None:
    predict = network_of(clock, lambda batch: 0.006 + 0.006 * batch)
    settings = SpeedSettings()
    speed = measure_inference(predict, IMAGES, settings)
    best = speed["sweep"][-1]
    assert best["batch"] == speed["best_batch"] == 8
    assert best["samples"] > 2 * settings.fewest
    assert 0.95 * settings.budget_seconds <= clock.now <= 1.05 * settings.budget_seconds
    assert best["images_per_second"] == speed["images_per_second"] == pytest.approx(8 / 0.054)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: ...")]
)
def test_the_sweep_ends_when_memory_runs_out(clock: Clock, error: Exception) -> None:
    def predict(images: Tensor) -> None:
        clock.now += 0.001
        if len(images) > 8:
            raise error

    speed = measure_inference(predict, IMAGES)
    assert [row["batch"] for row in speed["sweep"]] == [1, 2, 8]
    assert speed["best_batch"] == 8


def test_without_memory_for_one_image_the_error_says_what_to_do() -> None:
    def predict(images: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match=r"no memory for a single image on cpu.*--device"):
        measure_inference(predict, IMAGES)


def test_other_errors_are_raised() -> None:
    def predict(images: Tensor) -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        measure_inference(predict, IMAGES)


def test_gradients_are_off_while_measuring(clock: Clock) -> None:
    recorded: list[bool] = []

    def predict(images: Tensor) -> None:
        clock.now += 0.01
        recorded.append(torch.is_grad_enabled())

    measure_inference(predict, IMAGES, SpeedSettings.quick())
    assert recorded
    assert not any(recorded)


@pytest.mark.parametrize("batches", [(), (2, 4), (1, 4, 2), (1, 1)])
def test_batch_sizes_rise_from_one(batches: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rise from 1"):
        SpeedSettings(batches=batches)


@given(count=st.integers(1, 12), batch=st.integers(1, 20))
def test_batches_cycle_through_all_images(count: int, batch: int) -> None:
    images = torch.arange(count)
    drawn = torch.cat(list(islice(batches_of(images, batch), 2 * count)))
    assert torch.equal(drawn, torch.arange(2 * count * batch) % count)


def test_batches_keep_the_layout_of_the_images() -> None:
    images = torch.zeros(5, 3, 4, 4).to(memory_format=torch.channels_last)
    for batch in (1, 4, 8):
        taken = next(batches_of(images, batch))
        assert taken.is_contiguous(memory_format=torch.channels_last)


def test_batches_of_no_images_are_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        batches_of(torch.zeros(0, 3, 4, 4), 1)
