"""Shared by the tests of the report: values read directly from disk, and a run's written tables and page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.analysis.results import analyse
from bench.analysis.run_records import load_run
from bench.report.page.page import write_page
from bench.report.tables import all_tables
from bench.report.tables.saving import write_tables
from bench.report.verdict import verdict

REFERENCE = Path(__file__).parents[2] / "results/reference"
# Runs made by d576c4d and later: their records must stay readable.
REFERENCE_RUNS = sorted(path.parent for path in REFERENCE.glob("*/plan.json"))


def recorded_values(folder: Path, variant: str, section: str, name: str) -> list[Any]:
    """A metric of the finished cells of a variant, in the order of their ids."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("cells/*/record.json"))]
    return [r[section][name] for r in records if r["variant"] == variant and r["status"] == "done"]


def written_tables(folder: Path) -> list[Path]:
    """Write all tables of a run, without the slower plots; returns the files."""
    return write_tables(all_tables(analyse(load_run(folder))), folder / "tables")


def written_page(folder: Path) -> str:
    """Write the page of a run; returns its text."""
    run = load_run(folder)
    analysis = analyse(run)
    path = write_page(run, verdict(analysis), all_tables(analysis))
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")
