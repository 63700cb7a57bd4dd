"""The tables of a run: ablation, per class, by size, throughput, environment.

What a column is called, where its figure stands in the record, and how it is printed is said once, in
`COLUMNS`. In frames and CSV every AP is a fraction of 1 and in full precision, in print it is in per
cent; a figure that does not exist is empty in CSV and n/a in print, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from bench.analysis.frame import Run, cells_frame, classes_frame, sweep_frame
from bench.report.typeset import CHECK, MISSING, Entry, Heading, Table, csv_text, latex_text, markdown_text


def per_cent(value: float) -> str:
    return f"{100 * value:.1f}"


def whole(value: float) -> str:
    return f"{value:.0f}"


def three_digits(value: float) -> str:
    """Three significant digits, and all those before the point: 0.123, 12.3, 12345."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure of the record as a column of tables.

    name: in CSV. path: in the record. header: in print, lines divided by line feeds, the unit last.
    over_seeds: the mean of the finished seeds, the value that is common to them (none if they differ),
        or the least of them.
    spread: with more than one seed, the sample standard deviation (ddof 1) stands beside the mean.
    group: columns of one group are kept together where a page is narrow.
    """

    name: str
    path: str
    header: str
    show: Callable[[float], str]
    over_seeds: Literal["mean", "common", "least"] = "mean"
    spread: bool = False
    group: str = ""


SIZES = ("small", "medium", "large")


def _accuracy(name: str, header: str, group: str) -> Column:
    return Column(name=name, path=f"accuracy.{name}", header=header, show=per_cent, spread=True, group=group)


def _count(bucket: str) -> Column:
    return Column(
        name=f"ground_truths_{bucket}",
        path=f"accuracy.ground_truths.{bucket}",
        header=f"objects\n{bucket}",
        show=whole,
        over_seeds="common",
    )


def _measured(path: str, header: str, group: str = "cost") -> Column:
    return Column(name=path.rsplit(".", maxsplit=1)[-1], path=path, header=header, show=three_digits, group=group)


_ALL = (
    _accuracy("AP", "AP", "AP"),
    _accuracy("AP50", "AP50", "AP"),
    _accuracy("AP75", "AP75", "AP"),
    *(_accuracy(f"AP_{size}", f"AP\n{size}", "size") for size in SIZES),
    *(_accuracy(f"AP_{size}_network", f"AP\n{size}", "network size") for size in SIZES),
    *(_accuracy(f"AR_{size}", f"AR100\n{size}", "recall") for size in SIZES),
    *(_count(bucket) for size in SIZES for bucket in (size, f"{size}_network")),
    _count("all"),
    _measured("speed.images_per_second", "speed\nimages/s"),
    _measured("speed.latency_p50_ms", "latency\np50 ms"),
    _measured("speed.latency_p90_ms", "latency\np90 ms"),
    _measured("speed.latency_p99_ms", "latency\np99 ms"),
    Column(
        name="latency_samples",
        path="speed.latency_samples",
        header="latency\nsamples",
        show=whole,
        over_seeds="least",
        group="cost",
    ),
    Column(
        name="best_batch",
        path="speed.best_batch",
        header="best\nbatch",
        show=whole,
        over_seeds="common",
        group="cost",
    ),
    _measured("cost.parameters_M", "params\nM"),
    _measured("cost.forward_GFLOP", "forward\nGFLOP"),
    Column(name="train_seconds", path="cost.train_seconds", header="train\ns", show=whole, group="cost"),
    _measured("cost.step_seconds_median", "step\ns"),
    Column(name="peak_memory_MiB", path="cost.peak_memory_MiB", header="memory\nMiB", show=whole, group="cost"),
)
COLUMNS: Mapping[str, Column] = {column.name: column for column in _ALL}

AP_COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
COST_COLUMNS = (
    "images_per_second",
    "latency_p50_ms",
    "latency_p99_ms",
    "parameters_M",
    "forward_GFLOP",
    "train_seconds",
)
FURTHER_COLUMNS = (
    *(f"ground_truths_{bucket}" for bucket in (*SIZES, "all")),
    "latency_samples",
    *(f"AP_{size}_network" for size in SIZES),
    "peak_memory_MiB",
    "best_batch",
    "step_seconds_median",
    *(f"ground_truths_{size}_network" for size in SIZES),
)


def write_tables(run: Run) -> list[Path]:
    """Every table as CSV, Markdown and LaTeX in the run's folder ``tables``; the files, in order."""
    folder = run.folder / "tables"
    folder.mkdir(exist_ok=True)
    written = []
    for table in (ablation(run), per_class(run), sizes(run), throughput(run), environment(run)):
        for ending, text in (
            ("csv", csv_text(table.frame)),
            ("md", markdown_text(table)),
            ("tex", latex_text(table)),
        ):
            path = folder / f"{table.name}.{ending}"
            path.write_text(text, encoding="utf-8")
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

    counts = {size: _common(figures[f"ground_truths_{size}"]) for size in SIZES}
    printed = [*AP_COLUMNS, *COST_COLUMNS]
    headings = [
        Heading(name="variant", text="variant", left=True),
        *(Heading(name=axis, text=axis, group="AP") for axis in run.axes),
        *(_heading(COLUMNS[name], counts.get(name.removeprefix("AP_"))) for name in printed),
    ]
    marks = [[Entry(CHECK if on else "") for on in frame[axis]] for axis in run.axes]
    columns = [[Entry(name) for name in run.variants], *marks, *(entries(figures, name) for name in printed)]
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
        + _samples(figures)
        + ".",
        frame=frame.reset_index(names="variant"),
        headings=tuple(headings),
        rows=tuple(zip(*columns, strict=True)),
        notes=unfinished(run),
    )


def per_class(run: Run) -> Table:
    """AP of each class (rows) in each variant (columns), with the number of ground truths of the class."""
    classes = classes_frame(run)
    names = list(dict.fromkeys(classes["class"]))
    counts = classes.groupby("class", sort=False)["ground_truths"].agg(_common)
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
            Entry(_printed(frame["ground_truths"][name], whole)),
            *best([_spread(frame.loc[name], variant, per_cent) for variant in run.variants]),
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
    number = {name: _common(figures[name]) for name in counts}
    headings = [Heading(name="variant", text="variant", left=True)]
    for name in (*accuracy, *recall):
        bucket = name.split("_", 1)[1]
        heading = _heading(COLUMNS[name], number[f"ground_truths_{bucket}"])
        where = "network" if name.endswith("_network") else "original"
        headings.append(Heading(name=name, text=f"{where}\n{heading.text}", group=heading.group))
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
    printed: list[list[Entry]] = []
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
            row.append(Entry(_printed(mean, three_digits)))
        row += [Entry(_printed(figures.loc[variant, name], COLUMNS[name].show)) for name in latencies]
        printed.append(row)
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
        f"{subject(run)}. {_machine(run)}",
        frame=pd.DataFrame(lines, columns=[*names, *latencies], dtype=object),
        headings=(
            Heading(name="variant", text="variant", left=True),
            *(Heading(name=f"batch_{batch}", text=f"images/s\nbatch {batch}", group="sweep") for batch in batches),
            *(_heading(COLUMNS[name]) for name in latencies),
        ),
        rows=tuple(tuple(row) for row in printed),
        notes=unfinished(run),
    )


def environment(run: Run) -> Table:
    """Name and value of what the run was: plan, device, software. Values that differ between cells are all given."""
    found: dict[str, list[str]] = {}
    for name in ("data", "backbone", "profile", "axes", "seeds"):
        found[name] = [_text(run.plan.get(name))]
    for record in run.records.values():
        parts = dict(record.get("environment") or {})
        parts |= {name: (record.get("speed") or {}).get(name) for name in ("device", "threads", "precision")}
        for name, text in _flat(parts):
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


def summary(run: Run, names: Sequence[str]) -> pd.DataFrame:
    """Figures of `COLUMNS` by variant (index, order of the plan) over the finished seeds; None where there is none.

    Columns: `names`, each that has a spread followed by its ``_std`` when the plan has several seeds.
    """
    cells = cells_frame(run)
    table: dict[str, list[Any]] = {}
    for name in names:
        column = COLUMNS[name]
        values = cells[column.path] if column.path in cells else pd.Series(math.nan, index=cells.index)
        by_variant = [values[cells["variant"] == variant].dropna() for variant in run.variants]
        if column.over_seeds == "mean":
            table[name] = [float(seeds.mean()) if len(seeds) else None for seeds in by_variant]
        elif column.over_seeds == "common":
            table[name] = [_common(seeds) for seeds in by_variant]
        else:
            table[name] = [int(seeds.min()) if len(seeds) else None for seeds in by_variant]
        if column.spread and len(run.seeds) > 1:
            table[f"{name}_std"] = [float(seeds.std(ddof=1)) if len(seeds) > 1 else None for seeds in by_variant]
    return pd.DataFrame(table, index=pd.Index(run.variants, dtype=object), dtype=object)


def status(run: Run, variant: str) -> str:
    """ "done", "failed", "pending", or how many of the variant's seeds are done."""
    states = [run.status(cell) for cell in run.cells if cell.variant == variant]
    if len(set(states)) == 1:
        return states[0]
    return f"{states.count('done')} of {len(states)} done" if states else "pending"


def subject(run: Run) -> str:
    """What the figures are about, for captions: data, backbone, profile, validation images, seeds."""
    images = [(record.get("accuracy") or {}).get("images") for _, record in run.done()]
    count = _common(pd.Series([number for number in images if number is not None], dtype=float))
    data, backbone, profile = (_text(run.plan.get(name)) for name in ("data", "backbone", "profile"))
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


def entries(figures: pd.DataFrame, name: str) -> list[Entry]:
    """The printed column of a figure, best AP in bold."""
    column = COLUMNS[name]
    texts = [_spread(row, name, column.show) for _, row in figures.iterrows()]
    return best(texts) if column.spread else [Entry(text) for text in texts]


def best(texts: Sequence[str]) -> list[Entry]:
    """Entries with the highest figure marked, and all that print the same; nothing where there is no choice."""
    values = [float(text.split()[0]) if text != MISSING else -math.inf for text in texts]
    top = max(values, default=-math.inf)
    choice = len(set(values)) > 1 and sum(math.isfinite(value) for value in values) > 1
    return [Entry(text, best=choice and value == top) for text, value in zip(texts, values, strict=True)]


def _heading(column: Column, ground_truths: int | None = None) -> Heading:
    count = "" if ground_truths is None else f"\nn={ground_truths}"
    return Heading(name=column.name, text=column.header + count, group=column.group)


def _spread(row: pd.Series, name: str, show: Callable[[float], str]) -> str:
    text = _printed(row[name], show)
    deviation = row.get(f"{name}_std")
    return text if _absent(deviation) else f"{text} ± {_printed(deviation, show)}"


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


def _samples(figures: pd.DataFrame) -> str:
    counts = figures["latency_samples"].dropna()
    if not len(counts):
        return ""
    low, high = min(counts), max(counts)
    return f", {low} samples" if low == high else f", {low} to {high} samples"


def _machine(run: Run) -> str:
    """Device, threads and precision of the speed measurements, as a sentence."""
    found = []
    for _, record in run.done():
        speed = record.get("speed") or {}
        text = ", ".join(
            part
            for part in (
                _text(speed.get("device")),
                f"{speed['threads']} threads" if speed.get("threads") else "",
                _text(speed.get("precision")),
            )
            if part
        )
        if text and text not in found:
            found.append(text)
    return f"Measured on {'; '.join(found)}." if found else ""


def _common(values: pd.Series) -> int | None:
    """The whole number that all values are, None where there is none or they differ."""
    distinct = set(values.dropna())
    return int(distinct.pop()) if len(distinct) == 1 else None


def _count_or_none(value: Any) -> int | None:
    return None if _absent(value) else int(value)


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _printed(value: Any, show: Callable[[float], str]) -> str:
    return MISSING if _absent(value) else show(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(str(part) for part in value) if isinstance(value, (list, tuple)) else str(value)


def _flat(content: Mapping[str, Any], place: str = "") -> list[tuple[str, str]]:
    lines = []
    for name, value in content.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{place}{name}.")
        elif value is not None:
            lines.append((f"{place}{name}", _text(value)))
    return lines
