"""Every problem of the data, in the terminal and in preflight.json."""

from __future__ import annotations

from pathlib import Path

from bench.data.dataset import check
from bench.data.preflight import Report, enforce, summary, warn_of_leaks, write_report
from bench.data.sheet import write_sheets
from bench.data.sources import data_name, read_source
from bench.data.split import make_split, own_lists
from bench.device.hardware import available_cores
from bench.options import HOME, DataOptions, PreflightOptions
from bench.report.terminal.console import PlainConsole
from bench.report.terminal.progress import images_checked
from bench.storage.own_files import output_folder
from bench.storage.run_folder import PREFLIGHT


def run_preflight(options: PreflightOptions) -> int:
    """Check the data, and draw sheets of them if asked to. Raises UserError for fatal problems."""
    out = options.out or HOME / "results" / f"{data_name(options.data.source)}-preflight"
    with output_folder(out):
        return _preflight(options, out)


def _preflight(options: PreflightOptions, out: Path) -> int:
    console, data = PlainConsole(), options.data
    with images_checked(console) as progress:
        reading = read_source(data.source, cache=data.cache)
        report, pixels = check(reading, cache=data.cache, workers=available_cores(), progress=progress)
    sides = own_lists(report.reading, data.eval_list)
    if sides is not None:
        report = warn_of_leaks(report, sides[0], sides[1])
    for line in summary(report):
        console.print(line, markup=False, highlight=False)
    write_report(report, out / PREFLIGHT)
    written = [out / PREFLIGHT]
    enforce(report.reading, skip_invalid=data.skip_invalid)
    if options.sheet:
        written += _write_sheets(report, data, pixels, out)
    for path in written:
        console.print(f"written: {path}", markup=False)
    return 0


def _write_sheets(report: Report, data: DataOptions, pixels: Path | None, out: Path) -> list[Path]:
    index = report.reading.index
    split = make_split(report.reading, val_fraction=data.val_fraction, eval_list=data.eval_list, groups=report.groups)
    return write_sheets(out, index, index.take(split.train), pixels)
