"""Run the cells of a plan that are not done, then report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from rich.console import Console

from bench.analysis.run_records import load_run
from bench.data import split as splits
from bench.data.dataset import Dataset
from bench.data.image_files import save_image_files
from bench.data.preflight import write_report
from bench.data.thumbnails import write_thumbnails
from bench.device.hardware import available_cores, device_description
from bench.evaluation.coco_format import ground_truth_coco
from bench.options import RunOptions
from bench.report import build_report
from bench.report.terminal.ablation import print_ablation
from bench.report.terminal.display import CellLabel, LiveDisplay
from bench.report.terminal.verdict import print_verdict
from bench.run.cell import FIT_IMAGES, CellJob
from bench.run.compile_kernels import compile_kernels
from bench.run.continuing import EarlierRun
from bench.run.plan import Request, execution_order, pending, plan_cells, with_more_micro_batches
from bench.run.progress import ProgressReader
from bench.run.scheduler import run_jobs
from bench.spec import Cell
from bench.speed.in_turns import InTurnsSettings, is_current, measure_in_turns
from bench.speed.inference import SpeedSettings
from bench.storage.atomic import write_json
from bench.storage.own_files import remove_thumbnails
from bench.storage.provenance import environment
from bench.storage.records import read_record
from bench.storage.run_folder import (
    CHECKPOINT,
    ENVIRONMENT,
    GROUND_TRUTH,
    IMAGE_FILES,
    PREFLIGHT,
    SPEED,
    SPLIT,
    cell_folder,
)
from bench.training.checkpoints import remove_checkpoints

SILENT_SECONDS = 5.0  # report a compilation that took longer
# Of profile smoke
SMOKE_SPEED = SpeedSettings(budget_seconds=1.5)
SMOKE_FIT_IMAGES = 20


class _OutOfMemory(Exception):
    """A cell ran out of memory, and more micro-batches may help."""


def run_cells(
    out: Path,
    request: Request,
    data: Dataset,
    options: RunOptions,
    console: Console,
    *,
    earlier: EarlierRun | None = None,
) -> int:
    """Run the cells that are not done, then write tables, plots and page. Returns 0, or 1 if a cell failed.

    If one arm runs out of memory, all arms restart with gradient accumulation.

    out: the folder of the run, which holds the plan of `request`. earlier: the run whose trainings continue.
    """
    cells = plan_cells(request)
    _write_shared_files(out, data, request.numerics.device if pending(out, cells) else None)
    if options.images:
        write_thumbnails(out, data.val, data.pixels)
    else:
        remove_thumbnails(out)
    while True:
        todo = pending(out, execution_order(cells))
        done = {cell.id for cell in cells} - {cell.id for cell in todo}
        _clean_up(out, done)
        if done:
            console.print(f"{len(done)} of {len(cells)} cells are already done", highlight=False)
        if not todo:
            break
        _compile_kernels(request, console)
        try:
            begun = earlier.cells(todo) if earlier is not None else {}
            jobs = [_job_of(cell, out, data, options, earlier=begun.get(cell.id)) for cell in todo]
            _run_jobs(out, cells, jobs, options, console)
            break
        except _OutOfMemory as cause:
            request, cells = with_more_micro_batches(out, request)
            console.print(
                f"{cause}; all cells restart with {request.numerics.micro_batches} micro-batches per step "
                "(gradient accumulation)",
                markup=False,
                highlight=False,
            )
    for cell in todo:
        for warning in (read_record(out, cell.id) or {}).get("warnings", ()):
            console.print(f"warning: {cell.variant}, seed {cell.seed}: {warning}", markup=False, highlight=False)
    _measure_speed(out, request, data, options, console)
    report = build_report(out)
    print_ablation(report.run, report.ablation, console)
    print_verdict(report.verdict, console)
    console.print(f"{len(report.files)} tables and plots in {out}", markup=False, highlight=False)
    return 1 if any(True for _ in report.run.failures()) else 0


def _measure_speed(out: Path, request: Request, data: Dataset, options: RunOptions, console: Console) -> None:
    """Measure the networks of the finished cells in turns on this machine, unless speed.json already covers them."""
    run = load_run(out)
    if is_current(run) or not any(run.done()):
        return
    settings = InTurnsSettings.smoke() if options.baseline.profile == "smoke" else InTurnsSettings()
    with console.status("measuring the speed of the networks in turns"):
        content = measure_in_turns(run, numerics=request.numerics, val=data.val, pixels=data.pixels, settings=settings)
    write_json(out / SPEED, content)
    if content["failure"]:
        console.print(f"speed in turns was {content['failure']}", markup=False, highlight=False)


def _write_shared_files(out: Path, data: Dataset, device: str | None) -> None:
    """Write the files that describe what all cells share. device: None if no cell is left to run."""
    if not (out / SPLIT).is_file():
        splits.save(data.split, data.index, out / SPLIT)
    if not (out / IMAGE_FILES).is_file():
        save_image_files(data.index, out / IMAGE_FILES, workers=available_cores())
    write_report(data.report, out / PREFLIGHT)
    write_json(out / GROUND_TRUTH, ground_truth_coco(data.val), indent=None)
    if device is not None:
        write_json(out / ENVIRONMENT, environment(device_description(torch.device(device))))


def _clean_up(out: Path, done: Collection[str]) -> None:
    """Delete checkpoints of done cells."""
    for cell_id in done:
        remove_checkpoints(cell_folder(out, cell_id) / CHECKPOINT)


def _compile_kernels(request: Request, console: Console) -> None:
    """Compile the kernels first, so that the first cell does not seem to train more slowly than the others."""
    try:
        seconds = compile_kernels(request.base, request.numerics)
    except RuntimeError as error:
        console.print(f"{error}; the first cell will compile them and seem to train more slowly", highlight=False)
    else:
        if seconds > SILENT_SECONDS:
            console.print(f"CPU kernels compiled for this machine in {seconds:.0f} s", highlight=False)


def _job_of(cell: Cell, out: Path, data: Dataset, options: RunOptions, *, earlier: Path | None) -> CellJob:
    smoke = options.baseline.profile == "smoke"
    return CellJob(
        cell=cell,
        run=out,
        train=data.train,
        val=data.val,
        pixels=data.pixels,
        axis_files=options.axis_files,
        speed=SMOKE_SPEED if smoke else SpeedSettings(),
        fit_images=SMOKE_FIT_IMAGES if smoke else FIT_IMAGES,
        hung_after=60 * options.hung_after,
        earlier=earlier,
        keep_state=not smoke,
    )


def _run_jobs(out: Path, cells: Sequence[Cell], jobs: Sequence[CellJob], options: RunOptions, console: Console) -> None:
    """Run the jobs and show the progress of all cells. Raises _OutOfMemory if more micro-batches may help."""
    kept = {cell.id for cell in cells} - {job.cell.id for job in jobs}
    progress = ProgressReader(out, cells, kept)
    lines = [CellLabel(id=cell.id, variant=cell.variant, seed=cell.seed) for cell in cells]
    with LiveDisplay(lines, console) as display:

        def watch() -> None:
            for cell_id, each in progress.update().items():
                display.update(
                    cell_id,
                    state=each.state,
                    step=each.step,
                    steps=each.steps,
                    loss=each.loss,
                    images_per_second=each.images_per_second,
                    phase=each.phase,
                    ap=each.ap,
                )
            for cell in cells:
                if progress.cells[cell.id].state == "failed":
                    _raise_if_out_of_memory(out, cell)

        run_jobs(jobs, parallel=options.jobs, backend=options.backend, retries=options.retries, watch=watch)


def _raise_if_out_of_memory(out: Path, failed: Cell) -> None:
    """Raise _OutOfMemory if the cell ran out of memory and its micro-batches can be smaller."""
    failure = (read_record(out, failed.id) or {}).get("failure") or {}
    if failure.get("batch_too_large") and failed.numerics.micro_batches < failed.base.training.batch:
        raise _OutOfMemory(f"{failed.variant}, seed {failed.seed}: {failure['cause']}")
