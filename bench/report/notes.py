"""Captions and notes of tables and plots: what a run is about, what is unfinished, how it was measured."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from bench.analysis.run_records import Run
from bench.analysis.speeds import read_speed
from bench.analysis.training_fit import epochs, images_trained
from bench.errors import UserError
from bench.storage.records import read_ground_truth
from bench.storage.run_folder import GROUND_TRUTH

MAX_LATENCY_RATIO = 1.25  # between equal networks on an otherwise idle machine


def status(run: Run, variant: str) -> str:
    """ "done", "failed", "pending", or how many seeds of the variant are done."""
    states = [run.status(cell) for cell in run.cells if cell.variant == variant]
    if len(set(states)) == 1:
        return states[0]
    return f"{states.count('done')} of {len(states)} done" if states else "pending"


def subject(run: Run) -> str:
    """The run in a caption: data, backbone, profile, length of training, images, seeds."""
    data, backbone, profile = (text_of(run.plan.get(name)) for name in ("data", "backbone", "profile"))
    parts = [data or "unnamed data", backbone and f"backbone {backbone}", profile and f"profile {profile}"]
    length = training_length(run)
    parts.append(": ".join(filter(None, ("not a result", length))) if run.smoke else length)
    validation = [(record.get("accuracy") or {}).get("images") for _, record in run.done()]
    scored = common_value(pd.Series([number for number in validation if number is not None], dtype=float))
    if not run.trained:
        return ", ".join(filter(None, [*parts, "" if scored is None else f"{scored} images"]))
    images = {"training": run.train_images, "validation": scored}
    counts = [f"{count} {split}" for split, count in images.items() if count is not None]
    parts.append(f"{' and '.join(counts)} images" if counts else "")
    seeds = len(run.seeds)
    parts.append("1 seed" if seeds == 1 else f"mean ± sample standard deviation of {seeds} seeds")
    return ", ".join(part for part in parts if part)


def training_length(run: Run) -> str:
    """Steps and epochs of the baseline, such as "90 steps, 4.5 epochs"; "" if the plan does not give them."""
    training = (run.plan.get("base") or {}).get("training") or {}
    if "steps" not in training:
        return ""
    count = epochs(training, images_trained(run, training))
    steps = f"{training['steps']} step{'' if training['steps'] == 1 else 's'}"
    return steps if math.isnan(count) else f"{steps}, {epochs_text(count)} epoch{'' if count == 1 else 's'}"


def epochs_text(epochs: float) -> str:
    """Epochs with two digits, from 10 on as an integer: 0.53, 4.5, 12."""
    return f"{epochs:.2g}" if epochs < 10 else f"{epochs:.0f}"


def why_no_ap(run: Run) -> str:
    """Why no finished cell has an AP, as the end of a sentence; "" if one has, or if no cell is finished."""
    accuracies = [record.get("accuracy") or {} for _, record in run.done()]
    if not accuracies or any(accuracy.get("AP") is not None for accuracy in accuracies):
        return ""
    if any((accuracy.get("ground_truths") or {}).get("all") != 0 for accuracy in accuracies):
        return "the records hold no AP"
    try:
        boxes = read_ground_truth(run.folder / GROUND_TRUTH)["annotations"]
    except UserError:  # a partial copy of a run
        return "the validation images hold no ground truths that count"
    if not boxes:
        return "the validation images hold no ground truths"
    ignored = {"difficult": sum(bool(box.get("difficult")) for box in boxes)}
    ignored["crowd"] = len(boxes) - ignored["difficult"]
    kinds = [kind for kind, count in ignored.items() if count]
    verb = "is" if len(boxes) == 1 else "are"
    return f"the validation images hold no ground truths that count: {len(boxes)} {verb} {' or '.join(kinds)}"


def unfinished_cells(run: Run) -> tuple[str, ...]:
    """A note per failed cell, and one that lists the pending cells."""
    notes = [
        f"Failed: {cell.variant}, seed {cell.seed} ({one_line(failure.get('cause'))})"
        for cell, failure in run.failures()
    ]
    pending = [f"{cell.variant} (seed {cell.seed})" for cell in run.cells if run.status(cell) == "pending"]
    return (*notes, *([f"Pending: {', '.join(pending)}"] if pending else []))


def one_line(cause: object, length: int = 160) -> str:
    """The cause of a failure without line breaks, shortened to `length` characters."""
    text = " ".join(str(cause or "no cause was recorded").split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def latency_samples(metrics: pd.DataFrame) -> str:
    """The number of latency samples, as the end of a sentence."""
    counts = metrics["latency_samples"].dropna()
    if not len(counts):
        return ""
    low, high = min(counts), max(counts)
    return f", {low} samples" if low == high else f", {low} to {high} samples"


def measured_on(run: Run) -> str:
    """Where and how speed was measured, as a sentence: in turns after the last cell, or in each cell."""
    content = measured_in_turns(run)
    if content is not None:
        numerics = content["numerics"]
        machine = text_of((content.get("machine") or {}).get("name")) or text_of(numerics.get("device"))
        parts = (machine, f"{numerics['threads']} threads", text_of(numerics.get("precision")))
        return f"Measured in turns after the last cell on {', '.join(filter(None, parts))}."
    devices = []
    for _, record in run.done():
        speed = record.get("speed") or {}
        threads = f"{speed['threads']} threads" if speed.get("threads") else ""
        parts = (text_of(speed.get("device")), threads, text_of(speed.get("precision")))
        devices.append(", ".join(part for part in parts if part))
    distinct = [text for text in dict.fromkeys(devices) if text]
    return f"Measured on {'; '.join(distinct)}." if distinct else ""


def machine_differences(run: Run) -> tuple[str, ...]:
    """A note that lists the machine of each row; empty if all cells ran on one machine."""
    rows: dict[str, list[str]] = {}
    for cell, record in run.done():
        device = (record.get("environment") or {}).get("device") or {}
        threads = f"{device['threads']} threads" if device.get("threads") is not None else ""
        text = ", ".join(part for part in (text_of(device.get("name")), threads) if part)
        seed = f" (seed {cell.seed})" if len(run.seeds) > 1 else ""
        rows.setdefault(text or "An unnamed machine", []).append(f"{cell.variant}{seed}")
    if len(rows) < 2:
        return ()
    listed = "; ".join(f"{machine}: {', '.join(names)}" for machine, names in rows.items())
    what = "Speeds and times" if measured_in_turns(run) is None else "Training times"
    return (f"{what} were measured on different machines and are not comparable. {listed}",)


def measured_in_turns(run: Run) -> dict[str, Any] | None:
    """The content of speed.json if it has figures, else None."""
    content = read_speed(run)
    return content if content is not None and content["networks"] else None


def shared_networks(run: Run) -> tuple[str, ...]:
    """A note that lists the variants with one architecture, which share one measured speed."""
    networks = (measured_in_turns(run) or {"networks": []})["networks"]
    shared = [" = ".join(network["variants"]) for network in networks if len(network["variants"]) > 1]
    if not shared:
        return ()
    return (f"Detectors of one architecture are one network and share its speed: {'; '.join(shared)}",)


def timing_noise(run: Run) -> tuple[str, ...]:
    """Notes on speeds that were not measured in turns, on a busy machine, and on cells that were disturbed."""
    content = read_speed(run)
    if content is not None and content.get("failure"):
        cause = one_line(content["failure"])
        return (
            f"Speeds in turns were {cause}; speeds are those of the cells",
            *_noise_of_cells(run, "Speeds and times"),
        )
    if measured_in_turns(run) is None:
        return _noise_of_cells(run, "Speeds and times")
    return (*_busy_machine(run), *_noise_of_cells(run, "Training times"))


def _busy_machine(run: Run) -> tuple[str, ...]:
    """A note with the networks that were measured on a busy machine, by reason."""
    networks: dict[str, list[str]] = {}
    for network in (measured_in_turns(run) or {"networks": []})["networks"]:
        if network.get("busy"):
            networks.setdefault(str(network.get("reason") or "no reason given"), []).append(network["network"])
    if not networks:
        return ()
    listed = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in networks.items())
    return (f"The machine was busy, so these speeds are unreliable and rank nothing: {listed}",)


def _noise_of_cells(run: Run, what: str) -> tuple[str, ...]:
    """A note if the same network was measured at clearly different speeds in several cells. what: is unreliable."""
    latencies: dict[tuple[object, object], dict[str, float]] = {}
    for cell, record in run.done():
        cost, latency = record.get("cost") or {}, (record.get("speed") or {}).get("latency_p50_ms")
        network = cost.get("parameters_M"), cost.get("forward_GFLOP")
        if latency and None not in network:
            seed = f" (seed {cell.seed})" if len(run.seeds) > 1 else ""
            latencies.setdefault(network, {})[f"{cell.variant}{seed}"] = latency
    worst = max(latencies.values(), key=lambda each: max(each.values()) / min(each.values()), default={})
    if not worst or max(worst.values()) <= MAX_LATENCY_RATIO * min(worst.values()):
        return ()
    fastest, slowest = min(worst, key=worst.__getitem__), max(worst, key=worst.__getitem__)
    return (
        f"{what} are unreliable: {fastest} and {slowest} are networks of equal size but took "
        f"{worst[fastest]:.3g} and {worst[slowest]:.3g} ms per image; other processes were probably running",
    )


def gradient_accumulation(run: Run) -> tuple[str, ...]:
    """A note if training split its batches to fit into memory."""
    counts = {_micro_batches(record.get("numerics") or {}) for _, record in run.done()} - {1}
    if not counts:
        return ()
    listed = " or ".join(map(str, sorted(counts)))
    return (f"Training used gradient accumulation to fit into memory: {listed} micro-batches per step",)


def _micro_batches(numerics: dict[str, Any]) -> int:
    return int(numerics.get("micro_batches", numerics.get("pieces", 1)))  # "pieces" until November 2026


def common_value(values: pd.Series) -> int | None:
    """The integer that all values share; None if there are none or they differ."""
    distinct = set(values.dropna())
    return int(distinct.pop()) if len(distinct) == 1 else None


def text_of(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(str(part) for part in value) if isinstance(value, (list, tuple)) else str(value)
