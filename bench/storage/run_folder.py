"""Names of the files in a run's folder, ``results/NAME/``."""

from __future__ import annotations

import re
from pathlib import Path

MARKER = ".ssd-ablation"  # says that we made the folder; see `own_files`
PLAN = "plan.json"
SPLIT = "split.json"
IMAGE_FILES = "images.json"  # size, times and checksum of every image file
GROUND_TRUTH = "ground_truth.json"
ENVIRONMENT = "environment.json"
PREFLIGHT = "preflight.json"
SPEED = "speed.json"  # of the trained networks, measured in turns after the last cell
LENGTHS = "lengths.json"  # the figures of the shorter runs that this one continues
PAGE = "report.html"
TABLES = "tables"
PLOTS = "plots"
THUMBNAILS = "thumbnails"
PREDICTIONS = "predictions"
LOCK = "in-use.json"
STOP = "stopping"  # tells workers on other machines to stop

# In folders of other commands
DIAGNOSIS = "diagnosis.json"
COMPARISON = "comparison.json"
DIAGNOSIS_TEXT = "diagnosis.md"
THROUGHPUT = "throughput.json"

# In a cell's folder, cells/<id>/
RECORD = "record.json"
LOG = "log.jsonl"
OUTPUT = "output.txt"  # what the cell's process printed
PRIORS = "priors.json"
DETECTIONS = "detections.json"
MATCHES = "matches.npz"
ERROR_TYPES = "error_types.npz"
WEIGHTS = "weights.pt"
CHECKPOINT = "checkpoint.pt"  # only while the cell trains
BEFORE_DECAY = "before_decay.pt"  # a checkpoint that longer trainings continue from

CELL_ID = re.compile(r"[0-9a-f]{12}")  # `bench.spec.content_hash`
VARIANT = re.compile(r"[\w+.-]+")  # names of axes joined by +, or a control
THUMBNAIL = re.compile(r"-?\d+\.jpg")  # the image's id

CELLS = "cells"


def cell_folder(run: Path, cell_id: str) -> Path:
    """The folder of a cell, whether it exists or not."""
    return run / CELLS / cell_id


def cell_folders(run: Path) -> list[Path]:
    """The folders of all cells that exist, of earlier plans too; folders of other names are not ours."""
    return sorted(path for path in (run / CELLS).glob("*") if CELL_ID.fullmatch(path.name) and path.is_dir())


def thumbnail_list(run: Path) -> Path:
    """The file that lists the thumbnails of a run."""
    return run / THUMBNAILS / "thumbnails.json"


def previous_of(checkpoint: Path) -> Path:
    """The path of the checkpoint before the one at `checkpoint`."""
    return checkpoint.with_name(f"{checkpoint.stem}.previous{checkpoint.suffix}")


CELL_FILES = (
    *(RECORD, LOG, OUTPUT, PRIORS, DETECTIONS, MATCHES, ERROR_TYPES, WEIGHTS),
    *(CHECKPOINT, previous_of(Path(CHECKPOINT)).name),
    *(BEFORE_DECAY, previous_of(Path(BEFORE_DECAY)).name),
)
RUN_FILES = (
    *(MARKER, PLAN, SPLIT, IMAGE_FILES, GROUND_TRUTH, ENVIRONMENT, PREFLIGHT, SPEED, PAGE, LOCK, STOP),
    *(LENGTHS, DIAGNOSIS, DIAGNOSIS_TEXT, COMPARISON, THROUGHPUT, DETECTIONS),
)
RUN_FOLDERS = (TABLES, PLOTS, THUMBNAILS, PREDICTIONS)
