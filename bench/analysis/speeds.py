"""Speed of a run's networks from speed.json, and the Pareto front of AP and speed.

`bench.speed.in_turns` writes the file; its intervals come from paired rounds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from bench.analysis.run_records import Run, cells_frame
from bench.analysis.statistics import student
from bench.storage.forms import SpeedsForm, mismatch
from bench.storage.records import read_json
from bench.storage.run_folder import SPEED

COLUMNS = (
    *("variant", "network", "variants_of_network"),
    *("images_per_second", "images_per_second_low", "images_per_second_high", "batch"),
    *("latency_p50_ms", "latency_low", "latency_high", "latency_p90_ms", "latency_p99_ms", "latency_calls"),
    *("memory_MiB", "ratio", "ratio_low", "ratio_high", "n"),
    *("latency_ratio", "latency_ratio_low", "latency_ratio_high", "busy", "reason", "is_control"),
)
# Columns of the tables and where they come from
_REPLACED = {
    **{name: name for name in ("images_per_second", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms")},
    "latency_samples": "latency_calls",
    "best_batch": "batch",
}
Measure = Literal["latency", "throughput"]


def read_speed(run: Run) -> dict[str, Any] | None:
    """The content of speed.json; None if there is none or it is damaged."""
    content = read_json(run.folder / SPEED)
    return content if mismatch(content, SpeedsForm) is None else None


def load_speeds(run: Run) -> pd.DataFrame:
    """One row per variant of the plan, in its order; empty if the run has no speed.json or nothing was measured.

    network: name of the network, that of its first variant; "" for a variant that was not measured.
    variants_of_network: tuple of the variants whose detectors have its architecture; they share all figures.
    images_per_second, latency_p50_ms, with `_low` and `_high`: geometric mean over the rounds and its 95% interval.
    latency_p90_ms, latency_p99_ms: over all `latency_calls` calls.
    ratio: images per second relative to the baseline's network, with its 95% interval from `n` paired rounds.
    latency_ratio: the baseline's latency relative to its own, so above 1 is faster; from as many rounds.
    busy, reason: whether the machine did something else meanwhile, and how it showed; such figures rank nothing.
    Missing figures are NaN.
    """
    content = read_speed(run)
    if content is None or not content["networks"]:
        return pd.DataFrame(columns=list(COLUMNS))
    by_variant = {variant: network for network in content["networks"] for variant in network["variants"]}
    controls = {cell.variant for cell in run.cells if cell.control is not None}
    rows = [
        {"variant": variant, **_row(by_variant.get(variant, {})), "is_control": variant in controls}
        for variant in run.variants
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def pareto_front(
    run: Run, *, by: Measure = "latency", clearly_higher: Callable[[str, str], bool] | None = None
) -> list[str]:
    """The variants that no other beats in AP and in speed, fastest first; empty without figures to rank.

    A variant is beaten by one that is clearly better in one of the two and not clearly worse in the other. Speed is
    clearly different if the 95% interval of the ratio over the paired rounds excludes 1; variants of one network tie.

    by: the speed that counts, latency at batch size 1 or throughput.
    clearly_higher: whether the AP of a variant is clearly above that of another; by default, whether its mean is.

    Controls, networks of a busy machine, and variants whose finished seeds differ from those of most are left out.
    """
    networks = _quiet_networks(run, by)
    compared = [variant for variant in comparable_variants(run) if variant in networks]
    if not compared:
        return []
    means = cells_frame(run).groupby("variant")["accuracy.AP"].mean()
    higher = clearly_higher or (lambda one, other: bool(means[one] > means[other]))

    def beats(one: str, other: str) -> bool:
        faster = _faster(networks[one], networks[other], by)
        slower = _faster(networks[other], networks[one], by)
        above, below = higher(one, other), higher(other, one)
        return (faster or above) and not slower and not below

    front = [variant for variant in compared if not any(beats(other, variant) for other in compared)]
    return sorted(front, key=lambda variant: float(np.mean(np.log(networks[variant]["rounds_ms"][by]))))


def comparable_variants(run: Run) -> list[str]:
    """The variants whose mean AP may be ranked: no controls, and all with the finished seeds that most of them have."""
    cells = cells_frame(run)
    if "accuracy.AP" not in cells:
        return []
    cells = cells[cells["control"].isna() & cells["accuracy.AP"].notna()]
    seeds = {variant: frozenset(own["seed"]) for variant, own in cells.groupby("variant")}
    common = max(Counter(seeds.values()).items(), key=lambda each: (each[1], len(each[0])), default=(None, 0))[0]
    return [variant for variant in run.variants if variant in seeds and seeds[variant] == common]


def with_speeds_in_turns(metrics: pd.DataFrame, speeds: pd.DataFrame) -> pd.DataFrame:
    """`metrics` (index: variant) with the speeds of `load_speeds` in place of those of the cells, without deviations.

    Columns replaced, where present: images_per_second, latency_p50_ms, latency_p90_ms, latency_p99_ms, latency_samples,
    best_batch. Missing figures are None. Without speeds, `metrics` itself.
    """
    if speeds.empty:
        return metrics
    replaced = metrics.drop(columns=[f"{name}_std" for name in _REPLACED if f"{name}_std" in metrics])
    measured = speeds.set_index("variant")
    for name, source in _REPLACED.items():
        if name in replaced:
            kind = int if name in ("latency_samples", "best_batch") else float
            values = [measured[source].get(variant, math.nan) for variant in replaced.index]
            whole = [None if math.isnan(value) else kind(value) for value in values]
            replaced[name] = pd.Series(whole, index=replaced.index, dtype=object)
    return replaced


def _row(network: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a network as columns, NaN if missing."""
    speed, latency = network.get("images_per_second") or {}, network.get("latency_ms") or {}
    ratio, latency_ratio = network.get("ratio") or {}, network.get("latency_ratio") or {}
    figures = {
        "images_per_second": speed.get("value"),
        "images_per_second_low": speed.get("low"),
        "images_per_second_high": speed.get("high"),
        "batch": speed.get("batch"),
        "latency_p50_ms": latency.get("p50"),
        "latency_low": latency.get("low"),
        "latency_high": latency.get("high"),
        "latency_p90_ms": latency.get("p90"),
        "latency_p99_ms": latency.get("p99"),
        "latency_calls": latency.get("calls"),
        "memory_MiB": network.get("memory_MiB"),
        "ratio": ratio.get("value"),
        "ratio_low": ratio.get("low"),
        "ratio_high": ratio.get("high"),
        "n": ratio.get("rounds"),
        "latency_ratio": latency_ratio.get("value"),
        "latency_ratio_low": latency_ratio.get("low"),
        "latency_ratio_high": latency_ratio.get("high"),
    }
    return {
        "network": str(network.get("network") or ""),
        "variants_of_network": tuple(network.get("variants", ())),
        **{name: math.nan if value is None else float(value) for name, value in figures.items()},
        "busy": bool(network.get("busy")),
        "reason": str(network.get("reason") or ""),
    }


def _quiet_networks(run: Run, by: Measure) -> dict[str, Mapping[str, Any]]:
    """The networks by variant, without those of a busy machine and those that were not measured."""
    content = read_speed(run) or {"networks": []}
    return {
        variant: network
        for network in content["networks"]
        if not network.get("busy") and len((network.get("rounds_ms") or {}).get(by) or ()) > 1
        for variant in network["variants"]
    }


def _faster(one: Mapping[str, Any], other: Mapping[str, Any], by: Measure) -> bool:
    """Whether a network is clearly faster than another in the same rounds."""
    if one["network"] == other["network"]:
        return False
    differences = np.log(other["rounds_ms"][by]) - np.log(one["rounds_ms"][by])
    return student(differences).low > 0
