"""Synthetic runs in the format of the runner, with metrics from a formula and a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

AXES = ("fpn", "anchors", "unfreezing")
CLASSES = ("car", "traffic_light", "50% & #1", "[odd] {name}\\~^$x$", "Fußgänger é ő", "猫")


def matrix(axes: Sequence[str] = AXES) -> list[dict[str, bool]]:
    """The factors of every combination, baseline first."""
    rows = [dict(zip(axes, on, strict=True)) for on in product((False, True), repeat=len(axes))]
    return sorted(rows, key=lambda factors: sum(factors.values()))


def name_of(factors: Mapping[str, bool]) -> str:
    return "+".join(name for name, on in factors.items() if on) or "baseline"


def write_run(
    folder: Path,
    *,
    factors: Sequence[Mapping[str, bool]] | None = None,
    controls: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    failed: Mapping[tuple[str, int], str] | None = None,
    pending: Sequence[tuple[str, int]] = (),
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run folder. failed: causes by variant and seed. changes: replacements for entries of the plan."""
    rows = matrix() if factors is None else list(factors)
    axes = list(rows[0]) if rows else []
    variants: list[tuple[str, dict[str, bool], str | None]] = [(name_of(row), dict(row), None) for row in rows]
    variants += [(name, dict.fromkeys(axes, False), name) for name in controls]
    cells: list[dict[str, Any]] = []
    for place, (variant, on, control) in enumerate(variants):
        for seed in seeds:
            cell = {
                "id": f"{place:06x}{seed:06x}",
                "variant": variant,
                "factors": on,
                "seed": seed,
                "control": control,
            }
            cells.append(cell)
            if (variant, seed) not in pending:
                write_cell(folder, cell, cause=(failed or {}).get((variant, seed)))
    plan = {
        "schema": 1,
        "variants": [variant for variant, _, _ in variants],
        "axes": axes,
        "seeds": list(seeds),
        "data": "scenes",
        "backbone": "efficientnet_lite0",
        "profile": "quick",
        "cells": cells,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan | dict(changes or {})))
    return folder


def write_cell(folder: Path, cell: Mapping[str, Any], *, cause: str | None = None) -> None:
    place = folder / "cells" / cell["id"]
    place.mkdir(parents=True, exist_ok=True)
    (place / "record.json").write_text(json.dumps(record(cell, cause=cause)))
    draw = np.random.default_rng(int(cell["id"], 16))
    with (place / "log.jsonl").open("w") as log:
        for step in range(1, (30 if cause else 120) + 1):
            loss = 3 + 14 * np.exp(-step / 15) + draw.normal(0, 0.5) - 0.3 * sum(cell["factors"].values())
            line = {"step": step, "steps": 120, "loss": float(loss), "loss_class": 2.0, "loss_box": 1.0}
            log.write(json.dumps(line | {"rate": 0.01, "images_per_second": 10.0, "seconds": 0.1}) + "\n")


def record(cell: Mapping[str, Any], *, cause: str | None = None) -> dict[str, Any]:
    """The record of a cell: about 20% AP, plus 3, 4 and 1 points for the three axes."""
    content: dict[str, Any] = {"schema": 1, **cell, "status": "failed" if cause else "done", "failure": None}
    content |= {
        "accuracy": None,
        "speed": None,
        "cost": None,
        "environment": {"torch": "2.15", "cpu": {"cores": 2}},
    }
    if cause:
        failure = {
            "cause": cause,
            "step": 12,
            "traceback": "Traceback (most recent call last):",
            "log_tail": ["x"],
        }
        return content | {"failure": failure}
    draw = np.random.default_rng(int(cell["id"], 16))
    ap = 0.2 + draw.normal(0, 0.006)
    ap += sum(gain for gain, on in zip((0.03, 0.04, 0.01), cell["factors"].values(), strict=False) if on)
    accuracy: dict[str, Any] = {
        name: float(ap * factor)
        for name, factor in {
            "AP": 1, "AP50": 1.8, "AP75": 0.9, "AP_small": 0.3, "AP_medium": 1.0, "AP_large": 1.7,
            "AR_1": 0.9, "AR_10": 1.3, "AR_100": 1.4, "AR_small": 0.5, "AR_medium": 1.2, "AR_large": 1.9,
            "AP_small_network": 0.4, "AP_medium_network": 1.3,
            "AP_truncated": 0.6, "AP_untruncated": 1.0, "AR_truncated": 1.2, "AR_untruncated": 1.4,
            "voc_AP_11point": 1.9, "voc_AP_area": 1.85,
        }.items()
    }  # fmt: skip
    accuracy["AP_large_network"] = None
    accuracy["ground_truths"] = {
        "all": 372, "small": 118, "medium": 160, "large": 94,
        "small_network": 201, "medium_network": 171, "large_network": 0,
        "truncated": 90, "untruncated": 282, "occluded": None, "unoccluded": None,
    }  # fmt: skip
    accuracy |= dict.fromkeys(("AP_occluded", "AP_unoccluded", "AR_occluded", "AR_unoccluded"))
    accuracy["per_class"] = {
        name: {
            "AP": ap * (1 + 0.1 * place),
            "AP50": ap,
            "AP75": ap,
            "AR_100": ap,
            "ground_truths": 10 + place,
        }
        for place, name in enumerate(CLASSES)
    }
    accuracy["per_class"]["car"] |= {"AP": None, "ground_truths": 0}
    accuracy["images"] = 48
    cost = 1 + 0.35 * sum(w for w, on in zip((1.0, 0.0, 0.1), cell["factors"].values(), strict=False) if on)
    speed = float(31 / cost + draw.normal(0, 0.4))
    content["accuracy"] = accuracy
    content["speed"] = {
        "images_per_second": speed,
        "best_batch": 8,
        "sweep": [{"batch": batch, "images_per_second": speed * batch / (batch + 1)} for batch in (1, 2, 4, 8)],
        "latency_p50_ms": 1500 / speed,
        "latency_p90_ms": 1800 / speed,
        "latency_p99_ms": 2200 / speed,
        "latency_samples": 60,
        "device": "CPU, 2 cores",
        "threads": 2,
        "precision": "float32",
    }
    content["cost"] = {
        "parameters_M": 5.4 * cost,
        "forward_GFLOP": 2.3 * cost,
        "train_seconds": 180.4 * cost,
        "steps": 120,
        "step_seconds_median": 1.5 * cost,
        "peak_memory_MiB": None,
    }
    return content
