"""Causes of a low mAP in the data; with --detections or --weights, scores of a detector too."""

from __future__ import annotations

from pathlib import Path

from bench.data.sources import data_name
from bench.diagnosis.command import detect_with_checkpoint, diagnose_data
from bench.options import HOME, DiagnoseOptions
from bench.report.plots.diagnosis import write_diagnosis_plots
from bench.report.tables.diagnosis import write_markdown
from bench.report.terminal.console import PlainConsole
from bench.report.terminal.diagnosis import print_diagnosis
from bench.run.data import open_data
from bench.run.specification import base_specification
from bench.storage.atomic import write_json
from bench.storage.own_files import output_folder
from bench.storage.run_folder import DETECTIONS, DIAGNOSIS, DIAGNOSIS_TEXT, PLOTS


def run_diagnose(options: DiagnoseOptions) -> int:
    """Write and print the diagnosis."""
    out = options.out or HOME / "results" / f"{data_name(options.data.source)}-diagnosis"
    with output_folder(out):
        return _diagnose(options, out)


def _diagnose(options: DiagnoseOptions, out: Path) -> int:
    console, weights = PlainConsole(), options.baseline.weights
    data = open_data(options.data, out, console)
    classes = data.index.classes
    detector = base_specification(
        options.baseline, options.data.source, classes=classes, train_images=len(data.split.train)
    ).detector
    detections = options.detections
    if weights != "none":
        detections = out / DETECTIONS
        with console.status("detecting on the validation split"):
            known = detect_with_checkpoint(data, detector, detections)
        console.print(f"{weights} knows {known} of {len(classes)} classes", markup=False)
    description = {
        "data": data_name(options.data.source),
        "source": options.data.source,
        "split_origin": data.split.origin,
        "split": data.split.fingerprint,
        "priors": options.baseline.priors,
    }
    with console.status("counting and matching"):
        content = diagnose_data(
            data, detector, description, detections=detections, skip_unknown=options.data.skip_invalid
        )
    write_json(out / DIAGNOSIS, content)
    plots = write_diagnosis_plots(content, out / PLOTS)
    write_markdown(content, out / DIAGNOSIS_TEXT)
    print_diagnosis(content, console)
    console.print(f"\ndiagnosis.json, diagnosis.md and {len(plots)} plots in {out}", markup=False, highlight=False)
    return 0
