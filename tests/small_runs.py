"""The smallest request on the ordinary path, and what tests read of the run that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

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
