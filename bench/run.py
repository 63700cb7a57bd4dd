"""A run from its plan to its report: what lies in its folder, and in which order it gets there."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from bench.atomic import remove_leftovers, write_json
from bench.cell import CellJob
from bench.checkpoints import remove_checkpoints
from bench.data import split as splits
from bench.data.image_files import save_image_files
from bench.data.opened import IMAGE_FILES, OpenedData
from bench.data.preflight import write_report
from bench.data.thumbnails import remove_thumbnails, write_thumbnails
from bench.evaluation import ground_truth_coco
from bench.matrix import pending
from bench.numerics import available_cores
from bench.report import build_report
from bench.report.display import CellLine, LiveDisplay, print_ablation, print_verdict
from bench.runner import run_jobs
from bench.spec import Cell
from bench.store import CHECKPOINT, cell_folder, environment, read_record
from bench.throughput import SpeedSettings, device_description
from bench.watch import Watch


def start(
    out: Path,
    cells: list[Cell],
    data: OpenedData,
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

    hung_after: seconds without progress after which a cell has failed.
    images: keep thumbnails of some validation images for the page.
    """
    _describe(out, data, cells[0].numerics.device)
    if images:
        write_thumbnails(out, data.val, data.pixels)
    else:
        remove_thumbnails(out)
    todo = pending(out, cells)
    kept = {cell.id for cell in cells} - {cell.id for cell in todo}
    _tidy(out, kept)
    if kept:
        console.print(f"{len(kept)} of {len(cells)} cells are done and kept", highlight=False)
    train, val = data.train, data.val
    jobs = [
        CellJob(
            cell=cell,
            run=out,
            train=train,
            val=val,
            pixels=data.pixels,
            axes_package=axes_package,
            axis_files=axis_files,
            speed=speed,
            hung_after=hung_after,
        )
        for cell in todo
    ]
    if jobs:
        watch = Watch(out, cells, kept)
        lines = [CellLine(id=cell.id, variant=cell.variant, seed=cell.seed) for cell in cells]
        with LiveDisplay(lines, console) as display:

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

            run_jobs(jobs, parallel=parallel, backend=backend, retries=retries, watch=show)
        for cell in todo:
            for warning in (read_record(out, cell.id) or {}).get("warnings", ()):
                console.print(f"warning: {cell.variant}, seed {cell.seed}: {warning}", markup=False, highlight=False)
    built = build_report(out)
    print_ablation(built.run, console)
    print_verdict(built.verdict, console)
    console.print(f"{len(built.files)} tables and plots in {out}", markup=False, highlight=False)
    return 1 if any(True for _ in built.run.failures()) else 0


def _describe(out: Path, data: OpenedData, device: str) -> None:
    """The files that say what all cells share."""
    if not (out / "split.json").is_file():
        splits.save(data.split, data.index, out / "split.json")
    if not (out / IMAGE_FILES).is_file():
        save_image_files(data.index, out / IMAGE_FILES, workers=available_cores())
    write_report(data.report, out / "preflight.json")
    write_json(out / "ground_truth.json", ground_truth_coco(data.val), indent=None)
    write_json(out / "environment.json", environment(device_description(torch.device(device))))


def _tidy(out: Path, kept: set[str]) -> None:
    """Delete what killed processes left: unfinished files, and checkpoints of cells that were done already."""
    for folder in (out, out / "tables", out / "plots", *out.glob("cells/*")):
        remove_leftovers(folder)
    for cell_id in kept:
        remove_checkpoints(cell_folder(out, cell_id) / CHECKPOINT)
