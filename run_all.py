#!/usr/bin/env python3
"""Train and compare every combination of remedies for a low SSD-300 mAP, on one shared split.

This file is the command line and nothing else: it checks what is asked for and hands it on.
Exit status: 0 all cells done; 1 some failed; 2 the request is wrong; 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import signal
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

HOME = Path(__file__).resolve().parent
COMMANDS = ("preflight", "report", "predict", "throughput")
PROFILES = ("smoke", "quick", "standard", "paper")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        # A shell's background job starts with SIGINT ignored, and batch systems end a job by SIGTERM
        signal.signal(signal.SIGINT, interrupt_once)
        signal.signal(signal.SIGTERM, interrupt_once)
    from bench.errors import UserError
    from bench.process import wait_passively

    wait_passively()
    try:
        if words and words[0] in COMMANDS:
            commands = {"preflight": preflight, "report": report, "predict": predict, "throughput": throughput}
            return commands[words[0]](words[1:])
        return run(words)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; go on with: {shlex.join(['python', 'run_all.py', *words])}", file=sys.stderr)
        return 130


def interrupt_once(number: int, frame: Any) -> None:
    """Stop cleanly at the first signal; those that follow it must not break the stopping."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(words: Sequence[str]) -> int:
    """The main job: plan, run what is not done, report."""
    options = parse(run_parser(), words)
    keep_caches_in(options.cache)
    from rich.console import Console

    from bench.data.sources import data_name
    from bench.detector.ssd import SSD
    from bench.errors import UserError
    from bench.matrix import Request, pending, plan_cells, plan_content, planned_numerics, settle_plan
    from bench.numerics import choose_device, decide
    from bench.runner import check_backend
    from variants.baseline import default_backbone

    console = Console()
    device = choose_device(options.device)
    options.backbone = options.backbone or default_backbone(device)
    check_backend(options.backend)
    axes = chosen_axes(options)
    controls = chosen_controls(options.controls)
    name = data_name(options.data)
    out = options.out or HOME / "results" / f"{name}-{options.backbone}-{options.profile}"
    data = opened(options, out, console)
    base = base_specification(options, data)
    SSD(base.detector, seed=0)  # tells at once of a backbone or weights that do not fit
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
        },
        base=base,
        axes=axes,
        controls=controls,
        seeds=options.seeds,
        split=data.split.fingerprint,
        numerics=numerics,
    )
    cells = plan_cells(request)
    if options.plan:
        from bench.forecast import print_forecast

        print_forecast(request, cells, pending(out, cells), console, validation=len(data.val), jobs=options.jobs)
        return 0
    from bench.run import start
    from bench.throughput import SpeedSettings

    settle_plan(out, plan_content(request, cells))
    return start(
        out,
        cells,
        data,
        axes_package="variants",
        axis_files=tuple(options.axis_file),
        speed=SpeedSettings(budget_seconds=1.5) if options.profile == "smoke" else SpeedSettings(),
        parallel=options.jobs,
        backend=options.backend,
        retries=options.retry,
        console=console,
    )


def preflight(words: Sequence[str]) -> int:
    """Every problem of the data, in the terminal and in preflight.json."""
    parser = Parser("run_all.py preflight", "Read all of the data once and list every problem.")
    add_data_options(parser)
    parser.add_argument("--out", type=Path, help="folder for preflight.json (default: results/<data>-preflight)")
    parser.add_argument("--sheet", action="store_true", help="also draw 20 images, and 20 training views, with boxes")
    options = parse(parser, words)
    keep_caches_in(options.cache)
    from rich.console import Console

    from bench.data.opened import check
    from bench.data.preflight import enforce, summary, warn_of_leaks, write_report
    from bench.data.sources import data_name, read_source
    from bench.data.split import own_lists
    from bench.numerics import available_cores

    console = Console()
    reading = read_source(options.data, cache=options.cache)
    found, pixels = check(reading, cache=options.cache, workers=available_cores())
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


def report(words: Sequence[str]) -> int:
    """Tables and plots again, from the records alone; needs no torch."""
    parser = Parser("run_all.py report", "Rebuild the tables and plots of a run from its records.")
    parser.add_argument("run", type=Path, help="folder of the run, results/NAME")
    parser.add_argument("--cache", type=Path, default=HOME / ".cache", help=argparse.SUPPRESS)
    options = parse(parser, words)
    keep_caches_in(options.cache)
    from rich.console import Console

    from bench.analysis.frame import load_run
    from bench.report import build_report
    from bench.report.display import print_ablation

    written = build_report(options.run)
    console = Console()
    print_ablation(load_run(options.run), console)
    console.print(f"{len(written)} files in {options.run}", markup=False)
    return 0


def predict(words: Sequence[str]) -> int:
    """Draw what a trained cell sees."""
    parser = Parser("run_all.py predict", "Draw the detections of a trained variant on images.")
    parser.add_argument("run", type=Path, help="folder of the run, results/NAME")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--variant", default=None, help="row of the table (default: that of the highest AP)")
    parser.add_argument("--threshold", type=float, default=0.4, help="lowest score that is drawn (default: 0.4)")
    parser.add_argument("--out", type=Path, help="folder for the drawings (default: results/NAME/predictions)")
    parser.add_argument("--cache", type=Path, default=HOME / ".cache", help=argparse.SUPPRESS)
    options = parse(parser, words)
    keep_caches_in(options.cache)
    from bench.prediction import draw_predictions

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

    from bench.atomic import write_json
    from bench.data.sources import data_name
    from bench.detector.ssd import SSD
    from bench.numerics import available_cores, choose_device
    from bench.report.speed import print_speed, write_speed_tables
    from bench.spec import Numerics
    from bench.speed.request import SpeedRequest, chosen_precisions, measure_speed

    console = Console()
    device = choose_device(options.device)
    model, variant, planned = trained_model(options)
    options.data = options.data or planned or "scenes"
    out = options.out or HOME / "results" / f"{data_name(options.data)}-throughput"
    data = opened(options, options.run or out, console)
    base = base_specification(options, data)
    if model is not None:
        base = replace(base, detector=model.spec)
    schedules, notes = training_schedules(base)
    weights = f"trained weights of {options.run.name}" if options.run else f"untrained heads, weights {options.weights}"
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
        numerics=Numerics(device=device, precision="float32", threads=available_cores()),
        precisions=chosen_precisions(options.precision, device),
        batches=options.batches or (1, 8, 32),
        compare_batches=(options.batches or (1, 8)) if options.compare else None,
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


class Parser(argparse.ArgumentParser):
    """argparse that names the nearest right option for a wrong one."""

    def __init__(self, program: str, description: str) -> None:
        super().__init__(prog=program, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        from bench.errors import UserError

        known = [option for action in self._actions for option in action.option_strings]
        for word in message.split():
            close = difflib.get_close_matches(word.split("=")[0], known, n=1) if word.startswith("--") else []
            if close and "unrecognized" in message:
                message += f" (did you mean {close[0]}?)"
        raise UserError(f"{message}\nSee python {self.prog} --help")


def run_parser() -> Parser:
    """Options of the main job."""
    parser = Parser("run_all.py", (__doc__ or "").split("\n\n")[0] + f" Other commands: {', '.join(COMMANDS)}.")
    add_data_options(parser)
    add = parser.add_argument
    add("--profile", choices=PROFILES, default="quick", help="how much training (default: quick)")
    add(
        "--backbone",
        default=None,
        metavar="NAME",
        help="vgg16, efficientnet_lite0 or a timm network (default: vgg16 on a GPU, else efficientnet_lite0)",
    )
    add("--weights", default="pretrained", metavar="PATH|pretrained|none", help="weights of the backbone")
    add("--axes", default=None, metavar="A,B|none", help="axes to cross (default: fpn,anchors,unfreezing)")
    add("--axis-file", type=resolved, action="append", default=[], metavar="FILE.py", help="an axis of your own")
    add("--controls", default="none", metavar="A,B|none", help="lateral-only, half-data, double-steps")
    add("--priors", default=None, metavar="coco|voc|FILE", help="default: coco; voc in profile paper")
    add("--seeds", type=positive, default=1, metavar="N", help="trainings of each variant (default: 1)")
    add("--steps", type=positive, help="training steps, instead of the profile's")
    add("--batch", type=positive, help="images a step, instead of the profile's")
    add("--lr", type=positive_number, help="peak learning rate, instead of the profile's")
    add("--out", type=Path, metavar="DIR", help="default: results/<data>-<backbone>-<profile>")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--jobs", type=positive, default=1, metavar="N", help="cells at a time (default: 1)")
    add("--backend", default="loky", metavar="loky|dask|ray", help="what schedules the cells (default: loky)")
    add(
        "--retry",
        type=natural,
        default=0,
        metavar="N",
        help="times that a failed cell is tried again at once",
    )
    add("--plan", action="store_true", help="print the cells and the expected cost, run nothing")
    return parser


def throughput_parser() -> Parser:
    """Options of the command that measures speed alone."""
    parser = Parser("run_all.py throughput", "Measure inference stage by stage, and steps of training.")
    add_data_options(parser)
    add = parser.add_argument
    add("--backbone", default="efficientnet_lite0", metavar="NAME", help="efficientnet_lite0 or a timm network")
    add("--weights", default="pretrained", metavar="PATH|pretrained|none", help="weights of the backbone")
    add("--priors", default=None, metavar="coco|voc|FILE", help="default: coco")
    add("--run", type=Path, metavar="DIR", help="trained weights, data and split of this run, results/NAME")
    add("--variant", default=None, help="row of that run's table (default: that of the highest AP)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--batches", type=batch_sizes, metavar="1,8,32", help="(default: 1,8,32; beside torchvision 1,8)")
    add(
        "--precision",
        choices=("float32", "bfloat16", "both"),
        default=None,
        help="default: both where the device computes in bfloat16, else float32",
    )
    add("--compare", choices=("torchvision",), default=None, help="set its SSD beside ours")
    add(
        "--seconds",
        type=positive_number,
        default=60.0,
        metavar="S",
        help="for stages, steps and comparison each; three rounds are made however long they take (default: 60)",
    )
    add("--out", type=Path, metavar="DIR", help="default: results/<data>-throughput")
    # The rest of what a baseline is made from; the number of steps only scales the schedule
    parser.set_defaults(data=None, profile="quick", steps=None, batch=None, lr=None)
    return parser


def add_data_options(parser: Parser) -> None:
    """Options that say which data, shared by the commands that read them."""
    add = parser.add_argument
    add("--data", default="scenes", metavar="SOURCE", help="scenes[:knob=value,...], voc:DIR, coco:DIR, "
        "yolo:DATA.yaml, voc2007 or voc0712 (default: scenes)")  # fmt: skip
    add("--eval-list", default=None, metavar="NAME", help="score on this list of the data, e.g. test")
    add(
        "--val-fraction",
        type=fraction,
        default=0.2,
        metavar="F",
        help="where the data have no lists (default: 0.2)",
    )
    add("--skip-invalid", action="store_true", help="leave out what has fatal problems")
    add("--cache", type=Path, default=HOME / ".cache", metavar="DIR", help="default: .cache in the clone")
    add("--config", type=Path, metavar="FILE.toml", help="options from a file; the command line comes first")


def parse(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """Options from the words, with those of --config beneath them."""
    first, _ = parser.parse_known_args(words) if "--config" in " ".join(words) else (None, None)
    config = getattr(first, "config", None)
    file_words: list[str] = []
    if config is not None:
        for name, value in read_config(config).items():
            option = f"--{name.replace('_', '-')}"
            if value is True:
                file_words.append(option)
            elif value is not False:
                file_words += [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return parser.parse_args([*file_words, *words])


def read_config(path: Path) -> dict[str, Any]:
    """The options in a TOML file."""
    from bench.errors import UserError

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: {error}") from error


def resolved(text: str) -> Path:
    """An absolute path: cells run in processes of their own."""
    return Path(text).resolve()


def positive(text: str) -> int:
    """A whole number above zero."""
    value = natural(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def natural(text: str) -> int:
    """A whole number, zero included."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def batch_sizes(text: str) -> tuple[int, ...]:
    """Rising whole numbers above zero, divided by commas."""
    return tuple(sorted({positive(part.strip()) for part in text.split(",")}))


def positive_number(text: str) -> float:
    """A finite number above zero."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def fraction(text: str) -> float:
    """A number between 0 and 1."""
    value = positive_number(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def keep_caches_in(cache: Path) -> None:
    """Let libraries that keep files do so in our cache: nothing outside the clone is touched unasked."""
    for variable, folder in (
        ("MPLCONFIGDIR", "matplotlib"),
        ("TORCH_HOME", "torch"),
        ("HF_HOME", "huggingface"),
    ):
        os.environ.setdefault(variable, str(cache.resolve() / folder))


def chosen_axes(options: argparse.Namespace) -> list[Any]:
    """The axes to cross, in the order of their slots."""
    from bench.axis import find_axes
    from bench.errors import UserError

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
    from bench.errors import UserError
    from variants.controls import CONTROLS

    wanted = [] if text == "none" else [name.strip() for name in text.split(",")]
    for name in wanted:
        if name not in CONTROLS:
            there = ", ".join(CONTROLS)
            raise UserError(f"--controls: there is no control {name!r}{nearest(name, CONTROLS)}; there are {there}")
    return {name: CONTROLS[name] for name in wanted}


def nearest(word: str, known: Any) -> str:
    """A hint at the known word that is most like this one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def opened(options: argparse.Namespace, out: Path, console: Any) -> Any:
    """The data, checked and split."""
    from bench.data.opened import open_data
    from bench.data.preflight import summary
    from bench.numerics import available_cores

    with console.status("reading and checking the data"):
        data = open_data(
            options.data,
            cache=options.cache,
            workers=available_cores(),
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
    from bench.errors import UserError

    if options.run is None:
        if options.variant is not None:
            raise UserError("--variant names a row of a run: give --run results/NAME too")
        return None, None, None
    from bench.analysis.frame import load_run
    from bench.prediction import finished_cell, load_detector

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


def base_specification(options: argparse.Namespace, data: Any) -> Any:
    """The baseline of this request."""
    from bench.detector.priors import PRESETS, preset_shapes, read_shapes
    from bench.detector.weights import weights_fingerprint
    from variants.baseline import baseline, initialisation_of, preset_of, training_of

    priors = options.priors or preset_of(options.profile)
    scenes = options.data.partition(":")[0] == "scenes"
    training = training_of(options.profile, len(data.split.train), scenes=scenes)
    overrides = {"steps": options.steps, "batch": options.batch, "rate": options.lr}
    return baseline(
        classes=len(data.index.classes),
        backbone=options.backbone,
        weights=options.weights,
        weights_fingerprint=weights_fingerprint(options.weights),
        priors=preset_shapes(priors) if priors in PRESETS else read_shapes(Path(priors)),
        training=replace(training, **{name: value for name, value in overrides.items() if value is not None}),
        initialisation=initialisation_of(options.profile),
    )


if __name__ == "__main__":
    sys.exit(main())
