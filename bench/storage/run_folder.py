"""Names of the files in a run's folder, ``results/NAME/``."""

from __future__ import annotations

from pathlib import Path

PLAN = "plan.json"
SPLIT = "split.json"
IMAGE_FILES = "images.json"  # size, time and checksum of every image file
GROUND_TRUTH = "ground_truth.json"
ENVIRONMENT = "environment.json"
PREFLIGHT = "preflight.json"
SPEED = "speed.json"  # of the trained networks, measured in turns after the last cell
PAGE = "report.html"
TABLES = "tables"
PLOTS = "plots"
THUMBNAILS = "thumbnails"
LOCK = "in-use.json"
STOP = "stopping"  # tells workers on other machines to stop

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

_CELLS = "cells"


def cell_folder(run: Path, cell_id: str) -> Path:
    """The folder of a cell, whether it exists or not."""
    return run / _CELLS / cell_id


def cell_folders(run: Path) -> list[Path]:
    """The folders of all cells that exist, of earlier plans too."""
    return sorted(folder for folder in (run / _CELLS).glob("*") if folder.is_dir())
