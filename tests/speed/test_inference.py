"""What is timed is the call, what is reported is what the times say, and costs agree with hand counts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.device.memory import peak_memory_mib
from bench.errors import UserError
from bench.speed.inference import (
    SpeedSettings,
    Timing,
    batches_of,
    count_flops,
    count_parameters,
    device_description,
    measure,
    measure_inference,
    timed_call,
)

CPU = torch.device("cpu")
IMAGES = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)


class Clock:
    """A clock that moves only when work is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("bench.speed.inference.time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


def network_of(clock: Clock, seconds: Callable[[int], float]) -> Callable[[Tensor], object]:
    """A network that takes so many seconds for a batch."""

    def predict(images: Tensor) -> None:
        clock.now += seconds(len(images))

    return predict


def test_a_known_sleep_is_reported() -> None:
    seconds = measure(lambda: time.sleep(0.01), device=CPU, samples=15)
    assert len(seconds) == 15
    assert seconds.min() >= 0.01
    assert np.median(seconds) < 0.1


def test_the_times_are_those_that_the_call_itself_took() -> None:
    """A sleep is never as long as asked for, so the call times itself; what is measured on top of it is the error."""
    own: list[float] = []

    def call() -> None:
        start = time.perf_counter()
        time.sleep(0.005)
        own.append(time.perf_counter() - start)

    seconds = measure(call, device=CPU, samples=40, warmup=2)
    error = seconds - np.array(own[2:])
    print(f"error of a call of 5 ms: median {1e6 * np.median(error):.1f}, largest {1e6 * error.max():.1f} microseconds")
    assert (error >= 0).all()
    assert np.median(error) < 0.0005


def test_a_network_of_known_speed_is_reported() -> None:
    settings = SpeedSettings(budget_seconds=1.0, batches=(1, 2, 4), most=10)
    speed = measure_inference(lambda images: time.sleep(0.01), IMAGES, settings)
    assert speed["best_batch"] == 4
    assert 40 < speed["images_per_second"] <= 400
    assert 10 <= speed["latency_p50_ms"] <= speed["latency_p90_ms"] <= speed["latency_p99_ms"]


def test_percentiles_are_numpys() -> None:
    differences: list[float] = []

    @given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=50), st.integers(1, 64))
    def check(times: list[float], batch: int) -> None:
        timing = Timing(seconds=np.array(times), batch=batch)
        ours = np.array([timing.p50, timing.p90, timing.p99])
        differences.append(float(np.abs(ours - np.percentile(times, (50, 90, 99))).max()))
        assert differences[-1] == 0
        assert timing.n == len(times)
        assert timing.images_per_second == pytest.approx(batch / np.median(times))

    check()
    print(f"largest difference to numpy's percentiles {max(differences)} in {len(differences)} lists")


def test_warm_up_is_not_in_the_samples(clock: Clock) -> None:
    calls: list[float] = []

    def call() -> None:
        calls.append(100.0 if len(calls) < 2 else 0.5)
        clock.now += calls[-1]

    seconds = measure(call, device=CPU, samples=4, warmup=2)
    assert seconds.tolist() == [0.5] * 4
    assert len(calls) == 6


@pytest.mark.parametrize(("budget", "expected"), [(0.5, 3), (5.0, 4), (100.0, 20)])
def test_the_budget_ends_a_measurement_but_not_below_the_fewest(clock: Clock, budget: float, expected: int) -> None:
    network = network_of(clock, lambda batch: 1.0)
    seconds = measure(lambda: network(IMAGES), device=CPU, samples=20, warmup=1, fewest=3, budget_seconds=budget)
    assert len(seconds) == expected


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


def test_the_sweep_ends_where_throughput_falls(clock: Clock) -> None:
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


def test_what_is_left_of_the_budget_goes_to_the_best_size(clock: Clock) -> None:
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
def test_the_sweep_ends_where_memory_does(clock: Clock, error: Exception) -> None:
    def predict(images: Tensor) -> None:
        clock.now += 0.001
        if len(images) > 8:
            raise error

    speed = measure_inference(predict, IMAGES)
    assert [row["batch"] for row in speed["sweep"]] == [1, 2, 8]
    assert speed["best_batch"] == 8


def test_no_memory_for_one_image_says_what_to_do() -> None:
    def predict(images: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match=r"no memory for a single image on cpu.*--device"):
        measure_inference(predict, IMAGES)


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
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
def test_batches_go_round_through_all_images_in_turn(count: int, batch: int) -> None:
    images = torch.arange(count)
    drawn = torch.cat(list(islice(batches_of(images, batch), 2 * count)))
    assert torch.equal(drawn, torch.arange(2 * count * batch) % count)


def test_batches_keep_the_layout_of_the_images() -> None:
    images = torch.zeros(5, 3, 4, 4).to(memory_format=torch.channels_last)
    for batch in (1, 4, 8):
        taken = next(batches_of(images, batch))
        assert taken.is_contiguous(memory_format=torch.channels_last)


def test_batches_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no images"):
        batches_of(torch.zeros(0, 3, 4, 4), 1)


class TwoLayers(nn.Module):
    """A convolution and a linear layer, with a norm between that must not notice being counted."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.frozen = nn.BatchNorm2d(8).eval()
        self.linear = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.frozen(self.norm(self.convolution(images)))
        result: Tensor = self.linear(maps.mean(dim=(2, 3)))
        return result


def test_flops_agree_with_a_hand_count() -> None:
    # Each of 2 x 8 x 10 x 12 outputs is a sum of 3 x 3 x 3 products; each of 2 x 5 of 8.
    expected = 2 * (2 * 8 * 10 * 12 * 27) + 2 * (2 * 5 * 8)
    counted = count_flops(TwoLayers(), torch.rand(2, 3, 10, 12))
    print(f"{counted} operations, {expected} by hand")
    assert counted == expected


def test_counting_flops_leaves_the_model_as_it_was() -> None:
    model = TwoLayers()
    assert model.norm.running_mean is not None
    before = model.norm.running_mean.clone()
    count_flops(model, torch.rand(2, 3, 10, 12))
    assert torch.equal(model.norm.running_mean, before)
    assert (model.training, model.norm.training, model.frozen.training) == (True, True, False)


def test_parameters_count_once() -> None:
    model = TwoLayers()
    expected = (3 * 8 * 9 + 8) + 2 * (8 + 8) + (8 * 5 + 5)
    assert count_parameters(model) == expected
    assert count_parameters(nn.ModuleList([model, model.linear])) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="compares with /proc, which only Linux has")
def test_peak_memory_is_in_mib() -> None:
    held = np.ones(96 * 2**20, dtype=np.uint8)
    status = Path("/proc/self/status").read_text()
    now = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
    peak = peak_memory_mib(CPU)
    assert peak >= held.nbytes / 2**20
    assert now * 0.9 < peak < now * 100


def test_the_device_is_described_for_a_record() -> None:
    description = device_description(CPU)
    assert description["name"] == description["cpu"] != ""
    assert description["threads"] == torch.get_num_threads()
    assert description["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    json.dumps(description)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_work_is_timed_and_not_its_launch() -> None:
    device = torch.device("cuda")
    a = torch.rand(4096, 4096, device=device)

    def work() -> None:
        for _ in range(20):
            a @ a

    once = timed_call(work, device)
    once()
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    launch = time.perf_counter() - start
    torch.cuda.synchronize()
    wall = time.perf_counter() - start
    assert once() > 0.5 * wall > launch
    assert {"driver", "clock_mhz", "memory_mib"} <= device_description(device).keys()
    assert peak_memory_mib(device) >= a.nbytes / 2**20
