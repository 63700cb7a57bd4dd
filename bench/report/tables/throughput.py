"""The table of throughput and latency."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from bench.analysis.run_records import Run, sweep_frame
from bench.analysis.speeds import load_speeds
from bench.report.notes import (
    gradient_accumulation,
    machine_differences,
    measured_on,
    shared_networks,
    subject,
    timing_noise,
    unfinished_cells,
)
from bench.report.tables.columns import COLUMNS, LATENCY_COLUMNS
from bench.report.tables.entries import column_heading, metrics_by_variant
from bench.report.tables.formats import formatted, integer, three_digits
from bench.report.tables.typeset import Entry, Heading, Table, with_integers


def throughput_table(run: Run) -> Table:
    """Throughput and latency of every variant: measured in turns if the run has speed.json, otherwise in its cells."""
    speeds = load_speeds(run)
    return _of_cells(run) if speeds.empty else _in_turns(run, speeds)


def _in_turns(run: Run, speeds: pd.DataFrame) -> Table:
    """One row per variant. `frame`: that of `load_speeds`, with the variants of a network joined by " = "."""
    frame = speeds.assign(variants_of_network=[" = ".join(variants) for variants in speeds["variants_of_network"]])
    batches = sorted({int(batch) for batch in speeds["batch"].dropna()})
    batch = f"\nbatch {batches[0]}" if len(batches) == 1 else ""
    calls = speeds["latency_calls"].dropna()
    rows = [
        (
            Entry(str(row["variant"])),
            Entry(str(row["network"])),
            Entry(_with_interval(row, "images_per_second", "images_per_second", three_digits)),
            Entry(_with_interval(row, "ratio", "ratio", three_digits)),
            Entry(_with_interval(row, "latency_p50_ms", "latency", three_digits)),
            Entry(formatted(row["latency_p90_ms"], three_digits)),
            Entry(formatted(row["latency_p99_ms"], three_digits)),
            Entry(formatted(row["memory_MiB"], integer)),
            Entry(("busy" if row["busy"] else "quiet") if row["network"] else ""),
        )
        for _, row in speeds.iterrows()
    ]
    samples = f" ({int(calls.min())} calls)" if len(calls) else ""
    return Table(
        name="throughput",
        caption="Images per second from preprocessed tensors to final boxes, relative to the baseline's network, and "
        f"latency at batch size 1{samples}, with 95% intervals over interleaved rounds, on {subject(run)}. "
        f"{measured_on(run)}",
        frame=with_integers(frame, ("batch", "latency_calls", "n")),
        headings=(
            Heading(name="variant", text="variant", left=True),
            Heading(name="network", text="network", left=True),
            Heading(name="images_per_second", text=f"images/s{batch}", group="throughput"),
            Heading(name="ratio", text="relative to\nbaseline", group="throughput"),
            *(
                Heading(name=name, text=COLUMNS[name].header, group="latency")
                for name in ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms")
            ),
            Heading(name="memory_MiB", text="memory\nMiB"),
            Heading(name="busy", text="machine", left=True),
        ),
        rows=tuple(rows),
        notes=(*shared_networks(run), *_notes(run)),
    )


def _with_interval(row: pd.Series, name: str, bounds: str, show: Callable[[float], str]) -> str:
    """A figure with its interval, if it has one: "31.2 (30.5 to 31.9)"."""
    low, high = float(row[f"{bounds}_low"]), float(row[f"{bounds}_high"])
    text = formatted(row[name], show)
    return text if math.isnan(low) or low == high else f"{text} ({show(low)} to {show(high)})"


def _of_cells(run: Run) -> Table:
    """Images per second of every variant at every batch size, and its latency at batch size 1, as its cells measured.

    `frame` has one row per variant and batch size: variant, batch, seeds, images_per_second (mean over seeds, with
    ``_std`` if there are several), and `LATENCY_COLUMNS`, which are filled at batch size 1 only.
    """
    sweep = sweep_frame(run)
    latencies = metrics_by_variant(run, LATENCY_COLUMNS)
    batches = sorted(set(sweep["batch"]))
    several = len(run.seeds) > 1
    lines: list[dict[str, Any]] = []
    rows: list[tuple[Entry, ...]] = []
    for variant in run.variants:
        means = []
        for batch in batches:
            speeds = sweep[(sweep["variant"] == variant) & (sweep["batch"] == batch)]["images_per_second"].dropna()
            means.append(float(speeds.mean()) if len(speeds) else None)
            line = {"variant": variant, "batch": batch, "seeds": len(speeds), "images_per_second": means[-1]}
            if several:
                line["images_per_second_std"] = float(speeds.std(ddof=1)) if len(speeds) > 1 else None
            lines.append(
                line | {name: latencies.loc[variant, name] if batch == 1 else None for name in LATENCY_COLUMNS}
            )
        rows.append(
            (
                Entry(variant),
                *(Entry(formatted(mean, three_digits)) for mean in means),
                *(Entry(formatted(latencies.loc[variant, name], COLUMNS[name].show)) for name in LATENCY_COLUMNS),
            )
        )
    names = ["variant", "batch", "seeds", "images_per_second", *(["images_per_second_std"] if several else [])]
    return Table(
        name="throughput",
        caption="Images per second from preprocessed tensors to final boxes by batch size, and latency at batch size "
        f"1, on {subject(run)}. {measured_on(run)}",
        frame=pd.DataFrame(lines, columns=[*names, *LATENCY_COLUMNS], dtype=object),
        headings=(
            Heading(name="variant", text="variant", left=True),
            *(Heading(name=f"batch_{batch}", text=f"images/s\nbatch {batch}", group="sweep") for batch in batches),
            *(column_heading(COLUMNS[name]) for name in LATENCY_COLUMNS),
        ),
        rows=tuple(rows),
        notes=_notes(run),
    )


def _notes(run: Run) -> tuple[str, ...]:
    return (*unfinished_cells(run), *machine_differences(run), *timing_noise(run), *gradient_accumulation(run))
