"""Speed of a run's trained networks, measured in turns after the last cell, for speed.json.

Each cell measures its own speed, but at another time than the others: what else the machine did then would look like a
difference between variants. Here all networks are measured in one process, interleaved in random order. Variants whose
detectors have one architecture share one figure, since they differ in their weights only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.analysis.run_records import Run, weights_checksum
from bench.analysis.speeds import read_speed
from bench.analysis.statistics import student
from bench.data.index import ImageIndex
from bench.data.pixels import open_pixels
from bench.data.warp import whole_images
from bench.device.clock import Timing
from bench.device.hardware import available_cores, device_description
from bench.device.load import ForeignLoad
from bench.device.precision import autocast
from bench.errors import UserError
from bench.spec import DetectorSpec, Numerics, content_hash, detector_from
from bench.speed.fresh_process import in_fresh_process
from bench.speed.inference import SPEED_IMAGES, batches_of
from bench.speed.interleaved import (
    ROUNDS_FOR_RATIO,
    Budget,
    Contender,
    Ratio,
    measure_interleaved,
    paired_ratios,
)
from bench.speed.memory import idle_and_peak
from bench.storage.records import SCHEMA, now
from bench.storage.run_folder import WEIGHTS
from bench.training.setup import configure, place
from bench.training.trained import trained_detector

LATENCY, THROUGHPUT = "latency", "throughput"
MOST_CALLS = 20  # of batch 1 in a round
# A machine is busy beyond these
LEFT_CORES = 0.9  # cores that others leave, for each of our threads
HALVES = 1.15  # times that a network takes longer in one half of the rounds than in the other
SPREAD = 0.25  # interquartile range of a network's rounds, relative to their median
ROUNDS_FOR_HALVES = 6
GRACE_SECONDS = 180.0  # for loading networks and compiling kernels, until the process counts as hung

# What does not change the work of inference
_NOT_ARCHITECTURE = (
    *("weights", "weights_fingerprint", "class_outputs", "initialisation", "object_probability"),
    *("variances", "match_threshold", "negatives_per_positive", "box_loss", "class_loss"),
)

Key = tuple[str, str]  # network, LATENCY or THROUGHPUT


@dataclass(frozen=True, kw_only=True)
class InTurnsSettings:
    """How long to measure the networks of a run.

    seconds: for one measurement of all networks; only its fewest rounds may exceed it.
    most_seconds: after which a busy machine is not measured again.
    repeats: how often a busy machine is measured again.
    warmup, fewest: see `Budget`. memory: whether to measure memory, in one more process for each network.
    """

    seconds: float = 12.0
    most_seconds: float = 24.0
    repeats: int = 3
    warmup: int = 2
    fewest: int = 5
    memory: bool = True

    @classmethod
    def smoke(cls) -> InTurnsSettings:
        """Shows that measuring works; too short for a comparison."""
        return cls(seconds=1.0, most_seconds=1.0, repeats=0, warmup=1, fewest=3, memory=False)


@dataclass(frozen=True, kw_only=True)
class Network:
    """Variants whose detectors have one architecture.

    variants: in the order of the plan; the first gives the network its name. cells: the finished ones, by id.
    spec, weights, checksum: of the cell that stands for all; see `trained_detector`.
    seconds: per image in the records, at batch 1 and at the best batch.
    """

    variants: tuple[str, ...]
    cells: tuple[str, ...]
    spec: DetectorSpec
    weights: Path
    checksum: str | None
    cost: Mapping[str, Any]
    seconds: Mapping[str, float]

    @property
    def name(self) -> str:
        return self.variants[0]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What the process that measures needs. reference: the name of the network that the others are compared with."""

    networks: tuple[Network, ...]
    reference: str
    numerics: Numerics
    shown: ImageIndex
    pixels: Path | None
    batch: int
    calls: int
    settings: InTurnsSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """The last measurement of the networks.

    busy: why the machine counts as busy, by network; empty if it does not. attempts: measurements in all.
    """

    timings: dict[Key, Timing]
    busy: dict[str, str]
    attempts: int
    machine: dict[str, Any]


def is_current(run: Run) -> bool:
    """Whether speed.json has the figures of the finished cells, of all and of no others."""
    content = read_speed(run)
    if content is None or content.get("failure"):
        return False
    return set(content.get("cells") or ()) == {cell.id for cell, _ in run.done()}


def measure_in_turns(
    run: Run, *, numerics: Numerics, val: ImageIndex, pixels: Path | None, settings: InTurnsSettings
) -> dict[str, Any]:
    """The content of speed.json, measured now on this machine.

    run: has at least one finished cell. numerics: of the run. val: the validation images. pixels: see `open_pixels`.
    Never fails: what could not be measured has its reason in `failure`.
    """
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "measured": now(),
        "settings": asdict(settings),
        "numerics": asdict(numerics),
        "cells": [cell.id for cell, _ in run.done()],
        "networks": [],
        "failure": None,
    }
    try:
        return content | _measured_content(run, numerics, val, pixels, settings)
    except Exception as error:  # whatever it is, the cells are trained and evaluated
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return content | {"failure": f"not measured: {kind}{error}"}


def _measured_content(
    run: Run, numerics: Numerics, val: ImageIndex, pixels: Path | None, settings: InTurnsSettings
) -> dict[str, Any]:
    networks = networks_of(run)
    with_baseline = [network for network in networks if run.baseline in network.variants]
    batch, calls = sizes_of_round(networks, _best_batches(run), settings)
    job = _Job(
        networks=networks,
        reference=(with_baseline or networks)[0].name,
        numerics=numerics,
        shown=val.take(np.arange(min(SPEED_IMAGES, len(val)))),
        pixels=pixels,
        batch=batch,
        calls=calls,
        settings=settings,
    )
    most = GRACE_SECONDS + 2 * settings.most_seconds
    measured = in_fresh_process(_measure, job, cpu_kernels=numerics.cpu_kernels, most_seconds=most)
    if measured is None:
        raise MemoryError("the process that measured died; most likely memory ran out")
    ratios = paired_ratios(measured.timings, lambda key: (job.reference, key[1])) if with_baseline else {}
    return {
        "machine": measured.machine,
        "images": len(job.shown),
        "batch": batch,
        "attempts": measured.attempts,
        "baseline": job.reference if with_baseline else None,
        "networks": [
            {
                "network": network.name,
                "variants": list(network.variants),
                "cells": list(network.cells),
                **network.cost,
                **_figures(network.name, measured.timings, ratios),
                "memory_MiB": _memory(network, job) if settings.memory else None,
                "busy": bool(measured.busy.get(network.name)),
                "reason": measured.busy.get(network.name, ""),
            }
            for network in networks
        ],
    }


def networks_of(run: Run) -> tuple[Network, ...]:
    """The architectures of the finished cells, in the order of the plan.

    Raises UserError if a record has no detector of this version.
    """
    groups: dict[str, list[tuple[str, str]]] = {}  # variant and cell
    for cell, record in run.done():
        groups.setdefault(architecture(record), []).append((cell.variant, cell.id))
    networks = []
    for cells in groups.values():
        variants = tuple(dict.fromkeys(variant for variant, _ in cells))
        paths = [run.folder_of(cell_id) / WEIGHTS for _, cell_id in cells]
        place = next((place for place, path in enumerate(paths) if path.is_file()), 0)
        record = run.records[cells[place][1]]
        speeds = [run.records[cell_id].get("speed") or {} for _, cell_id in cells]
        networks.append(
            Network(
                variants=variants,
                cells=tuple(cell_id for _, cell_id in cells),
                spec=detector_from(record["detector"]),
                weights=paths[place],
                checksum=weights_checksum(record),
                cost={name: (record.get("cost") or {}).get(name) for name in ("parameters_M", "forward_GFLOP")},
                seconds={
                    LATENCY: _median([speed["latency_p50_ms"] / 1000 for speed in speeds if speed]),
                    THROUGHPUT: _median([1 / speed["images_per_second"] for speed in speeds if speed]),
                },
            )
        )
    return tuple(networks)


def architecture(record: Mapping[str, Any]) -> str:
    """A hash of what decides how much a record's network computes; its weights and where its priors lie do not.

    Raises UserError if the record has no detector.
    """
    if not record.get("detector"):
        raise UserError(f"the record of cell {record.get('id')} has no detector; an older version wrote it")
    content = {name: value for name, value in record["detector"].items() if name not in _NOT_ARCHITECTURE}
    content["priors"] = [len(shapes) for shapes in content["priors"]]
    content["level_norms"] = [bool(norm) for norm in content["level_norms"]]
    cost = record.get("cost") or {}
    return content_hash([content, cost.get("parameters_M"), cost.get("forward_GFLOP")])


def sizes_of_round(
    networks: Sequence[Network], best_batches: Sequence[int], settings: InTurnsSettings
) -> tuple[int, int]:
    """The batch of the throughput, the same for all networks, and the calls of batch 1 in a round.

    best_batches: of the cells. The batch is the one that most cells found best, or a smaller one if the fewest rounds
    would take more than half of the time.
    """
    by_image, single = (sum(network.seconds[kind] for network in networks) for kind in (THROUGHPUT, LATENCY))
    batch = max(Counter(best_batches).items(), key=lambda each: (each[1], -each[0]), default=(1, 0))[0]
    while batch > 1 and settings.fewest * batch * by_image > settings.most_seconds / 2:
        batch //= 2
    affordable = settings.seconds / ROUNDS_FOR_RATIO / 2 / single if single > 0 else MOST_CALLS
    return batch, max(1, min(MOST_CALLS, int(affordable)))


def measure_until_quiet(
    contenders: Mapping[Key, Contender],
    *,
    numerics: Numerics,
    reference: str,
    settings: InTurnsSettings,
    foreign_load: Callable[[], ForeignLoad] = ForeignLoad,
) -> Measured:
    """Measure all contenders in turns, again as long as the machine is busy and the settings allow it.

    foreign_load: starts to observe what other processes use.
    """
    device = torch.device(numerics.device)
    attempts, left = 0, settings.most_seconds
    while True:
        load = foreign_load()
        timings = measure_interleaved(
            contenders,
            device=device,
            budget=Budget(seconds=min(settings.seconds, left), warmup=settings.warmup, fewest=settings.fewest),
            reference=lambda key: (reference, key[1]),
        )
        attempts += 1
        left -= sum(float(timing.seconds.sum()) for timing in timings.values())
        threads = numerics.threads if device.type == "cpu" else 1
        busy = busy_reasons(timings, reference=reference, foreign=load.cores(), threads=threads)
        if not busy or attempts > settings.repeats or left <= 0:
            return Measured(timings=timings, busy=busy, attempts=attempts, machine=device_description(device))


def busy_reasons(
    timings: Mapping[Key, Timing], *, reference: str, foreign: float | None, threads: int
) -> dict[str, str]:
    """By network, the signs that the machine did something else meanwhile; a network without any is not a key.

    reference: the network whose halves are compared. foreign: cores that others used, None if unknown.
    threads: cores that we need.
    """
    common = []
    cores = available_cores()
    if foreign is not None and cores - foreign < LEFT_CORES * threads:
        common.append(f"other processes used {foreign:.1f} of {cores} cores")
    change = max((_change(timing) for (name, _), timing in timings.items() if name == reference), default=1.0)
    if change > HALVES:
        common.append(f"one half of the rounds took {change:.2f} times as long as the other")
    reasons = {}
    for name in dict.fromkeys(name for name, _ in timings):
        spread = max(_spread(timing) for (other, _), timing in timings.items() if other == name)
        own = [f"the rounds of this network spread by {100 * spread:.0f}%"] if spread > SPREAD else []
        if common or own:
            reasons[name] = "; ".join([*common, *own])
    return reasons


def _change(timing: Timing) -> float:
    """How many times as long the slower half of the rounds took as the other, by their medians; at least 1."""
    rounds = timing.rounds
    if len(rounds) < ROUNDS_FOR_HALVES:
        return 1.0
    first, second = (float(np.median(half)) for half in np.array_split(rounds, 2))
    return max(first / second, second / first)


def _spread(timing: Timing) -> float:
    low, middle, high = np.percentile(timing.rounds, (25, 50, 75))
    return float((high - low) / middle)


def _measure(job: _Job) -> Measured:
    """The process that measures: load all networks, then measure them."""
    configure(job.numerics)
    contenders: dict[Key, Contender] = {}
    for network in job.networks:
        predict = _predictor(network, job.numerics)
        images = _images(job, network.spec.size, len(job.shown))
        for kind, batch, calls in ((LATENCY, 1, job.calls), (THROUGHPUT, job.batch, 1)):
            call = _on_next(predict, images, batch)
            contenders[network.name, kind] = Contender(call=call, batch=batch, calls_per_round=calls)
    return measure_until_quiet(contenders, numerics=job.numerics, reference=job.reference, settings=job.settings)


def _on_next(predict: Callable[[Tensor], object], images: Tensor, batch: int) -> Callable[[], object]:
    batches = batches_of(images, batch)
    return lambda: predict(next(batches))


def _predictor(network: Network, numerics: Numerics) -> Callable[[Tensor], object]:
    model = place(trained_detector(network.spec, network.weights, network.checksum), numerics)

    def predict(images: Tensor) -> object:
        with torch.inference_mode(), autocast(numerics):
            return model.detect(images)

    return predict


def _images(job: _Job, size: int, count: int) -> Tensor:
    """The first `count` validation images, (count, 3, size, size) uint8 on the run's device."""
    pixels = open_pixels(job.pixels, job.shown)
    return whole_images(pixels, range(count), size, workers=job.numerics.threads).to(job.numerics.device)


def _memory(network: Network, job: _Job) -> float | None:
    """Peak MiB of inference at the batch of the throughput, see `bench.speed.memory`; None if memory ran out."""
    measured = in_fresh_process(
        _idle_and_peak, network, job, cpu_kernels=job.numerics.cpu_kernels, most_seconds=GRACE_SECONDS
    )
    return None if measured is None else measured[1]


def _idle_and_peak(network: Network, job: _Job) -> tuple[float, float] | None:
    """`idle_and_peak` in a process that has done nothing yet."""
    configure(job.numerics)
    model = place(trained_detector(network.spec, network.weights, network.checksum), job.numerics)
    images = _images(job, network.spec.size, min(job.batch, len(job.shown)))
    return idle_and_peak(model, images, job.numerics, job.batch)


def _figures(name: str, timings: Mapping[Key, Timing], ratios: Mapping[Key, Ratio]) -> dict[str, Any]:
    """The figures of a network; None for what ran out of memory."""
    single, many = timings.get((name, LATENCY)), timings.get((name, THROUGHPUT))
    figures: dict[str, Any] = {"images_per_second": None, "latency_ms": None, "rounds_ms": {}}
    if many is not None:
        value, low, high = _interval(many)
        figures["images_per_second"] = {
            **{"value": many.batch / value, "low": many.batch / high, "high": many.batch / low},
            "batch": many.batch,
        }
    if single is not None:
        value, low, high = _interval(single)
        figures["latency_ms"] = {
            **{"p50": 1000 * value, "low": 1000 * low, "high": 1000 * high},
            **{"p90": 1000 * single.p90, "p99": 1000 * single.p99, "calls": single.n},
        }
    for kind, timing in ((LATENCY, single), (THROUGHPUT, many)):
        figures["rounds_ms"][kind] = [] if timing is None else [round(1000 * each, 5) for each in timing.rounds]
    figures["ratio"] = _ratio(ratios.get((name, THROUGHPUT)))
    figures["latency_ratio"] = _ratio(ratios.get((name, LATENCY)))
    return figures


def _interval(timing: Timing) -> tuple[float, float, float]:
    """Seconds of a call with their 95% interval: the geometric mean over the rounds, each by the median of its calls.

    Student's t of the logarithms, as in `paired_ratio`.
    """
    logarithms = np.log(timing.rounds)
    interval = student(logarithms)
    return math.exp(float(logarithms.mean())), math.exp(interval.low), math.exp(interval.high)


def _ratio(ratio: Ratio | None) -> dict[str, Any] | None:
    return None if ratio is None else asdict(ratio)


def _best_batches(run: Run) -> list[int]:
    return [int(batch) for _, record in run.done() if (batch := (record.get("speed") or {}).get("best_batch"))]


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else 0.0
