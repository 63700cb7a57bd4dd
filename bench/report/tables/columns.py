"""What a column is called, where its figure stands in the record, and how it is printed: said here, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.data.subsets import CONDITIONS, SIZES


def per_cent(value: float) -> str:
    return f"{100 * value:.1f}"


def whole(value: float) -> str:
    return f"{value:.0f}"


def three_digits(value: float) -> str:
    """Three significant digits, and all those before the point: 0.123, 12.3, 12345."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure of the record as a column of tables.

    name: in CSV. path: in the record. header: in print, lines divided by line feeds, the unit last.
    over_seeds: the mean of the finished seeds, the value that is common to them (none if they differ),
        or the least of them.
    spread: with more than one seed, the sample standard deviation (ddof 1) stands beside the mean.
    group: columns of one group are kept together where a page is narrow.
    """

    name: str
    path: str
    header: str
    show: Callable[[float], str]
    over_seeds: Literal["mean", "common", "least"] = "mean"
    spread: bool = False
    group: str = ""


def _accuracy(name: str, header: str, group: str) -> Column:
    return Column(name=name, path=f"accuracy.{name}", header=header, show=per_cent, spread=True, group=group)


def _count(bucket: str) -> Column:
    return Column(
        name=f"ground_truths_{bucket}",
        path=f"accuracy.ground_truths.{bucket}",
        header=f"objects\n{bucket}",
        show=whole,
        over_seeds="common",
    )


def _measured(path: str, header: str, group: str = "cost") -> Column:
    return Column(name=path.rsplit(".", maxsplit=1)[-1], path=path, header=header, show=three_digits, group=group)


_ALL = (
    _accuracy("AP", "AP", "AP"),
    _accuracy("AP50", "AP50", "AP"),
    _accuracy("AP75", "AP75", "AP"),
    *(_accuracy(f"AP_{size}", f"AP\n{size}", "size") for size in SIZES),
    *(_accuracy(f"AP_{size}_network", f"AP\n{size}", "network size") for size in SIZES),
    *(_accuracy(f"AR_{size}", f"AR100\n{size}", "recall") for size in SIZES),
    *(_accuracy(f"AP_{name}", f"AP\n{name}", "AP") for name in CONDITIONS),
    *(_accuracy(f"AR_{name}", f"AR100\n{name}", "recall") for name in CONDITIONS),
    _accuracy("voc_AP_11point", "VOC AP\n11 points", "VOC"),
    _accuracy("voc_AP_area", "VOC AP\narea", "VOC"),
    *(_count(bucket) for size in SIZES for bucket in (size, f"{size}_network")),
    *(_count(name) for name in CONDITIONS),
    _count("all"),
    _measured("speed.images_per_second", "speed\nimages/s"),
    _measured("speed.latency_p50_ms", "latency\np50 ms"),
    _measured("speed.latency_p90_ms", "latency\np90 ms"),
    _measured("speed.latency_p99_ms", "latency\np99 ms"),
    Column(
        name="latency_samples",
        path="speed.latency_samples",
        header="latency\nsamples",
        show=whole,
        over_seeds="least",
        group="cost",
    ),
    Column(
        name="best_batch",
        path="speed.best_batch",
        header="best\nbatch",
        show=whole,
        over_seeds="common",
        group="cost",
    ),
    _measured("cost.parameters_M", "params\nM"),
    _measured("cost.forward_GFLOP", "forward\nGFLOP"),
    Column(name="train_seconds", path="cost.train_seconds", header="train\ns", show=whole, group="cost"),
    _measured("cost.step_seconds_median", "step\ns"),
    Column(name="peak_memory_MiB", path="cost.peak_memory_MiB", header="memory\nMiB", show=whole, group="cost"),
)
COLUMNS: Mapping[str, Column] = {column.name: column for column in _ALL}

AP_COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
COST_COLUMNS = (
    "images_per_second",
    "latency_p50_ms",
    "latency_p99_ms",
    "parameters_M",
    "forward_GFLOP",
    "train_seconds",
)
VOC_COLUMNS = ("voc_AP_11point", "voc_AP_area")
FURTHER_COLUMNS = (
    *(f"ground_truths_{bucket}" for bucket in (*SIZES, "all")),
    "latency_samples",
    *(f"AP_{size}_network" for size in SIZES),
    "peak_memory_MiB",
    "best_batch",
    "step_seconds_median",
    *(f"ground_truths_{size}_network" for size in SIZES),
    *VOC_COLUMNS,
)
