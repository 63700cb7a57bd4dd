"""A run from its plan to its report: what lies in its folder, and in which order it gets there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from bench.data import split as splits
from bench.data.dataset import IMAGE_FILES, Dataset
from bench.data.image_files import save_image_files
from bench.data.preflight import write_report
from bench.data.thumbnails import remove_thumbnails, write_thumbnails
from bench.evaluation.coco_format import ground_truth_coco
from bench.report import build_report
from bench.report.terminal.display import CellLine, LiveDisplay, print_ablation, print_verdict
from bench.run.cell import CellJob
from bench.run.compile_kernels import compile_loops
from bench.run.numerics import available_cores
from bench.run.plan import Request, pending, plan_cells, with_more_micro_batches
from bench.run.progress import Watch
from bench.run.scheduler import run_jobs
from bench.spec import Cell
from bench.speed.inference import SpeedSettings, device_description
from bench.storage.atomic import remove_leftovers, write_json
from bench.storage.provenance import environment
from bench.storage.records import read_record
from bench.storage.run_folder import CHECKPOINT, cell_folder
from bench.training.checkpoints import remove_checkpoints

WORTH_TELLING = 5.0  # seconds in which nothing seems to happen


class _TooLarge(Exception):
    """A cell has failed for want of memory, and smaller pieces of its batches may help."""


def start(
    out: Path,
    request: Request,
    data: Dataset,
    *,
    axes_package: str,
    axis_files: tuple[Path, ...],
    speed: SpeedSettings,
    parallel: int,
    backend: str,
    retries: int,
    hung_after: float,
    images: bool,
    console: Console,
) -> int:
    """Run the cells that are not done, then write tables, plots and page; 0, or 1 if a cell has failed.

    Where memory does not hold a batch in one arm, all arms begin again with smaller pieces of it.

    request: the one that `out` holds the plan of.
    hung_after: seconds without progress after which a cell has failed.
    images: keep thumbnails of some validation images for the page.
    """
    cells = plan_cells(request)
    _describe(out, data, request.numerics.device if pending(out, cells) else None)
    if images:
        write_thumbnails(out, data.val, data.pixels)
    else:
        remove_thumbnails(out)

    def jobs_of(todo: Sequence[Cell]) -> list[CellJob]:
        return [
            CellJob(
                cell=cell,
                run=out,
                train=data.train,
                val=data.val,
                pixels=data.pixels,
                axes_package=axes_package,
                axis_files=axis_files,
                speed=speed,
                hung_after=hung_after,
            )
            for cell in todo
        ]

    while True:
        todo = pending(out, cells)
        kept = {cell.id for cell in cells} - {cell.id for cell in todo}
        _tidy(out, cells, kept)
        if kept:
            console.print(f"{len(kept)} of {len(cells)} cells are done and kept", highlight=False)
        if todo:
            _compile(request, console)
        try:
            _run_cells(out, cells, jobs_of(todo), kept, console, parallel=parallel, backend=backend, retries=retries)
            break
        except _TooLarge as cause:
            request, cells = with_more_micro_batches(out, request)
            console.print(
                f"{cause}; all cells begin again, with batches in {request.numerics.micro_batches} pieces, whose gradients "
                "are added up",
                markup=False,
                highlight=False,
            )
    for cell in todo:
        for warning in (read_record(out, cell.id) or {}).get("warnings", ()):
            console.print(f"warning: {cell.variant}, seed {cell.seed}: {warning}", markup=False, highlight=False)
    built = build_report(out)
    print_ablation(built.run, console)
    print_verdict(built.verdict, console)
    console.print(f"{len(built.files)} tables and plots in {out}", markup=False, highlight=False)
    return 1 if any(True for _ in built.run.failures()) else 0


def _run_cells(
    out: Path,
    cells: list[Cell],
    jobs: list[CellJob],
    kept: set[str],
    console: Console,
    *,
    parallel: int,
    backend: str,
    retries: int,
) -> None:
    """Run the jobs, and show how all cells stand. Raises _TooLarge where smaller pieces of a batch may help."""
    if not jobs:
        return
    watch = Watch(out, cells, kept)
    with LiveDisplay(
        [CellLine(id=cell.id, variant=cell.variant, seed=cell.seed) for cell in cells], console
    ) as display:

        def show() -> None:
            for cell_id, state in watch.look().items():
                display.update(
                    cell_id,
                    state=state.state,
                    step=state.step,
                    steps=state.steps,
                    loss=state.loss,
                    images_per_second=state.images_per_second,
                    phase=state.phase,
                    ap=state.ap,
                )
            for cell in cells:
                if watch.states[cell.id].state == "failed":
                    _check_size(out, cell)

        run_jobs(jobs, parallel=parallel, backend=backend, retries=retries, watch=show)


def _compile(request: Request, console: Console) -> None:
    """Have what all cells compute with compiled before the first of them."""
    try:
        seconds = compile_loops(request.base, request.numerics)
    except RuntimeError as error:
        console.print(f"{error}; the first cell will compile them, and seem to train more slowly", highlight=False)
    else:
        if seconds > WORTH_TELLING:
            console.print(f"loops compiled for this machine in {seconds:.0f} s, once", highlight=False)


def _check_size(out: Path, failed: Cell) -> None:
    """Raise _TooLarge if the cell failed for want of memory and its batch can be divided further."""
    failure = (read_record(out, failed.id) or {}).get("failure") or {}
    if failure.get("batch_too_large") and failed.numerics.micro_batches < failed.base.training.batch:
        raise _TooLarge(f"{failed.variant}, seed {failed.seed}: {failure['cause']}")


def _describe(out: Path, data: Dataset, device: str | None) -> None:
    """The files that say what all cells share, and the machine that they run on; None where none is left to run."""
    if not (out / "split.json").is_file():
        splits.save(data.split, data.index, out / "split.json")
    if not (out / IMAGE_FILES).is_file():
        save_image_files(data.index, out / IMAGE_FILES, workers=available_cores())
    write_report(data.report, out / "preflight.json")
    write_json(out / "ground_truth.json", ground_truth_coco(data.val), indent=None)
    if device is not None:
        write_json(out / "environment.json", environment(device_description(torch.device(device))))


def _tidy(out: Path, cells: Sequence[Cell], kept: set[str]) -> None:
    """Delete cells of a plan that was given up, unfinished files of killed processes, checkpoints of done cells."""
    planned = {cell_folder(out, cell.id) for cell in cells}
    for folder in set(out.glob("cells/*")) - planned:
        if folder.is_dir():
            shutil.rmtree(folder)
    for folder in (out, out / "tables", out / "plots", *out.glob("cells/*")):
        remove_leftovers(folder)
    for cell_id in kept:
        remove_checkpoints(cell_folder(out, cell_id) / CHECKPOINT)
