"""report.html: the whole report as one self-contained file without network access.

The verdict comes first, then the tables and plots, the failed cells, and the provenance of the run. The template is
``page.html.j2``; it escapes all values.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.analysis.run_records import Run
from bench.report.citations import CitedValue, Command, Part, Sentence
from bench.report.next_step import command
from bench.report.notes import subject
from bench.report.page.examples import IOU, SCORE, examples
from bench.report.tables.environment import flatten
from bench.report.tables.typeset import Entry, Heading, Table
from bench.storage.atomic import write_text
from bench.storage.reading import read_file
from bench.storage.records import read_json
from bench.storage.run_folder import ENVIRONMENT, PAGE, PLOTS

# Plots by the table above them, with their alternative text.
TABLE_PLOTS = {
    "ablation": (
        ("ap_by_variant", "AP of every variant as points on one axis; values in the ablation table."),
        ("ap_against_throughput", "AP of every variant over its images per second; values in the ablation table."),
    ),
    "effects": (
        ("effects", "The effect of every axis on AP with its 95% interval; values in the table of effects."),
        ("interactions", "Mean AP with each axis off and on, for a second axis off and on; one panel per pair."),
    ),
    "budget": (
        ("budget", "AP and the cost of each kind of error as one bar of 100 points per variant; values in the table."),
    ),
    "errors": (
        ("errors", "Cost of each error type in AP50 for every variant; values in the table of errors."),
        ("ap_against_iou", "AP of every variant at each IoU threshold."),
        ("precision_recall", "Precision over recall of every variant at an IoU of .5."),
        ("calibration", "Precision over score of every variant."),
        ("confusion", "Predicted class over ground-truth class, for the baseline and the best variant."),
    ),
    "sizes": (
        ("ap_by_size", "AP of every variant for small, medium and large objects; values in the table of sizes."),
    ),
    "lengths": (("lengths", "AP of every variant, and its difference from the baseline, after each length."),),
    "learning_curves": (("learning_curves", "Training loss of every variant over the steps."),),
    "priors": (("priors_over_ground_truths", "Prior shapes over ground-truth shapes, by variant."),),
}
MAX_SVG = 400_000  # bytes; larger plots are smaller and faster as PNG
MAX_ROWS = 12  # longer tables are collapsed


def write_page(run: Run, verdict: Sequence[Sentence], tables: Sequence[Table]) -> Path:
    """Write ``report.html`` to the run's folder from `tables` and the files in its folder ``plots``.

    Tables are placed by name. Missing tables and plots are skipped.
    """
    return render_page(
        run.folder,
        "page.html.j2",
        verdict,
        tables,
        TABLE_PLOTS,
        subject=subject(run),
        title=f"Ablation of SSD-300 on {run.plan.get('data') or 'unnamed data'}",
        examples=examples(run),
        example_score=SCORE,
        example_iou=IOU,
        failures=[
            {
                "title": f"{cell.variant}, seed {cell.seed}",
                "cause": str(failure.get("cause") or "no cause was recorded"),
                "step": failure.get("step"),
                "traceback": str(failure.get("traceback") or ""),
                "log": "\n".join(str(line) for line in failure.get("log_tail") or ()),
            }
            for cell, failure in run.failures()
        ],
        pending=[f"{cell.variant}, seed {cell.seed}" for cell in run.cells if run.status(cell) == "pending"],
        command=shlex.join(["python", "run_all.py", *command(run, out=None)]),
        made_with=[*_plan_lines(run), *_environment_lines(run)],
        cells=[
            (cell.variant, cell.seed, cell.id, run.status(cell), run.records.get(cell.id, {}).get("finished") or "")
            for cell in run.cells
        ],
    )


def render_page(
    folder: Path,
    template: str,
    verdict: Sequence[Sentence],
    tables: Sequence[Table],
    plots: Mapping[str, Sequence[tuple[str, str]]],
    **content: Any,
) -> Path:
    """Write ``report.html`` to `folder` from `tables` and the files in its folder ``plots``.

    template: in the folder of this module. plots: names and alternative texts by the table above them, or by the name
    of a section; missing files are skipped. content: what else the template shows.
    """
    cited = {_anchor(each.table, each.row, each.column) for sentence in verdict for each in sentence.citations}
    anchors = {_anchor_of(table, row, heading) for table in tables for row in table.rows for heading in table.headings}
    anchors = cited & anchors | {table.name for table in tables}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(
        verdict=[[_part(part, anchors) for part in sentence.parts] for sentence in verdict],
        anchor_of=_anchor_of,
        anchors=anchors,
        tables={table.name: table for table in tables},
        plots={
            place: [plot for name, alt in named if (plot := _plot(folder / PLOTS, name, alt)) is not None]
            for place, named in plots.items()
        },
        max_rows=MAX_ROWS,
        **content,
    )
    path = folder / PAGE
    write_text(path, text)
    return path


def _anchor_of(table: Table, row: Sequence[Entry], heading: Heading) -> str:
    """The id of a cell of a printed table."""
    return _anchor(table.name, ", ".join(entry.text for entry in row[: table.keys]), heading.name)


def _anchor(table: str, row: str, column: str) -> str:
    # Printed metrics have spaces for underscores, and an id must not have spaces.
    return "/".join(text.replace("_", "-").replace(" ", "-") for text in (table, row, column))


def _part(part: Part, anchors: Set[str]) -> Mapping[str, str]:
    """Text and kind of a sentence part; for a cited value its source, and the cell or table that the page links to."""
    if isinstance(part, str):
        return {"kind": "words", "text": part}
    if isinstance(part, CitedValue):
        cell = _anchor(part.table, part.row, part.column)
        target = next((anchor for anchor in (cell, part.table) if anchor in anchors), "")
        return {"kind": "value", "text": part.text, "source": part.source, "target": target}
    return {"kind": "command" if isinstance(part, Command) else "words", "text": part.text}


def _plot(folder: Path, name: str, alt: str) -> Mapping[str, str] | None:
    """A plot as data URI with its alternative text; None if the file does not exist."""
    for ending, kind, largest in (("svg", "image/svg+xml", MAX_SVG), ("png", "image/png", None)):
        path = folder / f"{name}.{ending}"
        if path.is_file() and (largest is None or path.stat().st_size <= largest):
            encoded = base64.b64encode(read_file(path, follow=False)).decode("ascii")
            return {"name": name, "alt": alt, "source": f"data:{kind};base64,{encoded}"}
    return None


def _plan_lines(run: Run) -> list[tuple[str, str]]:
    """The plan without the specifications of the cells, whose hashes are listed separately."""
    shown = {name: value for name, value in run.plan.items() if name not in ("base", "cells", "variants", "schema")}
    return [(f"plan.{name}", text) for name, text in flatten(shown) if text]


def _environment_lines(run: Run) -> list[tuple[str, str]]:
    path = run.folder / ENVIRONMENT
    content = read_json(path)  # None in a partial copy, or of a run killed early
    return flatten(content) if isinstance(content, dict) else []
