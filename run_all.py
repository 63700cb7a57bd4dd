#!/usr/bin/env python3
"""Train and compare every combination of remedies for a low SSD-300 mAP, on one shared split.

This file is the command line and nothing else: it checks what is asked for and hands it on.
Exit status: 0 all cells done; 1 some failed; 2 the request is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.errors import NO_FOLDER, STORAGE, UserError, nearest, unusable
from bench.options import (
    HOME,
    VAL_FRACTION,
    diagnose_parser,
    parse,
    predict_parser,
    preflight_parser,
    report_parser,
    run_parser,
    throughput_parser,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        # A shell's background job starts with SIGINT ignored, and batch systems end a job by SIGTERM
        signal.signal(signal.SIGINT, interrupt_once)
        signal.signal(signal.SIGTERM, interrupt_once)
    from bench.device.process_settings import wait_briefly

    wait_briefly()
    try:
        commands = {
            "preflight": preflight,
            "diagnose": diagnose,
            "report": report,
            "predict": predict,
            "throughput": throughput,
        }
        if words and words[0] in commands:
            return commands[words[0]](words[1:])
        with ExitStack() as held:
            return run(words, held)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (*STORAGE, *NO_FOLDER) or error.filename is None:
            raise
        print(f"error: {unusable(error.filename, error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; go on with: {shlex.join(['python', 'run_all.py', *words])}", file=sys.stderr)
        return 130


def interrupt_once(number: int, frame: Any) -> None:
    """Stop cleanly at the first signal; those that follow it must not break the stopping."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(words: Sequence[str], held: ExitStack) -> int:
    """The main job: plan, run what is not done, report. held: keeps the result folder ours until the end."""
    options = parse(run_parser(), words)
    keep_caches_in(options.cache)
    from bench.data.sources import data_name
    from bench.device.fork_server import fresh_processes

    name = data_name(options.data)
    if not options.plan:
        # It imports torch while this process does
        fresh_processes(cpu_kernels=options.device != "cuda" and options.profile != "smoke")
    from rich.console import Console

    from bench.detector.ssd import SSD
    from bench.detector.transfer import check_taken
    from bench.run.numerics import choose_device, decide
    from bench.run.plan import (
        Request,
        check_axes,
        pending,
        plan_cells,
        plan_content,
        planned_numerics,
        settle_plan,
        settle_software,
    )
    from bench.run.scheduler import check_backend
    from bench.storage.lock import lock_run_folder
    from variants.baseline import default_backbone

    console = Console()
    device = choose_device(options.device)
    options.backbone = options.backbone or default_backbone(device)
    check_backend(options.backend)
    axes = chosen_axes(options)
    controls = chosen_controls(options.controls)
    out = options.out or HOME / "results" / f"{name}-{options.backbone}-{options.profile}"
    # Whatever is wrong beside the data is told before these are read, which may take an hour
    stand_in = base_specification(options, classes=("object",), train_images=1)
    SSD(stand_in.detector, seed=0)
    check_axes(axes, stand_in)
    if not options.plan:
        held.enter_context(lock_run_folder(out, lambda text: console.print(text, markup=False, highlight=False)))
    data = opened(options, out, console)
    base = base_specification(options, classes=data.index.classes, train_images=len(data.split.train))
    if base.detector.class_outputs:
        model = SSD(base.detector, seed=0)
        if model.taken_over:
            check_taken(model, model.taken_over, options.weights)
    numerics = planned_numerics(out) or decide(base, device, jobs=options.jobs)
    if numerics.device != device and options.device != "auto":
        raise UserError(f"{out} was run with --device {numerics.device}; give --device {device} an --out of its own")
    request = Request(
        description={
            "data": name,
            "source": options.data,
            "backbone": options.backbone,
            "profile": options.profile,
            "split_origin": data.split.origin,
            # A split that is there already was made with what the run was begun with
            **({"eval_list": options.eval_list} if options.eval_list is not None else {}),
            **({"val_fraction": options.val_fraction} if options.val_fraction != VAL_FRACTION else {}),
        },
        base=base,
        axes=axes,
        controls=controls,
        seeds=options.seeds,
        first_seed=options.first_seed,
        split=data.split.fingerprint,
        numerics=numerics,
    )
    cells = plan_cells(request)
    if pending(out, cells):
        choose_device(numerics.device)  # of a run that was begun elsewhere
    if options.plan:
        from bench.run.forecast import print_forecast

        todo, validation = pending(out, cells), len(data.val)
        print_forecast(request, cells, todo, console, out=out, validation=validation, jobs=options.jobs)
        return 0
    from bench.run.run import start
    from bench.speed.inference import SpeedSettings

    settle_plan(out, plan_content(request, cells))
    if pending(out, cells):
        settle_software(out, mixed=options.mix_versions, say=lambda text: console.print(text, markup=False))
    return start(
        out,
        request,
        data,
        axes_package="variants",
        axis_files=tuple(options.axis_file),
        speed=SpeedSettings(budget_seconds=1.5) if options.profile == "smoke" else SpeedSettings(),
        parallel=options.jobs,
        backend=options.backend,
        retries=options.retry,
        hung_after=60 * options.hung_after,
        images=not options.no_images,
        console=console,
    )


def preflight(words: Sequence[str]) -> int:
    """Every problem of the data, in the terminal and in preflight.json."""
    options = parse(preflight_parser(), words)
    keep_caches_in(options.cache)
    from rich.console import Console

    from bench.data.dataset import check
    from bench.data.preflight import enforce, summary, warn_of_leaks, write_report
    from bench.data.sources import data_name, read_source
    from bench.data.split import own_lists
    from bench.report.terminal.progress import images_checked
    from bench.run.numerics import available_cores

    console = Console()
    with images_checked(console) as progress:
        reading = read_source(options.data, cache=options.cache)
        found, pixels = check(reading, cache=options.cache, workers=available_cores(), progress=progress)
    sides = own_lists(found.reading, options.eval_list)
    if sides is not None:
        found = warn_of_leaks(found, sides[0], sides[1])
    for line in summary(found):
        console.print(line, markup=False, highlight=False)
    out = options.out or HOME / "results" / f"{data_name(options.data)}-preflight"
    write_report(found, out / "preflight.json")
    console.print(f"written: {out / 'preflight.json'}", markup=False)
    enforce(found.reading, skip_invalid=options.skip_invalid)
    if options.sheet:
        from bench.data.sheet import write_sheets
        from bench.data.split import make_split

        index = found.reading.index
        split = make_split(
            found.reading, val_fraction=options.val_fraction, eval_list=options.eval_list, groups=found.groups
        )
        for path in write_sheets(out, index, index.take(split.train), pixels):
            console.print(f"written: {path}", markup=False)
    return 0


def diagnose(words: Sequence[str]) -> int:
    """What the data alone say about a low mAP; --detections or --weights add the figures of a detector."""
    options = parse(diagnose_parser(), words)
    keep_caches_in(options.cache)
    from rich.console import Console

    from bench.data.sources import data_name
    from bench.diagnosis.command import detect_with_checkpoint, diagnose_data
    from bench.report.diagnosis import print_diagnosis, write_markdown
    from bench.report.plots.diagnosis import write_diagnosis_plots
    from bench.storage.atomic import write_json

    console = Console()
    name = data_name(options.data)
    out = options.out or HOME / "results" / f"{name}-diagnosis"
    data = opened(options, out, console)
    base = base_specification(options, classes=data.index.classes, train_images=len(data.split.train))
    detector = base.detector
    detections = options.detections
    if options.weights != "none":
        if detections is not None:
            raise UserError("--detections and --weights: give one of them, a detector's results or its weights")
        detections = out / "detections.json"
        with console.status("detecting on the validation split"):
            known = detect_with_checkpoint(data, detector, detections)
        console.print(f"{known} of {len(data.index.classes)} classes are outputs of {options.weights}", markup=False)
    description = {
        "data": name,
        "source": options.data,
        "split_origin": data.split.origin,
        "split": data.split.fingerprint,
        "priors": options.priors,
    }
    with console.status("counting and matching"):
        content = diagnose_data(data, detector, description, detections=detections)
    write_json(out / "diagnosis.json", content)
    plots = write_diagnosis_plots(content, out / "plots")
    write_markdown(content, out / "diagnosis.md")
    print_diagnosis(content, console)
    console.print(f"\ndiagnosis.json, diagnosis.md and {len(plots)} plots in {out}", markup=False, highlight=False)
    return 0


def report(words: Sequence[str]) -> int:
    """Tables and plots again, from the records alone; needs no torch."""
    options = parse(report_parser(), words)
    keep_caches_in(options.cache)
    from rich.console import Console

    from bench.analysis.merging import merge_runs
    from bench.report import build_report
    from bench.report.terminal.display import print_ablation, print_verdict

    folder = options.runs[0]
    if len(options.runs) > 1:
        names = "-".join(dict.fromkeys(run.resolve().name for run in options.runs))
        folder = merge_runs(options.runs, options.out or HOME / "results" / f"merged-{names}")
    elif options.out is not None:
        raise UserError("--out is the folder of a merged run; one run's report is written into the run")
    built = build_report(folder)
    console = Console()
    print_ablation(built.run, console)
    print_verdict(built.verdict, console)
    console.print(f"{len(built.files)} files in {folder}", markup=False)
    return 0


def predict(words: Sequence[str]) -> int:
    """Draw what a trained cell sees."""
    options = parse(predict_parser(), words)
    keep_caches_in(options.cache)
    from bench.run.predict import draw_predictions

    folder = options.out or options.run / "predictions"
    for path in draw_predictions(
        options.run, options.images, variant=options.variant, threshold=options.threshold, folder=folder
    ):
        print(path)
    return 0


def throughput(words: Sequence[str]) -> int:
    """Speed only: stages of inference, steps of training and, where asked for, torchvision beside them."""
    options = parse(throughput_parser(), words)
    keep_caches_in(options.cache)
    from rich.console import Console

    from bench.data.sources import data_name
    from bench.detector.ssd import SSD
    from bench.report.tables.speed import print_speed, write_speed_tables
    from bench.run.numerics import available_cores, choose_device
    from bench.spec import Numerics
    from bench.speed.measurements import SpeedRequest, chosen_precisions, measure_speed
    from bench.storage.atomic import write_json

    console = Console()
    device = choose_device(options.device)
    model, variant, planned = trained_model(options)
    if model is not None:
        options.backbone = model.spec.backbone  # what of it short profiles leave frozen depends on it
    options.data = options.data or planned or "scenes"
    out = options.out or HOME / "results" / f"{data_name(options.data)}-throughput"
    data = opened(options, options.run or out, console)
    base = base_specification(options, classes=data.index.classes, train_images=len(data.split.train))
    if model is not None:
        base = replace(base, detector=model.spec)
    schedules, notes = training_schedules(base)
    untrained = f"untrained heads, weights {Path(options.weights).name}"
    weights = f"trained weights of {options.run.name}" if options.run else untrained
    request = SpeedRequest(
        description={
            "data": data_name(options.data),
            "backbone": base.detector.backbone,
            "variant": variant,
            "weights": weights,
        },
        model=SSD(base.detector, seed=0) if model is None else model,
        trained=model is not None,
        schedules=schedules,
        numerics=Numerics(device=device, precision="float32", threads=available_cores(), cpu_kernels=device == "cpu"),
        precisions=chosen_precisions(options.precision, device),
        batches=options.batches or (1, 8, 32),
        compare_batches=(options.batches or (1, 8, 32)) if options.compare else None,
        seconds=options.seconds,
        notes=notes,
    )
    with console.status("measuring"):
        content = measure_speed(request, data)
    write_json(out / "throughput.json", content)
    written = write_speed_tables(content, out)
    print_speed(content, console)
    console.print(f"throughput.json and {len(written)} tables in {out}", markup=False, highlight=False)
    return 0


def keep_caches_in(cache: Path) -> None:
    """Let libraries that keep files do so in our cache: nothing outside the clone is touched unasked."""
    for variable, folder in (
        ("MPLCONFIGDIR", "matplotlib"),
        ("TORCH_HOME", "torch"),
        ("HF_HOME", "huggingface"),
    ):
        os.environ.setdefault(variable, str(cache.resolve() / folder))
    if not os.access(Path(__file__).parent / "bench" / "cpu" / "loops", os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(cache.resolve() / "numba"))  # beside its source otherwise


def chosen_axes(options: argparse.Namespace) -> list[Any]:
    """The axes to cross, in the order of their slots."""
    from bench.axis import find_axes

    found = find_axes("variants", options.axis_file)
    if options.axes is None:
        return [axis for axis in found.values() if axis.axis.in_default_matrix or axis.file in options.axis_file]
    wanted = [] if options.axes == "none" else [name.strip() for name in options.axes.split(",")]
    for name in wanted:
        if name not in found:
            raise UserError(f"--axes: there is no axis {name!r}{nearest(name, found)}; there are {', '.join(found)}")
    return [axis for name, axis in found.items() if name in wanted]


def chosen_controls(text: str) -> dict[str, Any]:
    """The control rows by name."""
    from variants.controls import CONTROLS

    wanted = [] if text == "none" else [name.strip() for name in text.split(",")]
    for name in wanted:
        if name not in CONTROLS:
            there = ", ".join(CONTROLS)
            raise UserError(f"--controls: there is no control {name!r}{nearest(name, CONTROLS)}; there are {there}")
    return {name: CONTROLS[name] for name in wanted}


def opened(options: argparse.Namespace, out: Path, console: Any) -> Any:
    """The data, checked and split."""
    from bench.data.dataset import open_dataset
    from bench.data.preflight import summary
    from bench.report.terminal.progress import images_checked
    from bench.run.numerics import available_cores

    with images_checked(console) as progress:
        data = open_dataset(
            options.data,
            cache=options.cache,
            workers=available_cores(),
            progress=progress,
            skip_invalid=options.skip_invalid,
            val_fraction=options.val_fraction,
            eval_list=options.eval_list,
            frozen=out / "split.json",
        )
    for line in summary(data.report):
        console.print(line, markup=False, highlight=False)
    return data


def trained_model(options: argparse.Namespace) -> tuple[Any, str | None, str | None]:
    """The trained detector of --run, its variant and the run's data; Nones without --run."""

    if options.run is None:
        if options.variant is not None:
            raise UserError("--variant names a row of a run: give --run results/NAME too")
        return None, None, None
    from bench.analysis.run_records import load_run
    from bench.run.predict import finished_cell, load_detector

    run = load_run(options.run)
    cell = finished_cell(run, options.variant)
    return load_detector(run, cell), run.records[cell]["variant"], run.plan.get("source")


def training_schedules(base: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The baseline and every axis of the default matrix that changes the schedule; notes on those that cannot."""
    from bench.axis import find_axes

    schedules, notes = {"baseline": base}, []
    for name, found in find_axes("variants").items():
        if found.axis.slot != "schedule" or not found.axis.in_default_matrix:
            continue
        refusal = found.axis.refusal(base)
        if refusal is None:
            schedules[name] = found.axis.apply(base, {})
        else:
            notes.append(f"No training steps of {name}: {refusal}.")
    return schedules, tuple(notes)


def base_specification(options: argparse.Namespace, *, classes: Sequence[str], train_images: int) -> Any:
    """The baseline of this request, for data of these classes and so many training images."""
    from bench.detector.priors import PRESETS, preset_shapes, read_shapes
    from bench.detector.transfer import class_outputs
    from bench.detector.weights import weights_fingerprint
    from variants.baseline import baseline, initialisation_of, preset_of, training_of

    priors = options.priors or preset_of(options.profile)
    scenes = options.data.partition(":")[0] == "scenes"
    training = training_of(options.profile, train_images, scenes=scenes)
    overrides = {"steps": options.steps, "batch": options.batch, "rate": options.lr}
    return baseline(
        classes=len(classes),
        backbone=options.backbone,
        weights=options.weights,
        weights_fingerprint=weights_fingerprint(options.weights),
        class_outputs=class_outputs(options.weights, classes) if options.backbone == "vgg16" else (),
        priors=preset_shapes(priors) if priors in PRESETS else read_shapes(Path(priors)),
        training=replace(training, **{name: value for name, value in overrides.items() if value is not None}),
        initialisation=initialisation_of(options.profile),
    )


if __name__ == "__main__":
    sys.exit(main())
