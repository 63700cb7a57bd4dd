"""Synthetic speed.json files, from rounds with known medians."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

BATCH, CALLS = 8, 200


def write_speeds(
    folder: Path,
    latencies: Mapping[tuple[str, ...], float],
    *,
    busy: Mapping[str, str] | None = None,
    noise: float = 0.02,
    rounds: int = 12,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Write speed.json into a run folder.

    latencies: seconds at batch size 1 by network, which is a tuple of variants; throughput is 1.5 images in that time.
    busy: reasons by the name of a network. noise: deviation of a round, on the log scale. changes: of the content.
    """
    draw = np.random.default_rng(0)
    cells = json.loads((folder / "plan.json").read_text())["cells"]
    kinds = {"latency": 1.0, "throughput": BATCH / 1.5}
    seconds = {
        (variants[0], kind): factor * latency * np.exp(draw.normal(0, noise, rounds))
        for variants, latency in latencies.items()
        for kind, factor in kinds.items()
    }
    reference = next((variants[0] for variants in latencies if "baseline" in variants), None)
    networks = []
    for variants in latencies:
        name, reason = variants[0], (busy or {}).get(variants[0], "")
        latency, throughput = (_interval(seconds[name, kind]) for kind in ("latency", "throughput"))
        ratio, latency_ratio = (
            None if reference is None else _ratio(seconds[reference, kind], seconds[name, kind])
            for kind in ("throughput", "latency")
        )
        networks.append(
            {
                "network": name,
                "variants": list(variants),
                "cells": [cell["id"] for cell in cells if cell["variant"] in variants],
                "images_per_second": {
                    **dict(zip(("value", "high", "low"), (BATCH / each for each in throughput), strict=True)),
                    "batch": BATCH,
                },
                "latency_ms": {
                    **dict(zip(("p50", "low", "high"), (1000 * each for each in latency), strict=True)),
                    **{"p90": 1100 * latency[0], "p99": 1300 * latency[0], "calls": CALLS},
                },
                "rounds_ms": {kind: list(1000 * seconds[name, kind]) for kind in kinds},
                "ratio": ratio,
                "latency_ratio": latency_ratio,
                "memory_MiB": 512.0,
                "busy": bool(reason),
                "reason": reason,
            }
        )
    content = {
        "schema": 1,
        "numerics": {"device": "cpu", "threads": 2, "precision": "float32"},
        "machine": {"name": "Made-up CPU"},
        "cells": [cell["id"] for cell in cells],
        "networks": networks,
        "failure": None,
    }
    (folder / "speed.json").write_text(json.dumps(content | dict(changes or {})))


def _interval(seconds: np.ndarray) -> tuple[float, float, float]:
    """Geometric mean and its 95% interval."""
    interval = stats.ttest_1samp(np.log(seconds), 0.0).confidence_interval(0.95)
    return float(stats.gmean(seconds)), float(np.exp(interval.low)), float(np.exp(interval.high))


def _ratio(reference: np.ndarray, seconds: np.ndarray) -> dict[str, float]:
    if reference is seconds:
        return {"rounds": len(seconds), "value": 1.0, "low": 1.0, "high": 1.0}
    value, low, high = _interval(reference / seconds)
    return {"rounds": len(seconds), "value": value, "low": low, "high": high}
