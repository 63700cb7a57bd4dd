"""Synthetic runs with consistent records and matches, from `made_matches`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.analysis.bootstrap import weighted_metrics
from tests.analysis.made_matches import draw_matches
from tests.report.made_run import AXES, matrix, write_run

GAINS = {"fpn": 0.5, "half-data": -0.6}  # change of skill; 0 for anything else


def write_matches(
    folder: Path,
    *,
    axes: Sequence[str] = AXES,
    seeds: Sequence[int] = (0,),
    controls: Sequence[str] = (),
    images: int = 40,
    gains: Mapping[str, float] = GAINS,
    **rest: object,
) -> Path:
    """Write a run whose cells have matches and records with the metrics of these matches."""
    write_run(folder, factors=matrix(axes), seeds=seeds, controls=controls, **rest)  # type: ignore[arg-type]
    cells = [
        cell
        for cell in json.loads((folder / "plan.json").read_text())["cells"]
        if _record(folder, cell["id"]).is_file()
    ]
    skills = [
        0.3 + sum(gain for name, gain in gains.items() if name in (*cell["variant"].split("+"), cell["control"]))
        for cell in cells
    ]
    drawn = draw_matches(np.random.default_rng(7), skills, images=images, sizes=True)
    for cell, matches in zip(cells, drawn, strict=True):
        path = _record(folder, cell["id"])
        record = json.loads(path.read_text())
        if record["status"] != "done":
            continue
        matches.save(path.with_name("matches.npz"))
        metrics = {
            metric: float(values[0]) for metric, values in weighted_metrics(matches, np.ones((1, images))).items()
        }
        accuracy = {name: value for (name, label), value in metrics.items() if not label}
        per_class = {label: {"AP": value, "ground_truths": 9} for (_, label), value in metrics.items() if label}
        record["accuracy"] = {**_without_nan(accuracy), "per_class": per_class, "images": images, "ground_truths": {}}
        path.write_text(json.dumps(record))
    return folder


def of_steps(folder: Path, steps: int) -> Path:
    """Make the run one of so many steps."""
    plan = json.loads((folder / "plan.json").read_text())
    plan["base"] = {"training": {"steps": steps, "batch": 16}}
    (folder / "plan.json").write_text(json.dumps(plan))
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        record["cost"]["steps"] = steps
        path.write_text(json.dumps(record))
    return folder


def _record(folder: Path, cell_id: str) -> Path:
    return folder / "cells" / cell_id / "record.json"


def _without_nan(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}
