"""From figures to files: tables, plots, verdict, page, and what the terminal shows. Nothing in here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.storage.run_folder import TABLES

if TYPE_CHECKING:
    from bench.analysis.run_records import Run
    from bench.report.verdict import Sentence


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was read, what it shows, and the files that were written of it."""

    run: Run
    verdict: list[Sentence]
    files: list[Path]


def build_report(folder: Path) -> Report:
    """Write ``tables/``, ``plots/`` and ``report.html`` of the run in `folder` from what it has stored so far.

    Raises UserError when the folder is not a run.
    """
    # The live display is in this package too, and should not wait seconds for matplotlib.
    from bench.analysis.results import analyse  # noqa: PLC0415
    from bench.analysis.run_records import load_run  # noqa: PLC0415
    from bench.report.page.page import write_page  # noqa: PLC0415
    from bench.report.plots import write_plots  # noqa: PLC0415
    from bench.report.tables.ablation import all_tables, write_tables  # noqa: PLC0415
    from bench.report.verdict import verdict, write_verdict  # noqa: PLC0415

    run = load_run(folder)
    analysis = analyse(run)
    sentences = verdict(analysis)
    tables = all_tables(analysis)
    files = [
        *write_tables(tables, folder / TABLES),
        write_verdict(sentences, folder / TABLES),
        *write_plots(analysis),
    ]
    files.append(write_page(run, sentences, tables))
    return Report(run=run, verdict=sentences, files=files)
