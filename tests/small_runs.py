"""The smallest request on the ordinary path, and what tests read of the run that it makes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.axis import find_axes
from bench.data.dataset import open_dataset
from bench.run.cell import CellJob
from bench.run.plan import Request, plan_cells
from bench.speed.inference import SpeedSettings
from tests import tiny

CLOCKS = [
    *("images_per_second", "latency_p50_ms", "latency_p99_ms", "latency_samples", "best_batch"),
    *("train_seconds", "step_seconds_median", "peak_memory_MiB"),
]


def request_words(data: Path, weights: Path, folder: Path) -> list[str]:
    """The eight cells in four steps of two images, a second or two each; writes into `folder` alone."""
    return [
        *("--data", f"voc:{data}", "--backbone", tiny.NAME, "--weights", str(weights)),
        *("--profile", "smoke", "--steps", "4", "--batch", "2", "--device", "cpu"),
        *("--out", str(folder / "run"), "--cache", str(folder / "cache")),
    ]


def records(run: Path) -> dict[str, dict[str, Any]]:
    """Records by variant."""
    found = [json.loads(path.read_text()) for path in sorted(run.glob("cells/*/record.json"))]
    return {record["variant"]: record for record in found}


def without_clocks(run: Path) -> pd.DataFrame:
    """The ablation table but for what a clock measured."""
    return pd.read_csv(run / "tables/ablation.csv").drop(columns=CLOCKS)


def jobs_of(data: Path, folder: Path, axis_file: Path, axes: tuple[str, ...], *, steps: int = 2) -> list[CellJob]:
    """The baseline and every combination of `axes`, some steps of two images each."""
    opened = open_dataset(f"voc:{data}", cache=folder / "cache", workers=1)
    base = tiny.specification()
    request = Request(
        description={},
        base=replace(base, training=replace(base.training, steps=steps, batch=2)),
        axes=[find_axes("variants", [axis_file])[name] for name in axes],
        controls={},
        seeds=1,
        split=opened.split.fingerprint,
        numerics=tiny.NUMERICS,
    )
    return [
        CellJob(
            cell=cell,
            run=folder / "run",
            train=opened.train,
            val=opened.val,
            pixels=opened.pixels,
            axis_files=(axis_file,),
            speed=SpeedSettings.quick(),
            hung_after=600.0,
        )
        for cell in plan_cells(request)
    ]
