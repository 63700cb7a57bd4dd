"""Effects of whole runs: what is claimed, from how many images or seeds, and what cannot be claimed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analysis.effects import BY_SIZE, COLUMNS, DIVERGED, UNDECIDED, effects_frame
from bench.analysis.run_records import load_run
from bench.analysis.samples import samples_of
from bench.analysis.statistics import BOOTSTRAP, JOINT, STUDENT, benjamini_hochberg, holm
from tests.analysis.made_run import write_matches
from tests.report.made_run import AXES, matrix, name_of, write_run

MEASURES = [
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AP_small_network", "AP_medium_network", "AP_large_network"),
]
INTERACTIONS = ["fpn × anchors", "fpn × unfreezing", "anchors × unfreezing", "fpn × anchors × unfreezing"]


def frame_of(folder: Path) -> Any:
    run = load_run(folder)
    return effects_frame(run, samples_of(run))


def effects_of(folder: Path, **only: str) -> Any:
    """Rows of one metric (default: AP of all classes), indexed by contrast."""
    frame = frame_of(folder)
    for name, value in ({"measure": "AP", "class": ""} | only).items():
        frame = frame[frame[name] == value]
    return frame.set_index("contrast")


def ap_of(folder: Path, name: str = "AP") -> dict[tuple[str, int], float]:
    """Oracle: read directly from the records on disk."""
    records = [json.loads(path.read_text()) for path in folder.glob("cells/*/record.json")]
    return {(r["variant"], r["seed"]): r["accuracy"][name] for r in records if r["status"] == "done"}


def set_ap(folder: Path, ap: Callable[[Mapping[str, bool], int], float]) -> Path:
    """Replace the AP of every finished cell by a function of its factors and seed, plus a little noise."""
    for place, path in enumerate(sorted(folder.glob("cells/*/record.json"))):
        record = json.loads(path.read_text())
        if record["status"] == "done":
            noise = 0.002 * float(np.random.default_rng(place).normal())
            record["accuracy"]["AP"] = 0.2 + ap(record["factors"], record["seed"]) + noise
            path.write_text(json.dumps(record))
    return folder


def test_one_seed_is_resampled_over_images_and_claims_cover_these_models(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", controls=("half-data",), images=60)
    rows, ap = effects_of(folder), ap_of(folder)
    arms = [name_of(row) for row in matrix() if any(row.values())]
    assert list(rows.index[:7]) == [f"{name} vs baseline" for name in arms]
    assert list(rows.index[7:14]) == [*AXES, *INTERACTIONS] and rows.index[-1] == "half-data vs baseline"
    on = [ap[name_of(row), 0] for row in matrix() if row["fpn"]]
    off = [ap[name_of(row), 0] for row in matrix() if not row["fpn"]]
    fpn = rows.loc["fpn"]
    assert fpn["effect"] == pytest.approx(np.mean(on) - np.mean(off), abs=1e-15)
    assert fpn["verdict"] == "these models: higher" and 0 < fpn["low"] < fpn["effect"] < fpn["high"]
    assert set(rows["method"]) == {BOOTSTRAP} and set(rows["images"]) == {60} and set(rows["seeds"]) == {1}
    assert rows["error_training"].isna().all() and (rows["error_images"] > 0).all()
    control = rows.loc["half-data vs baseline"]
    assert control["effect"] == pytest.approx(ap["half-data", 0] - ap["baseline", 0], abs=1e-15)
    assert control["verdict"] == "these models: lower"


def test_every_family_has_its_own_adjustment(tmp_path: Path) -> None:
    frame = frame_of(write_matches(tmp_path / "run", controls=("half-data",), images=60))
    of_ap = (frame["measure"] == "AP") & (frame["class"] == "")
    for kind in ("main effect", "interaction"):
        rows = frame[of_ap & (frame["kind"] == kind)]
        assert rows["p_adjusted"].tolist() == pytest.approx(holm(rows["p"].tolist()))
        assert set(rows["adjusted_by"]) == {"Holm"} and not rows["exploratory"].any()
    arms = frame[of_ap & (frame["kind"] == "arm")]
    sizes = frame[frame["measure"].isin(BY_SIZE) & (frame["kind"] == "main effect")]
    for family in (arms, sizes):
        known = family[family["p"].notna()]
        assert set(known["adjusted_by"]) == {"max-T"} and not family["exploratory"].any()
        assert (known["p_adjusted"] >= known["p"]).all()
        clear = (known["low"] > 0) | (known["high"] < 0)
        assert (clear == (known["p_adjusted"] < 0.05)).all()
    rest = frame[frame["exploratory"]]
    assert len(rest) == len(frame) - 7 - 3 - 4 - len(sizes)
    np.testing.assert_allclose(rest["p_adjusted"], benjamini_hochberg(rest["p"].tolist()))


def test_ap_comes_first_and_every_metric_has_every_contrast(tmp_path: Path) -> None:
    frame = frame_of(write_matches(tmp_path / "run", axes=("fpn", "anchors")))
    assert list(frame) == list(COLUMNS)
    figures = list(dict.fromkeys(zip(frame["measure"], frame["class"], strict=True)))
    assert figures == [*((measure, "") for measure in MEASURES), *(("AP", f"class {k}") for k in range(3))]
    # Three arms, two main effects, one interaction, four simple effects
    assert (frame.groupby(["measure", "class"]).size() == 10).all()


def test_several_seeds_cover_training_and_images(tmp_path: Path) -> None:
    rows = effects_of(write_matches(tmp_path / "run", axes=("fpn",), seeds=(0, 1, 2), images=60))
    fpn = rows.loc["fpn"]
    assert (fpn["method"], fpn["seeds"], fpn["images"]) == (JOINT, 3, 60)
    assert fpn["verdict"] == "higher" and fpn["error_images"] > 0


def test_a_missing_cell_does_not_discard_its_seed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2, 3), pending=[("anchors", 2)])
    rows, ap = effects_of(folder), ap_of(folder)
    arm = rows.loc["fpn vs baseline"]
    assert arm["effect"] == pytest.approx(np.mean([ap["fpn", seed] - ap["baseline", seed] for seed in range(4)]))
    assert (arm["method"], arm["seeds"]) == (STUDENT, 4) and rows.loc["fpn", "seeds"] == 4


def test_a_single_complete_seed_is_resampled_over_images(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn",), seeds=(0, 1), pending=[("fpn", 1)])
    rows = effects_of(folder)
    assert rows.loc["fpn", "method"] == BOOTSTRAP and rows.loc["fpn", "verdict"] == "these models: higher"


def test_holm_withdraws_what_a_single_test_would_claim(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2))
    for path in sorted(folder.glob("cells/*/record.json")):
        record = json.loads(path.read_text())
        draw = np.random.default_rng(int(record["id"], 16))
        record["accuracy"]["AP"] = 0.2 + (0.0062 if record["factors"]["fpn"] else 0.0) + 0.01 * draw.normal()
        path.write_text(json.dumps(record))
    fpn = effects_of(folder).loc["fpn"]
    assert fpn["p"] < 0.05 < fpn["p_adjusted"] and fpn["low"] > 0
    assert fpn["verdict"] == UNDECIDED


def test_a_small_effect_is_told_apart_from_an_undecided_one(tmp_path: Path) -> None:
    folder = set_ap(write_run(tmp_path / "run", seeds=(0, 1, 2)), lambda on, seed: 0.05 if on["fpn"] else 0.0)
    rows = effects_of(folder)
    assert rows.loc["fpn", "verdict"] == "higher"
    assert rows.loc["anchors", "verdict"] == "no effect worth having"
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(plan | {"worth": 0.01}))
    assert effects_of(folder).loc["anchors", "verdict"] == UNDECIDED


def test_an_axis_that_changes_nothing_has_no_interval_and_no_p_value(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn", "anchors")), seeds=(0, 1, 2))
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        record["accuracy"]["AP"] = 0.2 + record["seed"] / 100 + (0.03 if record["factors"]["fpn"] else 0.0)
        path.write_text(json.dumps(record))
    rows = effects_of(folder)
    assert rows.loc["anchors", "effect"] == 0.0 and rows.loc["fpn", "effect"] == pytest.approx(0.03)
    assert rows[["low", "high", "p", "p_adjusted"]].isna().all(axis=None) and set(rows["verdict"]) == {""}
    assert set(rows["method"]) == {"none: equal in all seeds and resamples"}


def test_a_variant_that_diverges_in_some_seeds_is_not_called_higher(tmp_path: Path) -> None:
    cause = "the loss is nan at step 12"
    folder = write_run(tmp_path / "run", seeds=(0, 1, 2, 3, 4), failed={("fpn", 1): cause, ("fpn", 3): cause})
    rows = effects_of(set_ap(folder, lambda on, seed: 0.1 if on["fpn"] else 0.0))
    assert rows.loc["fpn vs baseline", "low"] > 0
    assert rows.loc["fpn vs baseline", "verdict"] == DIVERGED == rows.loc["fpn", "verdict"]
    assert rows.loc["fpn+anchors vs baseline", "verdict"] == "higher"
    lower = effects_of(set_ap(folder, lambda on, seed: -0.1 if on["fpn"] else 0.0))
    assert lower.loc["fpn vs baseline", "verdict"] == "lower"  # divergence makes it only worse


def test_a_smoke_test_has_no_intervals_and_no_claims(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn",), changes={"profile": "smoke"})
    rows = frame_of(folder)
    assert rows["effect"].notna().all() and rows[["low", "high", "p", "p_adjusted"]].isna().all(axis=None)
    assert set(rows["verdict"]) == {""} and set(rows["method"]) == {"none: a smoke test is not a result"}


def test_records_without_matches_give_effects_without_intervals(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn", "anchors")))
    rows = effects_of(folder)
    assert rows["effect"].notna().all() and rows[["low", "high", "p", "p_adjusted"]].isna().all(axis=None)
    assert set(rows["method"]) == {"none: no matches.npz of baseline, anchors, fpn, fpn+anchors"}
    assert set(rows["verdict"]) == {""}


def test_an_incomplete_contrast_has_no_value_and_names_the_missing_cells(tmp_path: Path) -> None:
    folder = write_matches(
        tmp_path / "run", failed={("fpn", 0): "loss is not finite"}, pending=[("anchors", 0)], controls=("half-data",)
    )
    rows = effects_of(folder)
    assert rows.loc[list(AXES), ["effect", "p_adjusted"]].isna().all(axis=None)
    assert set(rows.loc[list(AXES), "method"]) == {"none: missing anchors (seed 0), fpn (seed 0)"}
    known = rows.loc["fpn+anchors vs baseline"]
    assert known["method"] == BOOTSTRAP and known["verdict"] == "these models: higher"
    control = rows.loc["half-data vs baseline"]
    assert control["method"] == BOOTSTRAP and control["verdict"] == "these models: lower"


def test_a_class_in_few_images_has_no_interval(tmp_path: Path) -> None:
    rows = effects_of(write_matches(tmp_path / "run", axes=("fpn",), images=11), **{"class": "class 2"})
    method = rows.loc["fpn", "method"]
    assert method.startswith("none: ground truths in ") and method.endswith("images, 10 are needed")
    assert math.isfinite(rows.loc["fpn", "effect"])


@pytest.mark.parametrize("count", [0, 1])
def test_a_run_of_one_variant_has_no_effects(tmp_path: Path, count: int) -> None:
    frame = frame_of(write_run(tmp_path / "run", factors=[{}][:count]))
    assert len(frame) == 0 and list(frame) == list(COLUMNS)


def test_pending_cells_are_named_as_missing(tmp_path: Path) -> None:
    pending = [(name_of(row), 0) for row in matrix(("fpn",))]
    rows = effects_of(write_run(tmp_path / "run", factors=matrix(("fpn",)), pending=pending))
    assert rows.loc["fpn", "method"] == "none: missing baseline (seed 0), fpn (seed 0)"
