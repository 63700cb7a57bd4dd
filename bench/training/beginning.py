"""Start a training from the state that a shorter one kept."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

from bench.spec import Cell, Specification
from bench.storage.atomic import replacing
from bench.storage.cell_log import CellLog
from bench.storage.records import as_read, read_log, read_record
from bench.storage.run_folder import BEFORE_DECAY, CHECKPOINT, LOG
from bench.training.schedule import same_beginning, steps_before_decay


def continue_from(earlier: Path, folder: Path, cell: Cell, spec: Specification, *, train: str) -> str:
    """Copy the state and the log of the earlier cell's first steps; returns why that is wrong, "" if it is done.

    earlier, folder: of the two cells. spec: what the new cell trains. train: fingerprint of its training images.
    """
    record = read_record(earlier.parent.parent, earlier.name) or {}
    prints = record.get("fingerprints") or {}
    its = (record.get("numerics"), record.get("detector"), prints.get("train"), prints.get("axes"), record.get("seed"))
    own = as_read((asdict(cell.numerics), asdict(spec.detector), train, dict(cell.axes), cell.seed))
    if record.get("status") != "done" or list(its) != own:
        return "the earlier training was not of the same network on the same images"
    told = record.get("training") or {}
    begun = replace(spec.training, steps=told.get("steps", 1), warmup_share=told.get("warmup_share", 0.0))
    kept = steps_before_decay(begun)
    if as_read(asdict(begun)) != told or not same_beginning(begun, spec.training, kept):
        return "its schedule depends on the number of steps, so a longer training begins differently"
    log = CellLog(folder / LOG)
    log.cut_after(0)
    for line in read_log(earlier / LOG):
        if 0 < line.get("step", 0) <= kept:
            log.write(**{**line, "steps": spec.training.steps})
    # Last: a cell that is killed before starts again here
    with (earlier / BEFORE_DECAY).open("rb") as source, replacing(folder / CHECKPOINT) as target:
        shutil.copyfileobj(source, target)
    return ""
