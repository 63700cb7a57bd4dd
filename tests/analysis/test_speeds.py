"""Figures of speed.json by variant, and which variants nothing beats in AP and speed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from bench.analysis.run_records import Run, load_run
from bench.analysis.speeds import (
    COLUMNS,
    comparable_variants,
    load_speeds,
    pareto_front,
    read_speed,
    with_speeds_in_turns,
)
from tests.analysis.made_speeds import write_speeds
from tests.report.made_run import matrix, write_run

PLAIN, PYRAMID = ("baseline", "anchors", "more"), ("fpn", "fpn+anchors")


def run_with(folder: Path, aps: Mapping[str, float], **rest: object) -> Run:
    """A run of fpn, anchors and the control `more`, with the AP of every seed as in `aps`."""
    options = {"factors": matrix(("fpn", "anchors")), "controls": ("more",)} | rest
    write_run(folder, **options)  # type: ignore[arg-type]
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        if record["status"] == "done" and record["variant"] in aps:
            record["accuracy"]["AP"] = aps[record["variant"]]
            path.write_text(json.dumps(record))
    return load_run(folder)


APS = {"baseline": 0.20, "fpn": 0.30, "anchors": 0.25, "fpn+anchors": 0.28, "more": 0.9}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_with(tmp_path / "run", APS)


def test_variants_of_one_network_share_its_figures(run: Run) -> None:
    write_speeds(run.folder, {PLAIN: 0.02, PYRAMID: 0.04})
    speeds = load_speeds(run)
    assert tuple(speeds.columns) == COLUMNS
    assert tuple(speeds["variant"]) == run.variants
    by_variant = speeds.set_index("variant")
    assert by_variant["network"].to_dict() == dict.fromkeys(PLAIN, "baseline") | dict.fromkeys(PYRAMID, "fpn")
    assert by_variant.loc["more", "variants_of_network"] == PLAIN
    assert list(by_variant.index[by_variant["is_control"]]) == ["more"]
    for variants in (PLAIN, PYRAMID):
        assert len(by_variant.loc[list(variants)].drop(columns="is_control").drop_duplicates()) == 1
    fpn = by_variant.loc["fpn"]
    assert fpn["latency_low"] < fpn["latency_p50_ms"] < fpn["latency_high"] < fpn["latency_p90_ms"]
    assert fpn["latency_p50_ms"] == pytest.approx(40, rel=0.05)
    assert fpn["images_per_second"] == pytest.approx(1.5 / 0.04, rel=0.05)
    for ratio in ("ratio", "latency_ratio"):
        assert fpn[f"{ratio}_low"] < fpn[ratio] < fpn[f"{ratio}_high"]
        assert fpn[ratio] == pytest.approx(0.5, rel=0.05)
        assert by_variant.loc["anchors", ratio] == 1
    assert (fpn["n"], fpn["batch"], fpn["memory_MiB"], fpn["busy"]) == (12, 8, 512, False)


def test_a_variant_that_was_not_measured_has_no_figures(run: Run) -> None:
    write_speeds(run.folder, {PLAIN: 0.02})
    speeds = load_speeds(run).set_index("variant")
    assert speeds.loc["fpn", "network"] == ""
    assert speeds["latency_p50_ms"].isna().to_dict()["fpn"]
    assert not speeds.loc["fpn", "busy"]


@pytest.mark.parametrize("content", [None, "", "[]", "{}", json.dumps({"networks": [], "failure": "not measured: x"})])
def test_without_figures_there_are_no_rows(run: Run, content: str | None) -> None:
    if content is not None:
        (run.folder / "speed.json").write_text(content)
    assert load_speeds(run).empty
    assert pareto_front(run) == []
    assert (read_speed(run) is not None) == (content is not None and "failure" in content)


def test_tables_take_the_figures_of_the_network(run: Run) -> None:
    index = pd.Index(["baseline", "fpn"])
    cells = pd.DataFrame({"AP": [0.1, 0.2], "latency_p50_ms": [1.0, 2.0], "latency_p50_ms_std": 0.1}, index=index)
    assert with_speeds_in_turns(cells, load_speeds(run)) is cells
    write_speeds(run.folder, {PLAIN: 0.02})
    replaced = with_speeds_in_turns(cells.assign(latency_samples=5, best_batch=2), load_speeds(run))
    assert list(replaced) == ["AP", "latency_p50_ms", "latency_samples", "best_batch"]
    assert replaced.loc["baseline", "latency_p50_ms"] == pytest.approx(20, rel=0.05)
    assert replaced["latency_samples"].tolist() == [200, None]
    assert replaced["best_batch"].tolist() == [8, None]
    assert replaced.loc["fpn", "latency_p50_ms"] is None


def test_the_front_has_the_highest_ap_of_each_network_that_pays_for_its_time(run: Run) -> None:
    write_speeds(run.folder, {PLAIN: 0.02, PYRAMID: 0.04})
    assert pareto_front(run) == ["anchors", "fpn"]
    assert pareto_front(run, by="throughput") == ["anchors", "fpn"]


def test_a_slower_network_without_a_gain_is_beaten(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", APS | {"fpn": 0.24, "fpn+anchors": 0.25})
    write_speeds(run.folder, {PLAIN: 0.02, PYRAMID: 0.04})
    assert pareto_front(run) == ["anchors"]


def test_differences_within_the_interval_tie(run: Run) -> None:
    """fpn seems 1% slower; with 20% of noise a round, that is nothing."""
    write_speeds(run.folder, {PLAIN: 0.02, PYRAMID: 0.0202}, noise=0.2)
    assert pareto_front(run) == ["fpn"]
    write_speeds(run.folder, {PLAIN: 0.02, PYRAMID: 0.0202}, noise=0.0001)
    assert pareto_front(run) == ["anchors", "fpn"]


def test_ap_ties_unless_it_is_clearly_higher(run: Run) -> None:
    write_speeds(run.folder, {PLAIN: 0.02, PYRAMID: 0.04})

    def clearly(one: str, other: str) -> bool:
        return APS[one] > APS[other] + 0.06

    # fpn+anchors ties with fpn in both; anchors is faster, and fpn is not clearly above it. baseline ties with anchors.
    assert pareto_front(run, clearly_higher=clearly) == ["baseline", "anchors"]


def test_a_busy_machine_ranks_nothing(run: Run) -> None:
    write_speeds(run.folder, {PLAIN: 0.02, PYRAMID: 0.04}, busy={"fpn": "others computed"})
    assert pareto_front(run) == ["anchors"]
    speeds = load_speeds(run).set_index("variant")
    assert speeds.loc["fpn+anchors", "reason"] == "others computed"
    assert speeds["busy"].to_dict() == dict.fromkeys(PLAIN, False) | dict.fromkeys(PYRAMID, True)


def test_variants_with_other_finished_seeds_are_not_ranked(tmp_path: Path) -> None:
    """fpn failed in one seed: its mean over the other one is no comparison."""
    run = run_with(tmp_path / "run", APS, seeds=(0, 1), failed={("fpn", 1): "loss is not finite"})
    write_speeds(run.folder, {PLAIN: 0.02, PYRAMID: 0.04})
    assert comparable_variants(run) == ["baseline", "anchors", "fpn+anchors"]
    assert pareto_front(run) == ["anchors", "fpn+anchors"]


def test_an_unfinished_run_has_no_front(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", {}, pending=[(variant, 0) for variant in APS])
    assert comparable_variants(run) == []
    assert pareto_front(run) == []
