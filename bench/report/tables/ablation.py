"""The tables of a run: ablation, per class, by size, throughput, environment.

`effects`, `conditions` and `errors` have more. In frames and CSV every AP is a fraction of 1 and in full
precision, in print it is in per cent; a figure that does not exist is empty in CSV and n/a in print, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.results import Analysis
from bench.analysis.run_records import Run, cells_frame, classes_frame, sweep_frame
from bench.data.subsets import SIZES
from bench.report.sentences import (
    common,
    machine,
    machines,
    pieces,
    samples,
    status,
    subject,
    text_of,
    unfinished,
    unsteady,
)
from bench.report.tables.columns import (
    AP_COLUMNS,
    COLUMNS,
    COST_COLUMNS,
    FURTHER_COLUMNS,
    per_cent,
    three_digits,
    whole,
)
from bench.report.tables.conditions import conditions, voc
from bench.report.tables.effects import effects_table
from bench.report.tables.entries import absent, best, entries, heading, printed, spread, summary
from bench.report.tables.error_costs import error_differences_table, errors_table
from bench.report.tables.typeset import CHECK, MISSING, Entry, Heading, Table, csv_text, latex_text, markdown_text
from bench.storage.atomic import write_text


def all_tables(analysis: Analysis) -> tuple[Table, ...]:
    """Every table of a run."""
    run = analysis.run
    return (
        ablation(run),
        effects_table(run, analysis.effects),
        errors_table(run, analysis.cell_errors, analysis.errors),
        error_differences_table(run, analysis.errors),
        per_class(run),
        sizes(run),
        conditions(run),
        voc(run),
        throughput(run),
        environment(run),
    )


def write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """Each table as CSV, Markdown and LaTeX in `folder`; the files, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        for ending, text in (
            ("csv", csv_text(table.frame)),
            ("md", markdown_text(table)),
            ("tex", latex_text(table)),
        ):
            path = folder / f"{table.name}.{ending}"
            write_text(path, text)
            written.append(path)
    return written


def ablation(run: Run) -> Table:
    """The answer of the run: a row per variant, in the order of the plan, whatever became of it.

    Columns of `frame`: variant, the axes (1 or 0), seeds (finished ones, which the figures are means of),
    `AP_COLUMNS` with ``_std`` beside each when the plan has several seeds, `COST_COLUMNS`, status
    ("done", "failed", "2 of 3 done", "pending"), `FURTHER_COLUMNS`.
    """
    figures = summary(run, (*AP_COLUMNS, *COST_COLUMNS, *FURTHER_COLUMNS))
    names = figures.columns.tolist()
    front = [name for name in names if name.removesuffix("_std") in (*AP_COLUMNS, *COST_COLUMNS)]
    rest = [name for name in names if name not in front]
    factors = {cell.variant: cell.factors for cell in run.cells}
    frame = figures[front].copy()
    for place, axis in enumerate(run.axes):
        frame.insert(place, axis, [int(factors.get(variant, {}).get(axis, False)) for variant in run.variants])
    frame.insert(len(run.axes), "seeds", [_finished(run, variant) for variant in run.variants])
    frame["status"] = [status(run, variant) for variant in run.variants]
    frame = pd.concat([frame, figures[rest]], axis=1).astype(object)

    counts = {size: common(figures[f"ground_truths_{size}"]) for size in SIZES}
    shown = [*AP_COLUMNS, *COST_COLUMNS]
    headings = [
        Heading(name="variant", text="variant", left=True),
        *(Heading(name=axis, text=axis, group="AP") for axis in run.axes),
        *(heading(COLUMNS[name], counts.get(name.removeprefix("AP_"))) for name in shown),
    ]
    marks = [[Entry(CHECK if on else "") for on in frame[axis]] for axis in run.axes]
    columns = [[Entry(name) for name in run.variants], *marks, *(entries(figures, name) for name in shown)]
    if run.baseline is not None and len(run.variants) > 1:
        at = 1 + len(run.axes) + 1
        headings.insert(at, Heading(name="AP_delta", text="ΔAP", group="AP"))
        columns.insert(at, [Entry(text) for text in _deltas(run)])
    return Table(
        name="ablation",
        caption=f"Ablation on {subject(run)}. AP in per cent (COCO, mean over IoU .50 to .95); small, medium and "
        "large in pixels of the original image, n ground truths each."
        + (f" ΔAP: percentage points above {run.baseline}, same seeds." if run.baseline else "")
        + " Speed: tensors to final boxes at the best batch; latency: at batch 1"
        + samples(figures)
        + ".",
        frame=frame.reset_index(names="variant"),
        headings=tuple(headings),
        rows=tuple(zip(*columns, strict=True)),
        notes=(*unfinished(run), *machines(run), *unsteady(run), *pieces(run)),
    )


def per_class(run: Run) -> Table:
    """AP of each class (rows) in each variant (columns), with the number of ground truths of the class."""
    classes = classes_frame(run)
    names = list(dict.fromkeys(classes["class"]))
    counts = classes.groupby("class", sort=False)["ground_truths"].agg(common)
    frame = pd.DataFrame(index=pd.Index(names, name="class"), dtype=object)
    frame["ground_truths"] = [_count_or_none(counts[name]) for name in names]
    for variant in run.variants:
        values = classes[classes["variant"] == variant].groupby("class")["AP"]
        frame[variant] = values.mean().reindex(names).astype(object)
        if len(run.seeds) > 1:
            frame[f"{variant}_std"] = values.std(ddof=1).reindex(names).astype(object)
    rows = [
        (
            Entry(name),
            Entry(printed(frame["ground_truths"][name], whole)),
            *best([spread(frame.loc[name], variant, per_cent) for variant in run.variants]),
        )
        for name in names
    ]
    return Table(
        name="per_class",
        caption=f"AP of each class in per cent (COCO, mean over IoU .50 to .95) on {subject(run)}; "
        "n: ground truths of the class. Bold: best of the class.",
        frame=frame.reset_index(),
        headings=(
            Heading(name="class", text="class", left=True),
            Heading(name="ground_truths", text="n"),
            *(Heading(name=name, text=name.replace("+", "\n+"), group=name) for name in run.variants),
        ),
        rows=tuple(rows),
        notes=unfinished(run),
        keys=2,
    )


def sizes(run: Run) -> Table:
    """AP by size of the object, in pixels of the original image and of the network's input; AR in the first."""
    accuracy = [f"AP_{size}{where}" for where in ("", "_network") for size in SIZES]
    recall = [f"AR_{size}" for size in SIZES]
    counts = [f"ground_truths_{size}{where}" for where in ("", "_network") for size in SIZES]
    figures = summary(run, (*accuracy, *recall, *counts))
    number = {name: common(figures[name]) for name in counts}
    headings = [Heading(name="variant", text="variant", left=True)]
    for name in (*accuracy, *recall):
        bucket = name.split("_", 1)[1]
        of_bucket = heading(COLUMNS[name], number[f"ground_truths_{bucket}"])
        where = "network" if name.endswith("_network") else "original"
        headings.append(Heading(name=name, text=f"{where}\n{of_bucket.text}", group=of_bucket.group))
    columns = [
        [Entry(name) for name in run.variants],
        *(entries(figures, name) for name in (*accuracy, *recall)),
    ]
    return Table(
        name="sizes",
        caption=f"AP and recall by size of the object on {subject(run)}, in per cent. Small: less than 32 × 32 pixels, "
        "large: more than 96 × 96, in pixels of the original image and of the network's input. AR100: recall at "
        "100 detections per image and class. n: ground truths.",
        frame=figures.reset_index(names="variant"),
        headings=tuple(headings),
        rows=tuple(zip(*columns, strict=True)),
        notes=unfinished(run),
    )


def throughput(run: Run) -> Table:
    """The speed sweep: images per second of every variant at every batch size, and its latencies.

    `frame` has a row per variant and batch: variant, batch, seeds, images_per_second (mean of the seeds,
    its ``_std`` with several), latency_p50_ms, latency_p90_ms, latency_p99_ms, latency_samples; the
    latencies are those of batch 1 and stand in that row.
    """
    sweep = sweep_frame(run)
    latencies = ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "latency_samples")
    figures = summary(run, latencies)
    batches = sorted(set(sweep["batch"]))
    several = len(run.seeds) > 1
    lines: list[dict[str, Any]] = []
    body: list[list[Entry]] = []
    for variant in run.variants:
        row = [Entry(variant)]
        for batch in batches:
            speeds = sweep[(sweep["variant"] == variant) & (sweep["batch"] == batch)]["images_per_second"].dropna()
            mean = float(speeds.mean()) if len(speeds) else None
            line = {"variant": variant, "batch": batch, "seeds": len(speeds), "images_per_second": mean}
            if several:
                line["images_per_second_std"] = float(speeds.std(ddof=1)) if len(speeds) > 1 else None
            line |= {name: figures.loc[variant, name] if batch == 1 else None for name in latencies}
            lines.append(line)
            row.append(Entry(printed(mean, three_digits)))
        row += [Entry(printed(figures.loc[variant, name], COLUMNS[name].show)) for name in latencies]
        body.append(row)
    names = [
        "variant",
        "batch",
        "seeds",
        "images_per_second",
        *(["images_per_second_std"] if several else []),
    ]
    return Table(
        name="throughput",
        caption=f"Images per second from tensors to final boxes by batch size, and latency at batch 1, on "
        f"{subject(run)}. {machine(run)}",
        frame=pd.DataFrame(lines, columns=[*names, *latencies], dtype=object),
        headings=(
            Heading(name="variant", text="variant", left=True),
            *(Heading(name=f"batch_{batch}", text=f"images/s\nbatch {batch}", group="sweep") for batch in batches),
            *(heading(COLUMNS[name]) for name in latencies),
        ),
        rows=tuple(tuple(row) for row in body),
        notes=(*unfinished(run), *machines(run), *unsteady(run), *pieces(run)),
    )


def environment(run: Run) -> Table:
    """Name and value of what the run was: plan, device, software. Values that differ between cells are all given."""
    found: dict[str, list[str]] = {}
    for name in ("data", "backbone", "profile", "axes", "seeds"):
        found[name] = [text_of(run.plan.get(name))]
    for record in run.records.values():
        parts = dict(record.get("environment") or {})
        parts |= {name: (record.get("speed") or {}).get(name) for name in ("device", "threads", "precision")}
        for name, text in flat(parts):
            values = found.setdefault(name, [])
            if text not in values:
                values.append(text)
    lines = [(name, "; ".join(values)) for name, values in found.items() if any(values)]
    return Table(
        name="environment",
        caption=f"What the figures were made with: {subject(run)}.",
        frame=pd.DataFrame(lines, columns=["name", "value"], dtype=object),
        headings=(
            Heading(name="name", text="name", left=True),
            Heading(name="value", text="value", left=True),
        ),
        rows=tuple((Entry(name), Entry(value)) for name, value in lines),
    )


def _deltas(run: Run) -> list[str]:
    """Percentage points of AP above the baseline, over the seeds that are done in both."""
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


def _finished(run: Run, variant: str) -> int:
    return sum(cell.variant == variant and run.status(cell) == "done" for cell in run.cells)


def _count_or_none(value: Any) -> int | None:
    return None if absent(value) else int(value)


def flat(content: Mapping[str, Any], place: str = "") -> list[tuple[str, str]]:
    """Leaves of nested content as text, by their dotted places; what is None is left out."""
    lines = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            lines += flat(value, f"{place}{name}.")
        elif value is not None:
            lines.append((f"{place}{name}", text_of(value)))
    return lines
