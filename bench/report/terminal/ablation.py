"""The ablation table in the terminal, with the failed and pending cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from bench.analysis.run_records import Run
from bench.data.subsets import SIZES
from bench.report.notes import one_line, status, subject
from bench.report.tables.ablation import DIFFERENCE
from bench.report.tables.columns import AP_COLUMNS
from bench.report.tables.typeset import Table
from bench.report.terminal.tables import alignment, rich_table, style
from bench.storage.run_folder import LOG, RECORD

COST_COLUMNS = ("images_per_second", "latency_p50_ms", "parameters_M", "forward_GFLOP", "train_seconds")
SHORT_HEADINGS = {
    "AP_small": "S",
    "AP_medium": "M",
    "AP_large": "L",
    "images_per_second": "img/s",
    "latency_p50_ms": "p50\nms",
    "parameters_M": "params\nM",
    "forward_GFLOP": "GFLOP",
    "train_seconds": "train\ns",
}


def print_ablation(run: Run, table: Table, console: Console) -> None:
    """Print the ablation table of a run (AP in percent), then the cause and log folder of every failed cell.

    If the console is too narrow for one table, speed and cost go into a second one. If that is still too wide, variant
    names break at their plus signs.
    """
    deltas = [heading.name for heading in table.headings if heading.name == DIFFERENCE[0]]
    accuracy = ["variant", *run.axes, AP_COLUMNS[0], *deltas, *AP_COLUMNS[1:]]
    console.print(Text(f"\n{subject(run)}; AP in percent"))
    # From the widest layout to the narrowest; the last one is used if none fits.
    layouts = (
        [_ablation_part(table, run, names, gap=gap, broken=broken) for names in parts]
        for parts, gap, broken in (
            ([[*accuracy, *COST_COLUMNS]], 2, False),
            ([[*accuracy, *COST_COLUMNS]], 1, False),
            ([accuracy, ["variant", *COST_COLUMNS]], 2, False),
            ([accuracy, ["variant", *COST_COLUMNS]], 1, False),
            ([accuracy, ["variant", *COST_COLUMNS]], 1, True),
        )
    )
    for layout in layouts:
        if all(_width(part, console) <= console.width for part in layout):
            break
    for part in layout:
        console.print(part)
        console.print()
    console.print(Text(_counts(table), style="dim"))
    _print_unfinished(run, console)


def _print_unfinished(run: Run, console: Console) -> None:
    for cell, failure in run.failures():
        step = "" if failure.get("step") is None else f" at step {failure['step']}"
        line = Text.assemble(("failed ", "bold red"), (f"{cell.variant}, seed {cell.seed}{step}: ", "bold"))
        console.print(line.append(one_line(failure.get("cause"), 400)))
        console.print(Text(f"       see {run.folder_of(cell.id)}", style="dim"), soft_wrap=True)
        for name, content in ((RECORD, "traceback and last log lines"), (LOG, "loss of each step")):
            if (run.folder_of(cell.id) / name).is_file():
                console.print(Text(f"           {name}: {content}", style="dim"))
    pending = [cell for cell in run.cells if run.status(cell) == "pending"]
    if pending:
        names = ", ".join(dict.fromkeys(cell.variant for cell in pending))
        console.print(Text(f"pending {len(pending)} of {len(run.cells)} cells: {names}", style="yellow"))


def _ablation_part(table: Table, run: Run, names: Sequence[str], *, gap: int, broken: bool) -> RichTable:
    """Some columns of the ablation table, `gap` apart; the standard deviation over seeds is below its mean."""
    places = {heading.name: place for place, heading in enumerate(table.headings)}
    part = rich_table(gap=gap)
    short_axes = _short(run.axes) if len(names) > 1 + len(run.axes) + len(AP_COLUMNS) + 1 else {}
    for name in names:
        heading = table.headings[places[name]]
        text = SHORT_HEADINGS.get(name) or short_axes.get(name) or heading.text
        justify: Literal["left", "center", "right"] = "center" if name in run.axes else alignment(heading)
        part.add_column(Text(text), justify=justify, no_wrap=not broken, vertical="top")
    for row, variant in zip(table.rows, run.variants, strict=True):
        texts = []
        for name in names:
            entry = row[places[name]]
            if name == "variant":
                failed = status(run, variant) == "failed"
                texts.append(Text(entry.text.replace("+", "+\n") if broken else entry.text, "red" if failed else ""))
            else:
                texts.append(Text(entry.text.replace(" ± ", "\n±"), style(entry)))
        part.add_row(*texts)
    return part


def _width(table: RichTable, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=1000), table).maximum


def _short(axes: Sequence[str]) -> dict[str, str]:
    """Axis names cut to four letters, if they remain distinct."""
    short = {axis: axis[:4] for axis in axes}
    return short if len(set(short.values())) == len(short) else {}


def _counts(table: Table) -> str:
    parts = []
    for size in SIZES:
        counts = table.frame[f"ground_truths_{size}"].dropna()
        if len(counts):
            parts.append(f"{size[0].upper()} {size} n={counts.iloc[0]}")
    return f"Ground truths by size: {', '.join(parts)}" if parts else "No cell has finished yet"
