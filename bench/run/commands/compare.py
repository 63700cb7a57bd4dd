"""Compare the detections of two or more detectors on one ground truth. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.compare.comparison import compare
from bench.compare.files import DetectionFile
from bench.compare.page import write_page
from bench.compare.plots import write_plots
from bench.compare.result import clearly_below, comparison_content
from bench.compare.tables import comparison_tables
from bench.compare.verdict import comparison_verdict
from bench.data.dataset import open_evaluation_images
from bench.data.preflight import summary
from bench.data.sources import data_name
from bench.device.hardware import available_cores
from bench.evaluation.results_file import read_detections
from bench.options import HOME, CompareOptions
from bench.report.tables.environment import flatten
from bench.report.tables.saving import write_tables
from bench.report.terminal.console import PlainConsole
from bench.report.terminal.progress import images_checked
from bench.report.terminal.tables import print_table
from bench.report.terminal.verdict import print_verdict
from bench.storage.atomic import write_json
from bench.storage.own_files import output_folder
from bench.storage.provenance import code_version
from bench.storage.run_folder import COMPARISON, PLOTS, TABLES

CLEARLY_BELOW = 3  # exit status
WIDE = 120  # columns of a terminal for the whole table; narrower ones show a part
NARROW = ("detector", "AP", "difference", "low", "AP50", "AP75", "probability_best", "threshold", "F1")


def run_compare(options: CompareOptions, files: Sequence[DetectionFile]) -> int:
    """Write and print the comparison; returns the exit status."""
    out = options.out or HOME / "results" / f"{data_name(options.data.source)}-comparison"
    with output_folder(out):
        return _compare(options, files, out)


def _compare(options: CompareOptions, files: Sequence[DetectionFile], out: Path) -> int:
    console = PlainConsole(stderr=options.json)  # with --json, the standard output holds the result alone
    chosen, data = options.data, data_name(options.data.source)
    with images_checked(console) as progress:
        images = open_evaluation_images(
            chosen.source,
            cache=chosen.cache,
            workers=available_cores(),
            skip_invalid=chosen.skip_invalid,
            val_fraction=chosen.val_fraction,
            eval_list=chosen.eval_list,
            all_images=options.all_images,
            progress=progress,
        )

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    for line in summary(images.report):
        say(line)
    read = {
        file.name: read_detections(file.path, images.index, data=images.data, skip_unknown=chosen.skip_invalid)
        for file in files
    }
    say(f"comparing on {len(images.index)} images: {images.origin}")
    elsewhere = {name: left_out for name, (_, left_out) in read.items()}
    for name, (detections, left_out) in read.items():
        ignored = f"; {left_out} on other images left out (--all-images evaluates all)" if left_out else ""
        say(f"  {name}: {len(detections.image)} detections{ignored}")
    with console.status("evaluating and resampling"):
        comparison = compare(
            {name: detections for name, (detections, _) in read.items()},
            images.index,
            images.groups,
            folder=out,
            data=data,
            worth=options.worth,
        )
        verdict, tables = comparison_verdict(comparison), comparison_tables(comparison)
    description: dict[str, Any] = {
        "data": data,
        "source": chosen.source,
        "evaluated_on": images.origin,
        "fingerprint": images.index.fingerprint(),
        "files": {file.name: str(file.path) for file in files},
        "code": code_version(),
    }
    content = comparison_content(comparison, verdict, description, elsewhere)
    write_json(out / COMPARISON, content)
    write_tables(tables, out / TABLES)
    write_plots(comparison, out / PLOTS)
    page = write_page(comparison, verdict, tables, flatten(description))
    if options.json:
        print(json.dumps(content, indent=1))
    else:
        print_table(tables[0], console, names=None if console.width >= WIDE else NARROW)
        print_verdict(verdict, console)
    say(f"{COMPARISON}, tables, plots and page: {page}")
    failures = [] if options.fail_below is None else clearly_below(comparison, options.fail_below)
    for line in failures:
        say(line)
    return CLEARLY_BELOW if failures else 0
