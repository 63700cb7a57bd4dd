"""The metric columns of the tables: name, path in the record, heading and format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.data.subsets import CONDITIONS, NETWORK_SIZES, SIZES
from bench.report.tables.formats import integer, percent, three_digits


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric of the record as a table column.

    name: in CSV. path: in the record. header: printed heading, lines separated by line feeds, unit last.
    over_seeds: how finished seeds combine: their mean, their common value (none if they differ), or the smallest.
    spread: with several seeds, show the sample standard deviation (ddof 1) next to the mean.
    group: columns of one group stay together on narrow pages.
    """

    name: str
    path: str
    header: str
    show: Callable[[float], str]
    over_seeds: Literal["mean", "common", "least"] = "mean"
    spread: bool = False
    group: str = ""


def _accuracy(name: str, header: str, group: str) -> Column:
    return Column(name=name, path=f"accuracy.{name}", header=header, show=percent, spread=True, group=group)


def _count(bucket: str) -> Column:
    return Column(
        name=f"ground_truths_{bucket}",
        path=f"accuracy.ground_truths.{bucket}",
        header=f"objects\n{bucket}",
        show=integer,
        over_seeds="common",
    )


def _cost(
    path: str,
    header: str,
    show: Callable[[float], str] = three_digits,
    over_seeds: Literal["mean", "common", "least"] = "mean",
) -> Column:
    name = path.rsplit(".", maxsplit=1)[-1]
    return Column(name=name, path=path, header=header, show=show, over_seeds=over_seeds, group="cost")


_ALL = (
    _accuracy("AP", "AP", "AP"),
    _accuracy("AP50", "AP50", "AP"),
    _accuracy("AP75", "AP75", "AP"),
    *(_accuracy(f"AP_{size}", f"AP\n{size}", "size") for size in SIZES),
    *(_accuracy(f"AP_{size}_network", f"AP\n{size}", "network size") for size in SIZES),
    *(_accuracy(f"AR_{size}", f"AR100\n{size}", "recall") for size in SIZES),
    *(_accuracy(f"AP_{name}", f"AP\n{name}", "AP") for name in CONDITIONS),
    *(_accuracy(f"AR_{name}", f"AR100\n{name}", "recall") for name in CONDITIONS),
    _accuracy("voc_AP_11point", "VOC AP\n11-point", "VOC"),
    _accuracy("voc_AP_area", "VOC AP\narea", "VOC"),
    *(_count(bucket) for bucket in (*SIZES, *NETWORK_SIZES, *CONDITIONS, "all")),
    Column(name="images", path="accuracy.images", header="images", show=integer, over_seeds="common"),
    _cost("speed.images_per_second", "speed\nimages/s"),
    _cost("speed.latency_p50_ms", "latency\np50 ms"),
    _cost("speed.latency_p90_ms", "latency\np90 ms"),
    _cost("speed.latency_p99_ms", "latency\np99 ms"),
    _cost("speed.latency_samples", "latency\nsamples", integer, "least"),
    _cost("speed.best_batch", "best\nbatch", integer, "common"),
    _cost("cost.parameters_M", "params\nM"),
    _cost("cost.forward_GFLOP", "forward\nGFLOP"),
    _cost("cost.train_seconds", "train\ns", integer),
    _cost("cost.step_seconds_median", "step\ns"),
    _cost("cost.peak_memory_MiB", "memory\nMiB", integer),
)
COLUMNS: Mapping[str, Column] = {column.name: column for column in _ALL}

AP_COLUMNS = ("AP", "AP50", "AP75", *(f"AP_{size}" for size in SIZES))
COST_COLUMNS = (
    "images_per_second",
    "latency_p50_ms",
    "latency_p99_ms",
    "parameters_M",
    "forward_GFLOP",
    "train_seconds",
)
LATENCY_COLUMNS = ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "latency_samples")
VOC_COLUMNS = ("voc_AP_11point", "voc_AP_area")
FURTHER_COLUMNS = (
    *(f"ground_truths_{bucket}" for bucket in (*SIZES, "all")),
    "images",
    "latency_samples",
    *(f"AP_{size}" for size in NETWORK_SIZES),
    "peak_memory_MiB",
    "best_batch",
    "step_seconds_median",
    *(f"ground_truths_{size}" for size in NETWORK_SIZES),
    *VOC_COLUMNS,
)
