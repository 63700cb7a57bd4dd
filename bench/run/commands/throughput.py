"""Measure speed alone: stages of inference, training steps, and torchvision's SSD if asked to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.analysis.run_records import load_run
from bench.data.sources import check_source, data_name
from bench.detector.ssd import SSD
from bench.device.hardware import available_cores, choose_device
from bench.errors import UserError
from bench.options import HOME, ThroughputOptions
from bench.report.tables.speed import write_speed_tables
from bench.report.terminal.console import PlainConsole
from bench.report.terminal.speed import print_speed
from bench.run.checks import check_cpu_kernels
from bench.run.data import open_data
from bench.run.predict import finished_cell, load_detector
from bench.run.specification import base_specification, training_schedules
from bench.spec import Numerics
from bench.speed.measurements import SpeedPlan, chosen_precisions, measure_speed
from bench.storage.atomic import write_json
from bench.storage.own_files import output_folder
from bench.storage.run_folder import THROUGHPUT


def run_throughput(options: ThroughputOptions) -> int:
    """Measure, write throughput.json and the tables, and print them."""
    console = PlainConsole()
    device = choose_device(options.device)
    check_cpu_kernels(options.cpu_kernels, device)
    model, variant, source = _trained_model(options)
    data_options = replace(options.data, source=options.data.source or source or "scenes")
    check_source(data_options.source)
    name = data_name(data_options.source)
    out = options.out or HOME / "results" / f"{name}-throughput"
    with output_folder(out):
        data = open_data(data_options, options.run or out, console)
        # The default freezing depends on the backbone, so take that of the trained model
        baseline = options.baseline if model is None else replace(options.baseline, backbone=model.spec.backbone)
        base = base_specification(
            baseline, data_options.source, classes=data.index.classes, train_images=len(data.split.train)
        )
        if model is not None:
            base = replace(base, detector=model.spec)
        schedules, notes = training_schedules(base)
        kernels = device == "cpu" and options.cpu_kernels != "off"
        request = SpeedPlan(
            description={
                "data": name,
                "backbone": base.detector.backbone,
                "variant": variant,
                "weights": f"trained weights of {options.run.name}"
                if options.run
                else f"untrained heads, weights {Path(base.detector.weights).name}",
            },
            model=SSD(base.detector, seed=0) if model is None else model,
            trained=model is not None,
            schedules=schedules,
            numerics=Numerics(device=device, precision="float32", threads=available_cores(), cpu_kernels=kernels),
            precisions=chosen_precisions(options.precision, device),
            batches=options.batches,
            compare_batches=options.batches if options.compare else None,
            seconds=options.seconds,
            notes=notes,
        )
        with console.status("measuring"):
            content = measure_speed(request, data)
        write_json(out / THROUGHPUT, content)
        written = write_speed_tables(content, out)
        print_speed(content, console)
        console.print(f"throughput.json and {len(written)} tables in {out}", markup=False, highlight=False)
        return 0


def _trained_model(options: ThroughputOptions) -> tuple[SSD | None, str | None, str | None]:
    """The trained detector of ``--run``, its variant, and the data source of the run; Nones without ``--run``."""
    if options.run is None:
        if options.variant is not None:
            raise UserError("--variant names a row of a run: give --run results/NAME too")
        return None, None, None
    run = load_run(options.run)
    cell = finished_cell(run, options.variant)
    return load_detector(run, cell), run.records[cell]["variant"], run.plan.get("source")
