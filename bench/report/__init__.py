"""From analysis to files: tables, plots, verdict, page, and terminal output. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.storage.run_folder import TABLES

if TYPE_CHECKING:
    from bench.analysis.run_records import Run
    from bench.report.citations import Sentence
    from bench.report.tables.typeset import Table


@dataclass(frozen=True, kw_only=True)
class Report:
    """The run, its ablation table, its verdict, and the files written."""

    run: Run
    ablation: Table
    verdict: list[Sentence]
    files: list[Path]


def build_report(folder: Path, *, worth: float | None = None) -> Report:
    """Write ``tables/``, ``plots/`` and ``report.html`` of the run in `folder` from the records so far.

    worth: the smallest difference worth having, in points of AP; None for that of the run.

    Raises UserError if the folder is not a run or a file in it is damaged.
    """
    # Lazy imports: the live display is in this package and must not wait seconds for matplotlib.
    from bench.analysis.results import analyse  # noqa: PLC0415
    from bench.analysis.run_records import load_run  # noqa: PLC0415
    from bench.report.page.page import write_page  # noqa: PLC0415
    from bench.report.plots import write_plots  # noqa: PLC0415
    from bench.report.tables import all_tables  # noqa: PLC0415
    from bench.report.tables.saving import write_tables  # noqa: PLC0415
    from bench.report.verdict import verdict, write_verdict  # noqa: PLC0415

    run = load_run(folder)
    if worth is not None:
        run = replace(run, plan={**run.plan, "worth": worth})
    analysis = analyse(run)
    sentences = verdict(analysis)
    tables = all_tables(analysis)
    files = [
        *write_tables(tables, folder / TABLES),
        write_verdict(sentences, folder / TABLES),
        *write_plots(analysis),
    ]
    files.append(write_page(run, sentences, tables))
    return Report(run=run, ablation=tables[0], verdict=sentences, files=files)
