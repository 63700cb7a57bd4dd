"""Rebuild the report of a run, or merge runs. Needs no torch."""

from __future__ import annotations

from contextlib import ExitStack

from bench.analysis.merging import merge_runs
from bench.errors import UserError
from bench.options import HOME, ReportOptions
from bench.report import build_report
from bench.report.terminal.ablation import print_ablation
from bench.report.terminal.console import PlainConsole
from bench.report.terminal.verdict import print_verdict
from bench.storage.lock import lock_run_folder


def run_report(options: ReportOptions) -> int:
    """Write tables, plots and page from the records alone, and print the table and the verdict."""
    console = PlainConsole()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    folder = options.runs[0]
    with ExitStack() as stack:
        if len(options.runs) > 1:
            names = "-".join(dict.fromkeys(run.resolve().name for run in options.runs))
            folder = options.out or HOME / "results" / f"merged-{names}"
            stack.enter_context(lock_run_folder(folder, say))
            merge_runs(list(options.runs), folder)
        elif options.out is not None:
            raise UserError("--out is only for merged runs; the report of one run is written into its own folder")
        report = build_report(folder, worth=options.worth)
    print_ablation(report.run, report.ablation, console)
    print_verdict(report.verdict, console)
    say(f"{len(report.files)} files in {folder}")
    return 0
