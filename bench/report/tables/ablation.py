"""The ablation table: the main result of a run."""

from __future__ import annotations

import math

import pandas as pd

from bench.analysis.run_records import Run, cells_frame
from bench.data.subsets import SIZES
from bench.report.notes import (
    common_value,
    gradient_accumulation,
    latency_samples,
    machine_differences,
    status,
    subject,
    timing_noise,
    unfinished_cells,
)
from bench.report.tables.columns import AP_COLUMNS, COLUMNS, COST_COLUMNS, FURTHER_COLUMNS
from bench.report.tables.entries import column_entries, column_heading, metrics_by_variant
from bench.report.tables.formats import MISSING
from bench.report.tables.typeset import CHECK, Entry, Heading, Table


def ablation_table(run: Run) -> Table:
    """One row per variant in plan order, whatever its status.

    Columns of `frame`: variant, the axes (1 or 0), seeds (number of finished seeds that are averaged), `AP_COLUMNS`
    with ``_std`` after each if the plan has several seeds, `COST_COLUMNS`, status ("done", "failed", "2 of 3 done",
    "pending"), `FURTHER_COLUMNS`. AP is a fraction of 1 in the frame and a percentage in print.
    """
    metrics = metrics_by_variant(run, (*AP_COLUMNS, *COST_COLUMNS, *FURTHER_COLUMNS))
    shown = [*AP_COLUMNS, *COST_COLUMNS]
    counts = {f"AP_{size}": common_value(metrics[f"ground_truths_{size}"]) for size in SIZES}
    frame = _frame(run, metrics)
    headings = [
        Heading(name="variant", text="variant", left=True),
        *(Heading(name=axis, text=axis, group="AP") for axis in run.axes),
        *(column_heading(COLUMNS[name], counts.get(name)) for name in shown),
    ]
    marks = [[Entry(CHECK if on else "") for on in frame[axis]] for axis in run.axes]
    columns = [[Entry(name) for name in run.variants], *marks, *(column_entries(metrics, name) for name in shown)]
    if run.baseline is not None and len(run.variants) > 1:
        after_ap = 1 + len(run.axes) + 1
        headings.insert(after_ap, Heading(name="AP_delta", text="ΔAP", group="AP"))
        columns.insert(after_ap, [Entry(text) for text in _deltas(run)])
    delta = f" ΔAP: difference from {run.baseline} in percentage points, same seeds." if run.baseline else ""
    return Table(
        name="ablation",
        caption=f"Ablation on {subject(run)}. AP in percent (COCO, mean over IoU .50 to .95); small, medium and large "
        f"in pixels of the original image, n ground truths each.{delta} Speed: preprocessed tensors to final boxes at "
        f"the best batch size; latency: at batch size 1{latency_samples(metrics)}.",
        frame=frame.reset_index(names="variant"),
        headings=tuple(headings),
        rows=tuple(zip(*columns, strict=True)),
        notes=(*unfinished_cells(run), *machine_differences(run), *timing_noise(run), *gradient_accumulation(run)),
    )


def _frame(run: Run, metrics: pd.DataFrame) -> pd.DataFrame:
    names = metrics.columns.tolist()
    front = [name for name in names if name.removesuffix("_std") in (*AP_COLUMNS, *COST_COLUMNS)]
    factors = {cell.variant: cell.factors for cell in run.cells}
    done = [cell.variant for cell, _ in run.done()]
    frame = metrics[front].copy()
    for place, axis in enumerate(run.axes):
        frame.insert(place, axis, [int(factors.get(variant, {}).get(axis, False)) for variant in run.variants])
    frame.insert(len(run.axes), "seeds", [done.count(variant) for variant in run.variants])
    frame["status"] = [status(run, variant) for variant in run.variants]
    return pd.concat([frame, metrics[[name for name in names if name not in front]]], axis=1).astype(object)


def _deltas(run: Run) -> list[str]:
    """Differences of AP to the baseline in percentage points, over the seeds that both have finished."""
    cells = cells_frame(run)
    if "accuracy.AP" not in cells:
        return [MISSING] * len(run.variants)
    by_seed = cells.pivot_table(index="seed", columns="variant", values="accuracy.AP")
    texts = []
    for variant in run.variants:
        if variant == run.baseline:
            texts.append("")
        elif variant in by_seed and run.baseline in by_seed:
            difference = (by_seed[variant] - by_seed[run.baseline]).mean()
            texts.append(MISSING if math.isnan(difference) else f"{100 * difference:+.1f}".replace("-", "−"))
        else:
            texts.append(MISSING)
    return texts
