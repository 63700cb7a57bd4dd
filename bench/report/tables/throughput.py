"""The table of throughput by batch size, and latency."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.analysis.run_records import Run, sweep_frame
from bench.report.notes import (
    gradient_accumulation,
    machine_differences,
    measured_on,
    subject,
    timing_noise,
    unfinished_cells,
)
from bench.report.tables.columns import COLUMNS, LATENCY_COLUMNS
from bench.report.tables.entries import column_heading, metrics_by_variant
from bench.report.tables.formats import formatted, three_digits
from bench.report.tables.typeset import Entry, Heading, Table


def throughput_table(run: Run) -> Table:
    """Images per second of every variant at every batch size, and its latency at batch size 1.

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
        notes=(*unfinished_cells(run), *machine_differences(run), *timing_noise(run), *gradient_accumulation(run)),
    )
