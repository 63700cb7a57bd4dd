"""Errors by variant, size, condition and class: buckets add up, and differences have intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.analysis.bootstrap import resample
from bench.analysis.cell_errors import load_run_errors
from bench.analysis.components import Sample
from bench.analysis.error_costs import ACHIEVED, COLUMNS, EVERY_KIND, REPLICATES, errors_frame
from bench.analysis.run_records import load_run
from bench.analysis.statistics import BOOTSTRAP, JOINT, STUDENT, t_interval
from bench.errors import UserError
from bench.evaluation.error_types import KINDS
from tests.analysis.made_errors import drawn_truths, write_found
from tests.analysis.made_run import write_matches
from tests.report.made_run import write_run


def frame_of(folder: Path) -> pd.DataFrame:
    run = load_run(folder)
    return errors_frame(run, load_run_errors(run))


def test_buckets_of_size_condition_and_class_add_up(tmp_path: Path) -> None:
    index = drawn_truths()
    frame = frame_of(write_found(tmp_path / "run", index))
    assert list(frame.columns) == list(COLUMNS)
    for variant in ("baseline", "fpn"):
        rows = frame[frame["variant"] == variant].set_index(["scope", "bucket", "kind"])
        for kind in KINDS:
            whole = frame[(frame["variant"] == variant) & (frame["scope"] == "all") & (frame["kind"] == kind)].iloc[0]
            assert whole["ground_truths"] == np.count_nonzero(~index.crowd)
            for scope in ("size", "class"):
                parts = rows.xs((scope, kind), level=("scope", "kind"))
                assert parts["count"].sum() == whole["count"]
                # A ground truth exactly at a size limit counts in two sizes; random ones never are.
                assert parts["ground_truths"].sum() == whole["ground_truths"]
            # AP50 is the mean over classes with ground truths, and so is its gain.
            of_classes = rows.xs(("class", kind), level=("scope", "kind"))["dAP50"]
            assert of_classes.isna().sum() == 1
            assert of_classes.mean() == pytest.approx(whole["dAP50"], abs=1e-12)
            conditions = rows.xs(("condition", kind), level=("scope", "kind"))
            assert list(conditions.index) == ["truncated", "untruncated"]
            # Errors without a ground truth have no condition.
            assert conditions["count"].sum() == (0 if kind == "background" else whole["count"])
        assert set(rows.xs("all", level="scope").index.get_level_values("kind")) == set(EVERY_KIND)


def test_stored_error_types_equal_those_computed_from_boxes(tmp_path: Path) -> None:
    index = drawn_truths()
    kept, from_boxes = (
        frame_of(write_found(tmp_path / name, index, boxes=boxes)) for name, boxes in (("kept", False), ("boxes", True))
    )
    pd.testing.assert_frame_equal(kept, from_boxes)
    assert kept["dAP50"].notna().any()


def test_one_seed_gives_intervals_over_images_and_several_over_both(tmp_path: Path) -> None:
    index = drawn_truths()
    for seeds, method, n in (((0,), BOOTSTRAP, None), ((0, 1, 2), JOINT, 3)):
        frame = frame_of(write_found(tmp_path / str(len(seeds)), index, seeds=seeds))
        rows = frame[(frame["variant"] == "fpn") & (frame["scope"] == "all")]
        same = rows["method"] == "none: equal in all seeds and resamples"
        assert not same.all() and (rows["difference"][same] == 0).all() and rows["low"][same].isna().all()
        rows = rows[~same]
        assert set(rows["method"]) == {method}
        assert (rows["low"] <= rows["difference"]).all() and (rows["difference"] <= rows["high"]).all()
        assert (rows["low"] < rows["high"]).any()
        assert n is None or set(rows["n"]) == {n}
        base = frame[(frame["variant"] == "baseline") & (frame["scope"] == "all")][~same.to_numpy()]
        assert base["difference"].isna().all()
        expected = rows["dAP50"].to_numpy() - base["dAP50"].to_numpy()
        assert rows["difference"].to_numpy() == pytest.approx(expected, abs=1e-12)


def test_intervals_equal_those_of_the_metrics(tmp_path: Path) -> None:
    """AP is in both frames: here from the costs of cells, there from the metrics of `resample`."""
    folder = write_found(tmp_path / "run", drawn_truths(conditions=False), seeds=(0, 1))
    run, frame = load_run(folder), frame_of(folder)
    resampled = resample(run, [cell.id for cell in run.cells], replicates=REPLICATES)
    by_key = {cell.key: cell.id for cell in run.cells}
    ids = [[by_key[variant, seed] for seed in run.seeds] for variant in run.variants]
    sample = Sample(
        values=np.array([[run.records[cell]["accuracy"]["AP"] for cell in row] for row in ids]),
        replicates=np.array([[resampled.replicates[cell]["AP", ""] for cell in row] for row in ids]),
        groups=resampled.groups["AP", ""],
        factor=resampled.factor["AP", ""],
    )
    for place, variant in enumerate(run.variants[1:], start=1):
        contrast = np.zeros(len(run.variants))
        contrast[[0, place]] = -1, 1
        estimate = sample.estimate(contrast)
        assert estimate is not None
        expected = t_interval(estimate.effect, estimate.error, estimate.degrees)
        (row,) = frame[(frame["variant"] == variant) & (frame["kind"] == ACHIEVED)].itertuples()
        assert (row.difference, row.low, row.high) == pytest.approx(
            (estimate.effect, expected.low, expected.high), abs=1e-9
        )
        assert expected.low < expected.high


def test_single_classes_have_no_resamples(tmp_path: Path) -> None:
    for seeds, method in (((0,), "none: not resampled"), ((0, 1), STUDENT)):
        frame = frame_of(write_found(tmp_path / str(len(seeds)), drawn_truths(), seeds=seeds))
        rows = frame[(frame["scope"] == "class") & (frame["variant"] == "fpn") & (frame["kind"] == "localisation")]
        assert set(rows.dropna(subset="difference")["method"]) == {method}


def test_a_smoke_test_has_no_intervals(tmp_path: Path) -> None:
    frame = frame_of(write_found(tmp_path / "run", drawn_truths(), seeds=(0, 1), changes={"profile": "smoke"}))
    rows = frame[(frame["scope"] == "all") & (frame["variant"] == "fpn")]
    assert rows["difference"].notna().all() and rows["low"].isna().all()
    assert set(rows["method"]) == {"none: a smoke test is not a result"}


def test_a_difference_uses_the_seeds_both_variants_have(tmp_path: Path) -> None:
    folder = write_found(tmp_path / "run", drawn_truths(), seeds=(0, 1, 2), pending=[("fpn", 0), ("baseline", 1)])
    frame = frame_of(folder)
    rows = frame[(frame["scope"] == "all") & (frame["variant"] == "fpn")]
    assert set(rows["seeds"]) == {2}
    assert set(rows["method"][rows["difference"] != 0]) == {BOOTSTRAP}  # seed 2 alone is in both
    assert rows["dAP50_std"].notna().all()


def test_missing_files_are_reported_with_the_reason(tmp_path: Path) -> None:
    for folder, why in (
        (write_run(tmp_path / "records", failed={("fpn", 0): "lost"}), "no matches.npz"),
        (write_matches(tmp_path / "matches"), "neither error_types.npz nor the boxes"),
    ):
        run = load_run(folder)
        cell_errors = load_run_errors(run)
        assert all(reason.startswith(why) for reason in cell_errors.unavailable.values())
        assert set(cell_errors.unavailable) == {(cell.variant, cell.seed) for cell, _ in run.done()}
        frame = errors_frame(run, cell_errors)
        assert list(frame["variant"]) == list(run.variants) and frame["dAP50"].isna().all()


def test_files_from_two_evaluations_are_rejected_by_name(tmp_path: Path) -> None:
    folder = write_found(tmp_path / "run", drawn_truths(), boxes=True)
    path = next(iter(sorted(folder.glob("cells/*/detections.json"))))
    whole = path.read_text()
    for content in (json.dumps(json.loads(whole)[:3]), whole[:50], "{}"):
        path.write_text(content)
        with pytest.raises(UserError, match=r"detections\.json.*delete"):
            load_run_errors(load_run(folder))
    path.write_text(whole)
    other = write_found(tmp_path / "other", drawn_truths(seed=4))
    stray = next(iter(sorted(other.glob("cells/*/error_types.npz"))))
    path.with_name("error_types.npz").write_bytes(stray.read_bytes())
    with pytest.raises(UserError, match="two evaluations"):
        load_run_errors(load_run(folder))
