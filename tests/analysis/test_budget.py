"""The budget of every variant sums to 1, and its differences to the baseline to 0."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.analysis.budget import PARTS, PHRASES, budget_differences, budget_frame, largest_losses
from bench.analysis.cell_errors import load_run_errors
from bench.analysis.error_costs import ACHIEVED, IMPRECISE, REMAINDER, errors_frame
from bench.analysis.run_records import Run, load_run
from bench.evaluation.error_types import KINDS
from tests.analysis.made_errors import drawn_truths, overlapping_fixes, write_found
from tests.analysis.made_run import write_matches
from tests.evaluation_oracles import detections_of, index_of
from tests.report.made_run import write_run


def analysed(folder: Path) -> tuple[Run, pd.DataFrame]:
    run = load_run(folder)
    return run, errors_frame(run, load_run_errors(run))


def by_variant(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    return frame.pivot(index="variant", columns="part", values=column)[list(PARTS)]


@pytest.mark.parametrize("seed", range(4))
def test_parts_sum_to_one_and_differences_to_zero(tmp_path: Path, seed: int) -> None:
    index = drawn_truths(seed, images=10, conditions=False)
    run, errors = analysed(write_found(tmp_path / "run", index, seeds=(0, 1), controls=("half-data",)))
    budget, differences = budget_frame(run, errors), budget_differences(run, errors)
    points = by_variant(budget, "points")
    assert points.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-12)
    assert list(budget["variant"].unique()) == list(run.variants) and set(budget["seeds"]) == {2}
    of_difference = by_variant(differences, "difference")
    assert set(of_difference.index) == {"fpn", "half-data"}
    assert of_difference.sum(axis=1).to_numpy() == pytest.approx(0, abs=1e-12)
    expected = points.loc[of_difference.index].to_numpy() - points.loc[["baseline"]].to_numpy()
    assert of_difference.to_numpy() == pytest.approx(expected, abs=1e-12)


def test_ap_and_imprecise_boxes_are_those_of_the_records(tmp_path: Path) -> None:
    run, errors = analysed(write_found(tmp_path / "run", drawn_truths(), seeds=(0, 1)))
    points = by_variant(budget_frame(run, errors), "points")
    costs = errors[errors["scope"] == "all"].pivot(index="variant", columns="kind", values="dAP50")[list(KINDS)]
    for variant in run.variants:
        accuracy = [record["accuracy"] for cell, record in run.done() if cell.variant == variant]
        ap, ap50 = (float(np.mean([each[name] for each in accuracy])) for name in ("AP", "AP50"))
        assert points.loc[variant, ACHIEVED] == pytest.approx(ap, abs=1e-12)
        assert points.loc[variant, IMPRECISE] == pytest.approx(ap50 - ap, abs=1e-12)
        of_types = costs.loc[[variant]].to_numpy().ravel()
        np.testing.assert_array_equal(points.loc[[variant], list(KINDS)].to_numpy().ravel(), of_types)
        assert points.loc[variant, REMAINDER] == pytest.approx(1 - ap50 - of_types.sum(), abs=1e-12)


def test_a_budget_computed_by_hand(tmp_path: Path) -> None:
    """Three objects of one class: one found exactly, one found at an IoU of 0.6, one missed."""
    box = (10.0, 10.0, 110.0, 110.0)
    index = index_of([[(0, *box)], [(0, *box)], [(0, *box)]], classes=1)
    found = detections_of((0, 0, 0.9, *box), (1, 0, 0.8, 10.0, 10.0, 110.0, 70.0))
    run, errors = analysed(write_found(tmp_path / "run", index, axes=(), found=found))
    points = by_variant(budget_frame(run, errors), "points").loc["baseline"] * 101
    # Recall 2/3 reaches 67 of the 101 points at IoU .5 and .55, and .6 (COCO's comparison includes equality); then 1/3
    # reaches 34. Without the missed object recall is 1.
    assert points[ACHIEVED] == pytest.approx(0.3 * 67 + 0.7 * 34)
    assert points[IMPRECISE] == pytest.approx(0.7 * 33)
    assert points["missed"] == pytest.approx(34)
    assert points.drop([ACHIEVED, IMPRECISE, "missed"]).abs().max() == pytest.approx(0, abs=1e-9)
    loss = next(iter(largest_losses(budget_frame(run, errors), "baseline")), None)
    assert loss is not None and loss[0] == "missed" and loss[1] == pytest.approx(34 / 101)


def test_a_remainder_can_be_negative(tmp_path: Path) -> None:
    index, found = overlapping_fixes()
    run, errors = analysed(write_found(tmp_path / "run", index, axes=(), found=found))
    points = by_variant(budget_frame(run, errors), "points").loc["baseline"] * 101
    assert points["classification"] == pytest.approx(25.5 + 50 * 2 / 3)
    assert points["localisation"] == pytest.approx(25.5)
    assert points[REMAINDER] == pytest.approx(101 - 3 * 25.5 - 50 * 2 / 3) and points[REMAINDER] < 0


def test_only_seeds_with_error_types_count(tmp_path: Path) -> None:
    folder = write_found(
        tmp_path / "run", drawn_truths(), seeds=(0, 1, 2), pending=[("fpn", 0)], failed={("baseline", 1): "lost"}
    )
    run, errors = analysed(folder)
    budget, differences = budget_frame(run, errors), budget_differences(run, errors)
    assert dict(zip(budget["variant"], budget["seeds"], strict=True)) == {"baseline": 2, "fpn": 2}
    assert budget.groupby("variant")["points"].sum().to_numpy() == pytest.approx(1, abs=1e-12)
    # Only seed 2 is in both.
    alone, alone_errors = analysed(write_found(tmp_path / "alone", drawn_truths(), seeds=(2,)))
    pd.testing.assert_frame_equal(differences, budget_differences(alone, alone_errors))
    assert differences["difference"].sum() == pytest.approx(0, abs=1e-12)
    assert differences["difference"].abs().max() > 0


def test_intervals_are_those_of_the_error_differences(tmp_path: Path) -> None:
    run, errors = analysed(write_found(tmp_path / "run", drawn_truths()))
    differences = budget_differences(run, errors).set_index("part")
    kinds = errors[(errors["variant"] == "fpn") & (errors["scope"] == "all")].set_index("kind")
    columns = ["difference", "low", "high", "method", "n", "n_of"]
    pd.testing.assert_frame_equal(
        differences.loc[list(KINDS), columns], kinds.loc[list(KINDS), columns], check_names=False
    )
    for part in (IMPRECISE, REMAINDER):
        row = differences.loc[part]
        assert row["low"] < row["difference"] < row["high"]
    assert differences.loc[ACHIEVED, ["low", "high"]].isna().all()


def test_variants_without_error_types_have_no_budget(tmp_path: Path) -> None:
    one_failed = write_found(tmp_path / "failed", drawn_truths(), failed={("fpn", 0): "lost"})
    run, errors = analysed(one_failed)
    budget = budget_frame(run, errors)
    points = by_variant(budget, "points")
    assert points.loc["baseline"].notna().all() and points.loc["fpn"].isna().all()
    assert budget_differences(run, errors)["difference"].isna().all()
    assert not largest_losses(budget, "fpn") and largest_losses(budget, "baseline")
    for folder in (write_run(tmp_path / "records"), write_matches(tmp_path / "matches")):
        run, errors = analysed(folder)
        budget = budget_frame(run, errors)
        assert len(budget) == len(run.variants) * len(PARTS)
        assert budget["points"].isna().all() and set(budget["seeds"]) == {0}
        assert budget_differences(run, errors)["difference"].isna().all()


def test_older_runs_have_a_budget_from_their_boxes(tmp_path: Path) -> None:
    """Runs from before error_types.npz existed keep boxes in detections.json."""
    kept, boxes = (
        budget_frame(*analysed(write_found(tmp_path / name, drawn_truths(), boxes=old)))
        for name, old in (("kept", False), ("boxes", True))
    )
    pd.testing.assert_frame_equal(kept, boxes)


def test_without_a_baseline_there_are_no_differences(tmp_path: Path) -> None:
    folder = write_found(tmp_path / "run", drawn_truths())
    plan = json.loads((folder / "plan.json").read_text())
    plan["cells"] = [cell for cell in plan["cells"] if cell["variant"] != "baseline"]
    (folder / "plan.json").write_text(json.dumps(plan | {"variants": ["fpn"]}))
    run, errors = analysed(folder)
    assert run.baseline is None
    assert budget_frame(run, errors)["points"].sum() == pytest.approx(1, abs=1e-12)
    assert budget_differences(run, errors)["difference"].isna().all()


def test_every_part_has_a_phrase() -> None:
    assert list(PHRASES) == list(PARTS)
    assert len(set(PHRASES.values())) == len(PARTS)
