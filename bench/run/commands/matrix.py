"""The main job: plan the cells, run those that are not done, report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bench.axis import FoundAxis
from bench.data.dataset import Dataset
from bench.detector.ssd import SSD
from bench.detector.transfer import check_taken
from bench.device.hardware import choose_device
from bench.errors import UserError
from bench.options import HOME, VAL_FRACTION, RunOptions
from bench.report.terminal.console import PlainConsole
from bench.run.checks import CheckedRun, check_cpu_kernels
from bench.run.continuing import EarlierRun
from bench.run.data import open_data
from bench.run.forecast import print_forecast
from bench.run.numerics import decide
from bench.run.plan import (
    Request,
    check_refusals,
    pending,
    plan_cells,
    plan_content,
    planned_numerics,
    settle_plan,
    settle_software,
)
from bench.run.run import run_cells
from bench.run.specification import base_specification
from bench.spec import Cell, Numerics, Specification
from bench.storage.lock import lock_run_folder
from bench.storage.own_files import check_output
from variants.baseline import default_backbone

if TYPE_CHECKING:
    from bench.analysis.power import Variances

KERNELS = {"auto": None, "on": True, "off": False}


def run_matrix(options: RunOptions, checked: CheckedRun) -> int:
    """Run the request; returns the exit status: 0, or 1 if a cell failed. Raises UserError if the request is wrong."""
    console = PlainConsole()
    for note in checked.notes:
        console.print(note, markup=False, highlight=False)
    device = choose_device(options.device)
    check_cpu_kernels(options.cpu_kernels, device)
    backbone = options.baseline.backbone or default_backbone(device)
    options = replace(options, baseline=replace(options.baseline, backbone=backbone))
    out = options.out or HOME / "results" / _name(options, checked)
    if not options.lengths:
        return _run(options, checked, device, out, console)
    *shorter, longest = options.lengths
    if options.plan:
        return _run(_with_steps(options, longest), checked, device, out, console)
    status, continued = 0, None
    for steps in shorter:
        before = out.with_name(f"{out.name}-{steps}-steps")
        status |= _run(_with_steps(options, steps, continued), checked, device, before, console)
        continued = before
    return status | _run(_with_steps(options, longest, continued), checked, device, out, console)


def _name(options: RunOptions, checked: CheckedRun) -> str:
    """Of the default folder. A run that continues another one has its steps in the name, as it is not the first one."""
    name = f"{checked.data_name}-{options.baseline.backbone}-{options.baseline.profile}"
    return name if options.continued is None else f"{name}-{options.baseline.steps}-steps"


def _with_steps(options: RunOptions, steps: int, continued: Path | None = None) -> RunOptions:
    return replace(options, baseline=replace(options.baseline, steps=steps), continued=continued)


def _run(options: RunOptions, checked: CheckedRun, device: str, out: Path, console: Console) -> int:
    """Run one matrix with trainings of one length. device: chosen by the options. out: the folder of the run."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    with ExitStack() as stack:
        # First: a cache in the same folder would make it look like a user's
        if options.plan:
            check_output(out)
        else:
            stack.enter_context(lock_run_folder(out, say))
        # Before the data, which may take an hour to read
        _check_model(options, checked.axes)
        variances = _variances(options) if options.plan else None
        earlier = EarlierRun.read(options.continued) if options.continued is not None else None
        planned = planned_numerics(out) or (earlier.numerics if earlier is not None else None)
        data = open_data(options.data, out, console)
        base = _base(options, data)
        if earlier is not None:
            base = earlier.baseline(base, data.split.fingerprint)
        numerics = planned or decide(base, device, jobs=options.jobs, cpu_kernels=KERNELS[options.cpu_kernels])
        _check_numerics(numerics, options, device, out if earlier is None else earlier.folder)
        request = Request(
            description=_description(options, checked.data_name, data, earlier),
            base=base,
            axes=checked.axes,
            controls=checked.controls,
            seeds=options.seeds,
            first_seed=options.first_seed,
            variants=checked.variants,
            worth=options.worth,
            split=data.split.fingerprint,
            numerics=numerics,
        )
        cells = plan_cells(request)
        todo = pending(out, cells)
        if todo:
            choose_device(numerics.device)  # a run begun on another machine may need a device that is missing here
        if variances is not None:
            done_steps = earlier.steps_done(cells) if earlier is not None else {}
            print_forecast(
                request,
                cells,
                todo,
                console,
                out=out,
                validation=len(data.val),
                jobs=options.jobs,
                done=done_steps,
                shorter=options.lengths[:-1],
            )
            _print_power(variances, request, cells, console, validation=len(data.val))
            return 0
        settle_plan(out, plan_content(request, cells))
        if earlier is not None:
            earlier.write_lengths(out)
        for folder in ((out, earlier.folder) if earlier is not None else (out,)) if todo else ():
            settle_software(folder, mixed=options.mix_versions, warn=say)
        return run_cells(out, request, data, options, console, earlier=earlier)


def _check_model(options: RunOptions, axes: Sequence[FoundAxis]) -> None:
    """Raise UserError if the backbone or its weights do not load, or an axis refuses the baseline."""
    stand_in = base_specification(options.baseline, options.data.source, classes=("object",), train_images=1)
    SSD(stand_in.detector, seed=0)
    check_refusals(axes, stand_in)


def _variances(options: RunOptions) -> Variances:
    """The variances for ``--plan``. Raises UserError if the run of ``--like`` does not show them."""
    from bench.analysis.power import STATED, variances_of  # noqa: PLC0415  # pandas and scipy take a second
    from bench.analysis.run_records import load_run  # noqa: PLC0415

    return STATED if options.like is None else variances_of(load_run(options.like))


def _print_power(
    variances: Variances, request: Request, cells: Sequence[Cell], console: Console, *, validation: int
) -> None:
    """Print which differences the matrix would find."""
    from bench.report.terminal.power import print_power  # noqa: PLC0415

    print_power(
        console,
        variances,
        arms=len({cell.variant for cell in cells if cell.control is None}),
        axes=len(request.axes),
        seeds=request.seeds,
        worth=request.worth / 100,
        images=validation,
    )


def _base(options: RunOptions, data: Dataset) -> Specification:
    """The baseline for these data. Raises UserError if an SSD checkpoint does not fit it."""
    base = base_specification(
        options.baseline, options.data.source, classes=data.index.classes, train_images=len(data.split.train)
    )
    if base.detector.class_outputs:
        model = SSD(base.detector, seed=0)
        if model.taken_over:
            check_taken(model, model.taken_over, base.detector.weights)
    return base


def _check_numerics(numerics: Numerics, options: RunOptions, device: str, out: Path) -> None:
    """Raise UserError if the options ask for another device or other kernels than the run in `out` has."""
    if numerics.device != device and options.device != "auto":
        raise UserError(
            f"{out} was run with --device {numerics.device}; to use --device {device}, choose another --out"
        )
    wanted = KERNELS[options.cpu_kernels]
    if wanted not in (None, numerics.cpu_kernels):
        before = "on" if numerics.cpu_kernels else "off"
        raise UserError(
            f"{out} was run with --cpu-kernels {before}; "
            f"to use --cpu-kernels {options.cpu_kernels}, choose another --out"
        )


def _description(options: RunOptions, name: str, data: Dataset, earlier: EarlierRun | None) -> dict[str, Any]:
    """What plan.json and the tables say of the run."""
    description: dict[str, Any] = {
        "data": name,
        "source": options.data.source,
        "backbone": options.baseline.backbone,
        "profile": options.baseline.profile,
        "split_origin": data.split.origin,
    }
    # Compared with the plan of an earlier start, whose split is kept
    if options.data.eval_list is not None:
        description["eval_list"] = options.data.eval_list
    if options.data.val_fraction != VAL_FRACTION:
        description["val_fraction"] = options.data.val_fraction
    if earlier is not None:
        description["continues"] = {"run": str(earlier.folder), "steps": earlier.steps}
    if options.lengths:
        description["lengths"] = list(options.lengths)
    given = {
        "weights": None if options.baseline.weights == "pretrained" else options.baseline.weights,
        "priors": options.baseline.priors,
        "steps": options.baseline.steps,
        "batch": options.baseline.batch,
        "lr": options.baseline.rate,
        "axis_file": [str(path) for path in options.axis_files] or None,
    }
    description["options"] = {option: value for option, value in given.items() if value is not None}
    return description
