"""Captions and notes of tables and plots: what a run is about, what is unfinished, how it was measured."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.analysis.run_records import Run

MAX_LATENCY_RATIO = 1.25  # between equal networks on an otherwise idle machine


def status(run: Run, variant: str) -> str:
    """ "done", "failed", "pending", or how many seeds of the variant are done."""
    states = [run.status(cell) for cell in run.cells if cell.variant == variant]
    if len(set(states)) == 1:
        return states[0]
    return f"{states.count('done')} of {len(states)} done" if states else "pending"


def subject(run: Run) -> str:
    """The run in a caption: data, backbone, profile, validation images, seeds."""
    images = [(record.get("accuracy") or {}).get("images") for _, record in run.done()]
    count = common_value(pd.Series([number for number in images if number is not None], dtype=float))
    data, backbone, profile = (text_of(run.plan.get(name)) for name in ("data", "backbone", "profile"))
    parts = [data or "unnamed data", backbone and f"backbone {backbone}", profile and f"profile {profile}"]
    parts.append(f"{count} validation images" if count is not None else "")
    seeds = len(run.seeds)
    parts.append("1 seed" if seeds == 1 else f"mean ± sample standard deviation of {seeds} seeds")
    return ", ".join(part for part in parts if part)


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
    """Device, threads and precision of the speed measurements, as a sentence."""
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
    return (f"Speeds and times were measured on different machines and are not comparable. {listed}",)


def timing_noise(run: Run) -> tuple[str, ...]:
    """A note if the same network was measured at clearly different speeds in several cells."""
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
        f"Speeds and times are unreliable: {fastest} and {slowest} are networks of equal size but took "
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
