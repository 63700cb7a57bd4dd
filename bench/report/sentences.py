"""What tables, plots and the terminal say of a run in words: its subject, its state, how it was measured."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.analysis.run_records import Run

STEADY = 1.25  # times between the latencies of equal networks that a quiet machine stays within


def status(run: Run, variant: str) -> str:
    """ "done", "failed", "pending", or how many of the variant's seeds are done."""
    states = [run.status(cell) for cell in run.cells if cell.variant == variant]
    if len(set(states)) == 1:
        return states[0]
    return f"{states.count('done')} of {len(states)} done" if states else "pending"


def subject(run: Run) -> str:
    """What the figures are about, for captions: data, backbone, profile, validation images, seeds."""
    images = [(record.get("accuracy") or {}).get("images") for _, record in run.done()]
    count = common(pd.Series([number for number in images if number is not None], dtype=float))
    data, backbone, profile = (text_of(run.plan.get(name)) for name in ("data", "backbone", "profile"))
    parts = [data or "unnamed data", backbone and f"backbone {backbone}", profile and f"profile {profile}"]
    parts.append(f"{count} validation images" if count is not None else "")
    seeds = len(run.seeds)
    parts.append("1 seed" if seeds == 1 else f"mean ± sample standard deviation of {seeds} seeds")
    return ", ".join(part for part in parts if part)


def unfinished(run: Run) -> tuple[str, ...]:
    """A sentence for each failed cell, and one that names what is pending."""
    notes = [
        f"Failed: {cell.variant}, seed {cell.seed} ({one_line(failure.get('cause'))})"
        for cell, failure in run.failures()
    ]
    pending = [f"{cell.variant} (seed {cell.seed})" for cell in run.cells if run.status(cell) == "pending"]
    return (*notes, *([f"Pending: {', '.join(pending)}"] if pending else []))


def one_line(cause: object, length: int = 160) -> str:
    """A cause of failure without line feeds, shortened to `length` characters."""
    text = " ".join(str(cause or "no cause was recorded").split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def samples(figures: pd.DataFrame) -> str:
    counts = figures["latency_samples"].dropna()
    if not len(counts):
        return ""
    low, high = min(counts), max(counts)
    return f", {low} samples" if low == high else f", {low} to {high} samples"


def machine(run: Run) -> str:
    """Device, threads and precision of the speed measurements, as a sentence."""
    found = []
    for _, record in run.done():
        speed = record.get("speed") or {}
        text = ", ".join(
            part
            for part in (
                text_of(speed.get("device")),
                f"{speed['threads']} threads" if speed.get("threads") else "",
                text_of(speed.get("precision")),
            )
            if part
        )
        if text and text not in found:
            found.append(text)
    return f"Measured on {'; '.join(found)}." if found else ""


def machines(run: Run) -> tuple[str, ...]:
    """A sentence that says which rows were measured where, if that was not one machine; else nothing."""
    rows: dict[str, list[str]] = {}
    for cell, record in run.done():
        device = (record.get("environment") or {}).get("device") or {}
        text = ", ".join(str(device[part]) for part in ("name", "threads") if device.get(part) is not None)
        seed = f" (seed {cell.seed})" if len(run.seeds) > 1 else ""
        rows.setdefault(text or "an unnamed machine", []).append(f"{cell.variant}{seed}")
    if len(rows) < 2:
        return ()
    said = "; ".join(f"{', '.join(names)}: {name}" for name, names in rows.items())
    return (f"Speeds and times are of different machines (name, threads), and cannot be compared across them: {said}",)


def unsteady(run: Run) -> tuple[str, ...]:
    """A sentence where the clock contradicts itself: one network, measured in several cells, at different speeds."""
    times: dict[tuple[object, object], dict[str, float]] = {}
    for cell, record in run.done():
        cost, latency = record.get("cost") or {}, (record.get("speed") or {}).get("latency_p50_ms")
        network = cost.get("parameters_M"), cost.get("forward_GFLOP")
        if latency and None not in network:
            seed = f" (seed {cell.seed})" if len(run.seeds) > 1 else ""
            times.setdefault(network, {})[f"{cell.variant}{seed}"] = latency
    worst = max(times.values(), key=lambda each: max(each.values()) / min(each.values()), default={})
    if not worst or max(worst.values()) <= STEADY * min(worst.values()):
        return ()
    fastest, slowest = min(worst, key=worst.__getitem__), max(worst, key=worst.__getitem__)
    return (
        f"Speeds and times are rough: {fastest} and {slowest} are networks of one size, and took "
        f"{worst[fastest]:.3g} and {worst[slowest]:.3g} ms an image; other work ran on the machine",
    )


def gradient_accumulation(run: Run) -> tuple[str, ...]:
    """A note if memory did not hold a training batch. Older versions call micro-batches pieces."""
    numerics = [record.get("numerics") or {} for _, record in run.done()]
    counts = {each.get("micro_batches", each.get("pieces", 1)) for each in numerics} - {1}
    if not counts:
        return ()
    number = " or ".join(map(str, sorted(counts)))
    return (f"Memory did not hold a training batch, so it was split into {number} micro-batches (all arms)",)


def common(values: pd.Series) -> int | None:
    """The whole number that all values are, None where there is none or they differ."""
    distinct = set(values.dropna())
    return int(distinct.pop()) if len(distinct) == 1 else None


def text_of(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(str(part) for part in value) if isinstance(value, (list, tuple)) else str(value)
