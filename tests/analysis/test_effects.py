"""Effects of whole runs: what is claimed, from how many images or seeds, and what cannot be claimed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analysis.effects import COLUMNS, NO_CLAIM, effects_frame
from bench.analysis.run_records import load_run
from bench.analysis.statistics import BOOTSTRAP, STUDENT, holm, seeds_needed, student
from tests.analysis.made_run import write_matches
from tests.report.made_run import AXES, matrix, name_of, write_run

MEASURES = [
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AP_small_network", "AP_medium_network", "AP_large_network"),
]


def effects_of(folder: Path, **only: str) -> Any:
    """Rows of one metric (default: AP of all classes), indexed by contrast."""
    frame = effects_frame(load_run(folder))
    for name, value in ({"measure": "AP", "class": ""} | only).items():
        frame = frame[frame[name] == value]
    return frame.set_index("contrast")


def ap_of(folder: Path, name: str = "AP") -> dict[tuple[str, int], float]:
    """Oracle: read directly from the records on disk."""
    records = [json.loads(path.read_text()) for path in folder.glob("cells/*/record.json")]
    return {(r["variant"], r["seed"]): r["accuracy"][name] for r in records if r["status"] == "done"}


def test_one_seed_is_resampled_over_images_and_claims_cover_these_models(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", controls=("half-data",), images=60)
    rows, ap = effects_of(folder), ap_of(folder)
    assert list(rows.index[:3]) == list(AXES) and rows.index[-1] == "half-data" and len(rows) == 8
    on = [ap[name_of(row), 0] for row in matrix() if row["fpn"]]
    off = [ap[name_of(row), 0] for row in matrix() if not row["fpn"]]
    fpn = rows.loc["fpn"]
    assert fpn["effect"] == pytest.approx(np.mean(on) - np.mean(off), abs=1e-15)
    assert fpn["verdict"] == "these models: higher" and 0 < fpn["low"] < fpn["effect"] < fpn["high"]
    assert set(rows["method"]) == {BOOTSTRAP} and set(rows["n"]) == {60} and set(rows["n_of"]) == {"images"}
    assert rows["seeds_needed"].isna().all()
    assert rows.loc["half-data", "effect"] == pytest.approx(ap["half-data", 0] - ap["baseline", 0], abs=1e-15)
    assert rows.loc["half-data", "verdict"] == "these models: lower"
    assert rows.loc[list(AXES), "p_holm"].tolist() == pytest.approx(holm(rows.loc[list(AXES), "p"].tolist()))
    assert not rows.loc[list(AXES), "exploratory"].any() and rows["exploratory"].sum() == 5
    assert rows.loc["fpn × anchors":, "p_holm"].isna().all()


def test_ap_comes_first_and_every_metric_has_every_contrast(tmp_path: Path) -> None:
    frame = effects_frame(load_run(write_matches(tmp_path / "run", axes=("fpn", "anchors"))))
    assert list(frame) == list(COLUMNS)
    figures = list(dict.fromkeys(zip(frame["measure"], frame["class"], strict=True)))
    assert figures == [
        *((measure, "") for measure in MEASURES),
        *(("AP", f"class {k}") for k in range(3)),
        ("images_per_second", ""),
        ("train_seconds", ""),
    ]
    assert (frame.groupby(["measure", "class"]).size() == 3).all()
    assert frame["exploratory"].tolist() == [False, False, *[True] * (len(frame) - 2)]


def test_several_seeds_are_blocks(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2, 3), pending=[("anchors", 2)])
    rows, ap = effects_of(folder), ap_of(folder)
    per_seed = [
        np.mean([ap[name_of(row), seed] for row in matrix() if row["fpn"]])
        - np.mean([ap[name_of(row), seed] for row in matrix() if not row["fpn"]])
        for seed in (0, 1, 3)  # the third seed lacks a cell
    ]
    expected, fpn = student(per_seed), rows.loc["fpn"]
    assert (fpn["low"], fpn["high"], fpn["p"]) == pytest.approx((expected.low, expected.high, expected.p))
    assert (fpn["method"], fpn["n"], fpn["n_of"]) == (STUDENT, 3, "seeds")
    assert fpn["seeds_needed"] == seeds_needed(float(np.mean(per_seed)), float(np.std(per_seed, ddof=1)))
    assert fpn["verdict"] == ("higher" if fpn["p_holm"] < 0.05 and fpn["effect"] > 0 else NO_CLAIM)
    clock = effects_of(folder, measure="train_seconds")
    assert clock.loc["fpn", "method"] == STUDENT and clock.loc["fpn", "unit"] == "s"


def test_a_single_complete_seed_is_resampled_over_images(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn",), seeds=(0, 1), pending=[("fpn", 1)])
    rows = effects_of(folder)
    assert rows.loc["fpn", "method"] == BOOTSTRAP and rows.loc["fpn", "verdict"] == "these models: higher"


def test_holm_withdraws_what_a_single_test_would_claim(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2))
    # Per-seed effects of fpn with p just under 0.05, and of nothing else.
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        gain = {0: 0.01, 1: 0.02, 2: 0.03}[record["seed"]] + 0.005
        record["accuracy"]["AP"] = 0.2 + (gain if record["factors"]["fpn"] else 0.0)
        path.write_text(json.dumps(record))
    fpn = effects_of(folder).loc["fpn"]
    assert fpn["p"] < 0.05 < fpn["p_holm"] and fpn["low"] > 0
    assert fpn["verdict"] == NO_CLAIM


def test_timings_with_one_seed_have_no_interval(tmp_path: Path) -> None:
    rows = effects_of(write_matches(tmp_path / "run", axes=("fpn",)), measure="images_per_second")
    assert math.isfinite(rows.loc["fpn", "effect"]) and math.isnan(rows.loc["fpn", "low"])
    assert rows.loc["fpn", "method"] == "none: timed with one seed" and rows.loc["fpn", "verdict"] == ""


def test_records_without_matches_give_effects_without_intervals(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn", "anchors")))
    rows = effects_of(folder)
    assert rows["effect"].notna().all() and rows[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert set(rows["method"]) == {"none: no matches.npz of baseline, anchors, fpn, fpn+anchors"}
    assert set(rows["verdict"]) == {""}


def test_an_incomplete_contrast_has_no_value_and_names_the_missing_cells(tmp_path: Path) -> None:
    folder = write_matches(
        tmp_path / "run", failed={("fpn", 0): "loss is not finite"}, pending=[("anchors", 0)], controls=("half-data",)
    )
    rows = effects_of(folder)
    factorial = rows.drop(index="half-data")
    assert factorial["effect"].isna().all() and factorial["p_holm"].isna().all()
    assert set(factorial["method"]) == {"none: missing anchors (seed 0), fpn (seed 0)"}
    assert rows.loc["half-data", "method"] == BOOTSTRAP and rows.loc["half-data", "verdict"] == "these models: lower"


def test_a_class_in_few_images_has_no_interval(tmp_path: Path) -> None:
    rows = effects_of(write_matches(tmp_path / "run", axes=("fpn",), images=11), **{"class": "class 2"})
    method = rows.loc["fpn", "method"]
    assert method.startswith("none: ground truths in ") and method.endswith("images, 10 are needed")
    assert math.isfinite(rows.loc["fpn", "effect"])


@pytest.mark.parametrize("count", [0, 1])
def test_a_run_of_one_variant_has_no_effects(tmp_path: Path, count: int) -> None:
    frame = effects_frame(load_run(write_run(tmp_path / "run", factors=[{}][:count])))
    assert len(frame) == 0 and list(frame) == list(COLUMNS)


def test_pending_cells_are_named_as_missing(tmp_path: Path) -> None:
    pending = [(name_of(row), 0) for row in matrix(("fpn",))]
    rows = effects_of(write_run(tmp_path / "run", factors=matrix(("fpn",)), pending=pending))
    assert rows.loc["fpn", "method"] == "none: missing baseline (seed 0), fpn (seed 0)"
