"""A whole small results folder, and what a stranger may have done to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.analysis.run_records import load_run
from bench.data.thumbnails import write_thumbnails
from bench.evaluation.coco import evaluate
from bench.evaluation.coco_format import detections_coco, ground_truth_coco
from bench.evaluation.detections import Detections, xywh
from bench.evaluation.error_types import error_types
from bench.evaluation.matches import average_precision
from tests.index_builders import index_of
from tests.report.made_run import matrix, write_run

CELL = "000000000000"  # the baseline
TRUTHS = [[(0, 10.0, 10.0, 50.0, 50.0), (1, 60.0, 20.0, 90.0, 70.0)], [], [(1, 5.0, 5.0, 30.0, 30.0)]]
FOUND = [(0, 0, 0.9, (11.0, 10.0, 50.0, 50.0)), (0, 0, 0.8, (60.0, 20.0, 90.0, 70.0)), (2, 1, 0.2, (5, 5, 30, 30))]
DETECTOR = {"size": 300, "priors": [[[0.1, 0.1]], [[0.5, 0.5]]], "feature_maps": [38, 19], "match_threshold": 0.5}
TRAINING = {"steps": 4, "batch": 2, "data_share": 1.0}


def write_results(folder: Path) -> Path:
    """A run of two cells with every file that a report reads."""
    write_run(folder, factors=matrix(("fpn",)), changes={"base": {"detector": DETECTOR, "training": TRAINING}})
    index = index_of(TRUTHS, root=folder.parent)
    for name in index.files:
        Image.new("RGB", (100, 80), (90, 90, 90)).save(folder.parent / name)
    write_thumbnails(folder, index, None)
    write(folder / "ground_truth.json", ground_truth_coco(index))
    write(folder / "environment.json", {"python": "3.11", "packages": {"torch": "2"}})
    write(folder / "images.json", {"schema": 1, "files": {}})
    sides = {"files": list(index.files), "digests": ["0"] * len(index)}
    split = {"schema": 1, "classes": list(index.classes), "origin": "made", "fingerprint": "0", "train": sides}
    write(folder / "split.json", split | {"val": sides | {"groups": list(range(len(index)))}})
    write(folder / "speed.json", _speeds(folder))
    detections = Detections(
        image=np.array([row[0] for row in FOUND], dtype=np.int64),
        labels=np.array([row[1] for row in FOUND], dtype=np.int32),
        scores=np.array([row[2] for row in FOUND], dtype=np.float32),
        boxes=np.array([row[3] for row in FOUND], dtype=np.float32).reshape(-1, 4),
    )
    for cell in load_run(folder).cells:
        place = folder / "cells" / cell.id
        write(place / "detections.json", detections_coco(detections, index))
        matches = evaluate(index, detections).matches
        matches.save(place / "matches.npz")
        error_types(matches, xywh(detections.boxes[matches.detection]), xywh(index.boxes)).save(
            place / "error_types.npz"
        )
        record = json.loads((place / "record.json").read_text())
        record["accuracy"]["AP"] = float(np.nanmean(average_precision(matches)))
        record |= {"detector": DETECTOR, "training": TRAINING, "training_fit": {"AP": 0.3, "images": 2}}
        record |= {"prior_recall": {"val": {"after": {"matched": 0.5, "boxes": 3}}}, "fingerprints": {"weights": "0"}}
        write(place / "record.json", record)
    return folder


def _speeds(folder: Path) -> dict[str, Any]:
    figures = {"value": 20.0, "low": 19.0, "high": 21.0}
    networks = [
        {
            "network": variant,
            "variants": [variant],
            "images_per_second": figures | {"batch": 8},
            "latency_ms": {"p50": 20.0, "low": 19.0, "high": 21.0, "p90": 22.0, "p99": 30.0, "calls": 40},
            "ratio": {"value": 1.0, "low": 0.9, "high": 1.1, "rounds": 5},
            "latency_ratio": {"value": 1.0, "low": 0.9, "high": 1.1, "rounds": 5},
            "memory_MiB": 100.0,
            "busy": False,
            "reason": None,
            "rounds_ms": {"latency": [20.0, 21.0, 19.0], "throughput": [50.0, 51.0, 49.0]},
        }
        for variant in ("baseline", "fpn")
    ]
    numerics = {"device": "cpu", "threads": 2, "precision": "float32"}
    cells = [cell.id for cell in load_run(folder).cells]
    return {"networks": networks, "numerics": numerics, "machine": {"name": "x"}, "cells": cells, "failure": None}


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
