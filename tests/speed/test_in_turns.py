"""The networks of a run measured in turns: pooled by architecture, again while the machine is busy, with intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from bench.analysis.run_records import Run, load_run
from bench.analysis.speeds import load_speeds
from bench.data.dataset import Dataset, open_dataset
from bench.detector.ssd import SSD
from bench.device.clock import Timing
from bench.spec import DetectorSpec, NeckSpec, Numerics
from bench.speed import in_turns
from bench.speed.in_turns import (
    LATENCY,
    THROUGHPUT,
    InTurnsSettings,
    Key,
    Network,
    architecture,
    busy_reasons,
    is_current,
    measure_in_turns,
    measure_until_quiet,
    networks_of,
    sizes_of_round,
)
from bench.speed.interleaved import Contender
from tests import tiny
from tests.report.made_run import matrix, write_run

PLAIN = tiny.specification().detector
PYRAMID = replace(PLAIN, neck=NeckSpec(kind="fpn", channels=8, levels=2))


def add_detector(run: Path, record: Path, spec: DetectorSpec) -> None:
    """Add the detector and untrained weights to a made-up record."""
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"detector": asdict(spec)}))
    model = SSD(spec, seed=0)
    torch.save({"priors": model.priors_fingerprint(), "model": model.state_dict()}, record.with_name("weights.pt"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """baseline, fpn and the control half-data, one seed each, on the tiny network."""
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)), controls=("half-data",))
    for path in folder.glob("cells/*/record.json"):
        pyramid = json.loads(path.read_text())["variant"] == "fpn"
        add_detector(folder, path, PYRAMID if pyramid else PLAIN)
    return load_run(folder)


@pytest.fixture
def data(pictures: Path, tmp_path: Path) -> Dataset:
    return open_dataset(f"voc:{pictures}", cache=tmp_path / "cache", workers=1)


def measure(run: Run, data: Dataset, **changes: Any) -> dict[str, Any]:
    settings = replace(InTurnsSettings.smoke(), seconds=0.2, most_seconds=0.2, **changes)
    return measure_in_turns(run, numerics=tiny.NUMERICS, val=data.val, pixels=data.pixels, settings=settings)


def test_the_trained_networks_are_measured_with_intervals(run: Run, data: Dataset) -> None:
    content = measure(run, data, memory=True)
    assert content["failure"] is None
    assert content["machine"]["name"]
    (run.folder / "speed.json").write_text(json.dumps(content, allow_nan=False))
    assert [network["variants"] for network in content["networks"]] == [["baseline", "half-data"], ["fpn"]]
    plain, pyramid = content["networks"]
    for network in (plain, pyramid):
        rounds = {kind: np.array(network["rounds_ms"][kind]) for kind in (LATENCY, THROUGHPUT)}
        assert len(rounds[LATENCY]) == len(rounds[THROUGHPUT]) >= 3
        expected = stats.ttest_1samp(np.log(rounds[LATENCY]), 0.0).confidence_interval(0.95)
        latency, speed = network["latency_ms"], network["images_per_second"]
        assert latency["p50"] == pytest.approx(stats.gmean(rounds[LATENCY]), rel=1e-3)
        assert (latency["low"], latency["high"]) == pytest.approx(np.exp([expected.low, expected.high]), rel=1e-3)
        assert speed["value"] == pytest.approx(1000 * content["batch"] / stats.gmean(rounds[THROUGHPUT]), rel=1e-3)
        assert speed["low"] <= speed["value"] <= speed["high"]
        assert 50 < network["memory_MiB"] < 10_000
        for ratio, kind in (("ratio", THROUGHPUT), ("latency_ratio", LATENCY)):
            paired = np.array(plain["rounds_ms"][kind]) / np.array(network["rounds_ms"][kind])
            assert network[ratio]["value"] == pytest.approx(stats.gmean(paired), rel=1e-3)
            assert network[ratio]["rounds"] == len(paired)
    speeds = load_speeds(run)
    assert speeds.drop(columns="reason").notna().all(axis=None)
    assert is_current(run)


def test_other_finished_cells_need_another_measurement(run: Run, data: Dataset) -> None:
    assert not is_current(run)
    content = measure(run, data)
    (run.folder / "speed.json").write_text(json.dumps(content))
    assert is_current(run)
    path = run.folder_of(run.cells[0].id) / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed"}))
    assert not is_current(load_run(run.folder))
    (run.folder / "speed.json").write_text(json.dumps(content | {"failure": "not measured: no time"}))
    assert not is_current(run)
    (run.folder / "speed.json").write_text("{")
    assert not is_current(run)


def test_deleted_weights_are_a_note(run: Run, data: Dataset) -> None:
    (run.folder_of(run.cells[1].id) / "weights.pt").unlink()
    content = measure(run, data)
    assert content["networks"] == []
    assert content["failure"].startswith("not measured: ")
    assert "weights.pt is missing" in content["failure"]


def test_damaged_weights_are_a_note(run: Run, data: Dataset) -> None:
    weights = run.folder_of(run.cells[1].id) / "weights.pt"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"{weights} does not hold the weights of a cell" in measure(run, data)["failure"]


def test_another_cell_stands_for_one_whose_weights_were_deleted(run: Run) -> None:
    (run.folder_of(run.cells[0].id) / "weights.pt").unlink()
    plain, _ = networks_of(run)
    assert plain.weights.is_file()
    assert plain.weights.parent.name == run.cells[2].id == plain.cells[1]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (lambda: None, "not measured: MemoryError: the process that measured died"),
        (lambda: (_ for _ in ()).throw(TimeoutError("no answer within 3 s")), "TimeoutError: no answer within 3 s"),
    ],
)
def test_a_process_that_fails_is_a_note(
    run: Run, data: Dataset, monkeypatch: pytest.MonkeyPatch, answer: Callable[[], object], text: str
) -> None:
    monkeypatch.setattr(in_turns, "in_fresh_process", lambda *_, **__: answer())
    assert text in measure(run, data)["failure"]


def test_an_interruption_is_none(run: Run, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(in_turns, "in_fresh_process", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure(run, data)


def test_records_of_older_versions_are_a_note(run: Run, data: Dataset) -> None:
    path = run.folder_of(run.cells[0].id) / "record.json"
    content = json.loads(path.read_text())
    del content["detector"]
    path.write_text(json.dumps(content))
    assert "has no detector" in measure(load_run(run.folder), data)["failure"]


def record_of(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(asdict(replace(PLAIN, **changes))))
    return {"id": "a", "detector": content, "cost": {"parameters_M": 5.4, "forward_GFLOP": 2.3}}


MOVED = tuple(tuple((1.01 * wide, 0.99 * high) for wide, high in level) for level in PLAIN.priors)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"weights": "other.pth", "class_loss": "focal", "object_probability": 0.01, "match_threshold": 0.4}, True),
        ({"priors": MOVED}, True),
        ({"priors": (*PLAIN.priors[:-1], (*PLAIN.priors[-1], (0.5, 0.5)))}, False),
        ({"neck": PYRAMID.neck}, False),
        ({"size": 320}, False),
        ({"classes": 3}, False),
        ({"score_threshold": 0.05}, False),
    ],
)
def test_an_architecture_is_what_computes(changes: dict[str, Any], same: bool) -> None:
    assert (architecture(record_of(**changes)) == architecture(record_of())) == same


def test_networks_of_other_cost_are_not_pooled() -> None:
    assert architecture(record_of() | {"cost": {"parameters_M": 5.5}}) != architecture(record_of())


def network(single: float, by_image: float) -> Network:
    seconds = {LATENCY: single, THROUGHPUT: by_image}
    return Network(variants=("a",), cells=(), spec=PLAIN, weights=Path(), checksum=None, cost={}, seconds=seconds)


@pytest.mark.parametrize(
    ("networks", "best", "expected"),
    [
        ([network(0.016, 0.015)] * 2, [8, 8, 32], (8, 18)),
        ([network(0.001, 0.001)] * 2, [128, 32], (32, 20)),  # a tie: the smaller
        ([network(0.3, 0.25)] * 2, [8] * 3, (4, 1)),  # eight would take half of the time twice over
        ([network(0.0, 0.0)], [], (1, 20)),
    ],
)
def test_the_sizes_of_a_round_fit_the_time(networks: list[Network], best: list[int], expected: tuple[int, int]) -> None:
    assert sizes_of_round(networks, best, InTurnsSettings()) == expected


class Load:
    """What others use: the next of some numbers, the last for ever."""

    def __init__(self, *cores: float) -> None:
        self.left = list(cores)

    def __call__(self) -> Any:
        return self

    def cores(self) -> float:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores."""
    monkeypatch.setattr(in_turns, "available_cores", lambda: 2)


def contenders(noise: float = 0.0) -> dict[Key, Contender]:
    """Two networks of 10 and 20 ms."""

    def stream(seconds: float) -> Iterator[float]:
        draw = np.random.default_rng(int(1000 * seconds))
        while True:
            yield float(seconds * np.exp(draw.normal(0, noise)))

    return {
        (name, kind): Contender(call=stream(seconds).__next__, batch=1, timed=True)
        for name, seconds in (("baseline", 0.01), ("fpn", 0.02))
        for kind in (LATENCY, THROUGHPUT)
    }


NUMERICS = Numerics(device="cpu", precision="float32", threads=2)


def until_quiet(load: Load, noise: float = 0.001, **settings: Any) -> in_turns.Measured:
    return measure_until_quiet(
        contenders(noise),
        numerics=NUMERICS,
        reference="baseline",
        settings=replace(InTurnsSettings(), **settings),
        foreign_load=load,
    )


@pytest.mark.usefixtures("cores")
def test_a_quiet_machine_is_measured_once() -> None:
    measured = until_quiet(Load(0.1))
    assert (measured.attempts, measured.busy) == (1, {})
    assert {timing.n for timing in measured.timings.values()} == {10}


@pytest.mark.usefixtures("cores")
def test_a_busy_machine_is_measured_again_until_it_is_quiet() -> None:
    measured = until_quiet(Load(1.0, 0.5, 0.0))
    assert (measured.attempts, measured.busy) == (3, {})


@pytest.mark.usefixtures("cores")
def test_what_stays_busy_is_said_after_three_repeats() -> None:
    measured = until_quiet(Load(1.0))
    assert measured.attempts == 4
    assert measured.busy == dict.fromkeys(("baseline", "fpn"), "other processes used 1.0 of 2 cores")


@pytest.mark.usefixtures("cores")
def test_a_busy_machine_is_not_measured_beyond_the_time() -> None:
    assert until_quiet(Load(1.0), most_seconds=0.7).attempts == 2  # 0.6 s each on the clock of the contenders


@pytest.mark.usefixtures("cores")
def test_noisy_rounds_are_busy() -> None:
    measured = until_quiet(Load(0.0), noise=0.5, seconds=0.05, repeats=0)
    assert set(measured.busy) == {"baseline", "fpn"}
    assert all("spread by" in reason for reason in measured.busy.values())


def timings(**rounds: list[float]) -> dict[Key, Timing]:
    return {
        (name, kind): Timing(seconds=np.array(own)) for name, own in rounds.items() for kind in (LATENCY, THROUGHPUT)
    }


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("foreign", "threads", "busy"), [(0.1, 2, False), (0.3, 2, True), (1.0, 1, False), (1.2, 1, True)]
)
def test_others_disturb_if_they_leave_too_few_cores(foreign: float, threads: int, busy: bool) -> None:
    reasons = busy_reasons(timings(a=[1.0] * 8), reference="a", foreign=foreign, threads=threads)
    assert bool(reasons) == busy
    assert busy_reasons(timings(a=[1.0] * 8), reference="a", foreign=None, threads=threads) == {}


@pytest.mark.usefixtures("cores")
def test_a_machine_whose_speed_changes_is_busy() -> None:
    faster, steady = [1.2] * 4 + [1.0] * 4, [1.0] * 8
    reasons = busy_reasons(timings(a=faster, b=steady), reference="a", foreign=0.0, threads=2)
    assert reasons == dict.fromkeys("ab", "one half of the rounds took 1.20 times as long as the other")
    assert busy_reasons(timings(a=faster, b=steady), reference="b", foreign=0.0, threads=2) == {}
    assert busy_reasons(timings(a=[1.2, 1.0, 1.0]), reference="a", foreign=0.0, threads=2) == {}  # too few to tell


@pytest.mark.usefixtures("cores")
def test_only_the_network_whose_rounds_spread_is_busy() -> None:
    reasons = busy_reasons(
        timings(a=[1.0] * 8, b=[1.0, 1.5, 1.0, 1.5, 1.0, 1.5, 1.0, 1.5]), reference="a", foreign=0.0, threads=2
    )
    assert reasons == {"b": "the rounds of this network spread by 40%"}
