"""The ablation table: the main result of a run."""

from __future__ import annotations

import pandas as pd

from bench.analysis.factorial import VERSUS
from bench.analysis.results import Analysis
from bench.analysis.run_records import Run
from bench.analysis.speeds import load_speeds, with_speeds_in_turns
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
from bench.report.tables.formats import MISSING, formatted, is_missing, points
from bench.report.tables.typeset import CHECK, Entry, Heading, Table

DIFFERENCE = ("AP_difference", "AP_difference_low", "AP_difference_high")


def ablation_table(analysis: Analysis) -> Table:
    """One row per variant in plan order, whatever its status.

    Columns of `frame`: variant, the axes (1 or 0), seeds (number of finished seeds that are averaged), `AP_COLUMNS`
    with ``_std`` after each if the plan has several seeds, `COST_COLUMNS`, status ("done", "failed", "2 of 3 done",
    "pending"), `FURTHER_COLUMNS`, `DIFFERENCE` (AP minus the baseline's, and the 95% interval that holds for all arms
    together). AP is a fraction of 1 in the frame and a percentage in print.
    """
    run = analysis.run
    metrics = metrics_by_variant(run, (*AP_COLUMNS, *COST_COLUMNS, *FURTHER_COLUMNS))
    metrics = with_speeds_in_turns(metrics, load_speeds(run))
    shown = [*AP_COLUMNS, *COST_COLUMNS]
    counts = {f"AP_{size}": common_value(metrics[f"ground_truths_{size}"]) for size in SIZES}
    frame = pd.concat([_frame(run, metrics), _differences(analysis)], axis=1).astype(object)
    frame = frame.where(frame.notna(), None)
    headings = [
        Heading(name="variant", text="variant", left=True),
        *(Heading(name=axis, text=axis, group="AP") for axis in run.axes),
        *(column_heading(COLUMNS[name], counts.get(name)) for name in shown),
    ]
    marks = [[Entry(CHECK if on else "") for on in frame[axis]] for axis in run.axes]
    columns = [[Entry(name) for name in run.variants], *marks]
    columns += [column_entries(metrics, name, analysis.effects) for name in shown]
    if run.baseline is not None and len(run.variants) > 1:
        after_ap = 1 + len(run.axes) + 1
        headings.insert(after_ap, Heading(name="AP_difference", text="ΔAP", group="AP"))
        columns.insert(after_ap, [_difference(row, baseline=name == run.baseline) for name, row in frame.iterrows()])
        headings.insert(after_ap + 1, Heading(name="AP_difference_low", text="95%\ninterval", group="AP"))
        columns.insert(after_ap + 1, [_interval(row) for _, row in frame.iterrows()])
    delta = (
        f" ΔAP: difference from {run.baseline} in percentage points, with 95% intervals that hold for all arms "
        "together. Bold: clearly above the baseline."
        if run.baseline is not None and len(run.variants) > 1
        else ""
    )
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


def _differences(analysis: Analysis) -> pd.DataFrame:
    """`DIFFERENCE` by variant."""
    effects = analysis.effects
    rows = effects[(effects["measure"] == "AP") & (effects["class"] == "") & effects["kind"].isin(("arm", "control"))]
    rows = rows.assign(variant=[str(contrast).split(VERSUS)[0] for contrast in rows["contrast"]]).set_index("variant")
    frame = rows[["effect", "low", "high"]].reindex(analysis.run.variants)
    return frame.set_axis(list(DIFFERENCE), axis=1)


def _difference(row: pd.Series, *, baseline: bool) -> Entry:
    return Entry("" if baseline else formatted(row["AP_difference"], points))


def _interval(row: pd.Series) -> Entry:
    low, high = row["AP_difference_low"], row["AP_difference_high"]
    if is_missing(row["AP_difference"]):
        return Entry("")
    return Entry(MISSING if is_missing(low) else f"{points(low)} to {points(high)}")
