"""Whole runs whose records and matches belong together, from `made_matches`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.analysis.bootstrap import weighted_figures
from tests.analysis.made_matches import draw_matches
from tests.report.made_run import AXES, matrix, write_run

GAINS = {"fpn": 0.5, "half-data": -0.6}  # of skill: what is not named here has none


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
    """A run of `write_run` whose cells have matches, and in their records the figures of these."""
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
        figures = {
            figure: float(values[0]) for figure, values in weighted_figures(matches, np.ones((1, images))).items()
        }
        accuracy = {name: value for (name, label), value in figures.items() if not label}
        per_class = {label: {"AP": value, "ground_truths": 9} for (_, label), value in figures.items() if label}
        record["accuracy"] = {**_without_nan(accuracy), "per_class": per_class, "images": images, "ground_truths": {}}
        path.write_text(json.dumps(record))
    return folder


def _record(folder: Path, cell_id: str) -> Path:
    return folder / "cells" / cell_id / "record.json"


def _without_nan(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in figures.items()}
