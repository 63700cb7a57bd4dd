"""Differences and their intervals: against plain resampling, and in cases with a known answer."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import stats

from bench.analysis.bootstrap import bootstrap_weights
from bench.compare.comparison import EQUAL
from bench.compare.result import clearly_below
from bench.data.index import ImageIndex
from bench.errors import UserError
from bench.evaluation.coco_format import detections_coco, ground_truth_coco
from bench.evaluation.detections import Detections
from tests.compare.made_detections import compared, detector, drawn_index


def plain_ap(index: ImageIndex, detections: Detections, rows: list[int]) -> float:
    """COCO's AP by pycocotools on the images at `rows`, which may repeat: every copy is an image with a new id."""
    content, results = ground_truth_coco(index), detections_coco(detections, index)
    ids = index.image_ids.tolist()
    truth = {**content, "images": [], "annotations": []}
    found = []
    for new, row in enumerate(rows, 1):
        truth["images"].append({"id": new, "width": 300, "height": 300})
        own = [each for each in content["annotations"] if each["image_id"] == ids[row]]
        start = len(truth["annotations"]) + 1
        truth["annotations"] += [each | {"id": start + n, "image_id": new} for n, each in enumerate(own)]
        found += [each | {"image_id": new} for each in results if each["image_id"] == ids[row]]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.params.maxDets = [100]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"]
    return float(precision[precision > -1].mean())


def test_the_interval_is_that_of_a_plain_paired_bootstrap() -> None:
    index = drawn_index(12)
    one, other = detector(index, 0.06, seed=1), detector(index, 0.1, seed=2)
    replicates = 60
    comparison = compared(index, {"one": one, "other": other}, replicates=replicates)
    counts = bootstrap_weights(np.arange(12), replicates)[1:].astype(int)
    assert counts.max() > 1  # images are drawn repeatedly
    drawn = [np.repeat(np.arange(12), count).tolist() for count in counts]
    plain = np.array([[plain_ap(index, each, rows) for rows in drawn] for each in (one, other)])

    sample = comparison.analysis.samples.by_metric["AP", ""]
    assert sample.replicates is not None
    np.testing.assert_allclose(sample.replicates[:, 0], plain, atol=1e-9)

    row = comparison.of_ap("other")
    whole = list(range(12))
    assert row["difference"] == pytest.approx(plain_ap(index, other, whole) - plain_ap(index, one, whole), abs=1e-9)
    # Student's t with the plain standard error, unbiased for 12 images
    reach = stats.t.ppf(0.975, 11) * (plain[1] - plain[0]).std(ddof=1) * np.sqrt(12 / 11)
    assert row["high"] - row["difference"] == pytest.approx(reach, rel=0.15)
    assert row["difference"] - row["low"] == pytest.approx(reach, rel=0.15)


def test_near_duplicates_are_drawn_together() -> None:
    index = drawn_index(12)
    twice = index.take(np.repeat(np.arange(12), 2))
    twice = replace(twice, image_ids=np.arange(1, 25), files=tuple(f"{row}.png" for row in range(24)))
    detectors = {name: detector(index, noise, seed=seed) for name, noise, seed in (("a", 0.05, 1), ("b", 0.1, 2))}
    doubled = {}
    for name, each in detectors.items():
        both = each.take(np.tile(np.arange(len(each.image)), 2))
        second = np.repeat([0, 1], len(each.image))
        doubled[name] = replace(both, image=2 * both.image + second)
    alone, grouped = (
        compared(index, detectors).of_ap("b"),
        compared(twice, doubled, groups=np.repeat(np.arange(12), 2).tolist()).of_ap("b"),
    )
    single = compared(twice, doubled).of_ap("b")
    width = alone["high"] - alone["low"]
    assert grouped["high"] - grouped["low"] == pytest.approx(width, rel=0.02)
    assert single["high"] - single["low"] < 0.8 * width


def test_identical_detections_differ_by_exactly_nothing() -> None:
    index = drawn_index()
    same = detector(index, 0.1, seed=1)
    comparison = compared(index, {"one": same, "again": same, "other": detector(index, 0.04, seed=2)})
    rows = comparison.differences[comparison.differences["detector"] == "again"]
    assert {"AP", "AP50", "AP_medium"} <= set(rows["measure"]) and len(rows[rows["class"] != ""]) == 2
    assert (rows[["difference", "low", "high"]].dropna() == 0).all(axis=None)
    overall = comparison.of_ap("again")
    assert overall["low"] == 0 and overall["verdict"] == EQUAL
    errors = comparison.errors[(comparison.errors["detector"] == "again") & (comparison.errors["bucket"] == "")]
    assert (errors[["difference", "low", "high"]] == 0).all(axis=None)
    other = comparison.of_ap("other")
    assert other["low"] > 0
    chances = comparison.analysis.best.set_index("variant")["probability_best"]
    assert chances["one"] == pytest.approx(chances["again"], abs=0.02) and chances["other"] > 0.9
    assert clearly_below(comparison, 0.0) == []


def test_identical_files_share_the_chance_to_be_the_best() -> None:
    index = drawn_index(12)
    same = detector(index, 0.1, seed=1)
    best = compared(index, {"one": same, "again": same}).analysis.best
    assert best["probability_best"].tolist() == [0.5, 0.5]


def test_the_order_of_detections_does_not_matter() -> None:
    index = drawn_index(12)
    one, other = detector(index, 0.06, seed=1), detector(index, 0.1, seed=2)
    # Ties in score make the order matter to pycocotools
    tied = {name: replace(each, scores=np.round(each.scores, 1)) for name, each in (("a", one), ("b", other))}
    tied = {name: each.take(np.tile(np.arange(len(each.image)), 2)) for name, each in tied.items()}
    rng = np.random.default_rng(0)
    shuffled = {name: each.take(rng.permutation(len(each.image))) for name, each in tied.items()}
    before, after = (compared(index, each, replicates=50) for each in (tied, shuffled))
    pd.testing.assert_frame_equal(before.differences, after.differences)
    pd.testing.assert_frame_equal(before.errors, after.errors)
    pd.testing.assert_frame_equal(before.thresholds, after.thresholds)


def test_intervals_of_several_detectors_hold_together() -> None:
    index = drawn_index()
    first, others = detector(index, 0.06, seed=0), {f"{k}": detector(index, 0.08, seed=k) for k in range(1, 4)}
    together = compared(index, {"first": first, **others})
    assert set(together.differences.loc[together.differences["class"] == "", "detector"]) == set(others)
    alone, joint = compared(index, {"first": first, "2": others["2"]}).of_ap("2"), together.of_ap("2")
    assert joint["difference"] == alone["difference"] and joint["adjusted_by"] == "max-T"
    assert joint["low"] < alone["low"] and joint["high"] > alone["high"]
    assert together.analysis.best["probability_best"].sum() == pytest.approx(1)


def test_errors_by_size_and_class_add_up() -> None:
    index = drawn_index()
    comparison = compared(index, {name: detector(index, 0.15, seed=k) for k, name in enumerate("ab")}, replicates=20)
    kinds = comparison.errors[comparison.errors["kind"].isin(("localisation", "missed", "background"))]
    counts = kinds.pivot_table(index=["detector", "kind"], columns="scope", values="count", aggfunc="sum")
    assert len(counts) == 6 and counts["all"].sum() > 0
    assert (counts["size"] == counts["all"]).all() and (counts["class"] == counts["all"]).all()
    assert set(kinds.loc[kinds["scope"] == "size", "bucket"]) == {"small", "medium", "large"}


def test_scores_that_are_no_probabilities_have_no_calibration() -> None:
    index = drawn_index(12)
    one = detector(index, 0.1, seed=1)
    logits = replace(one, scores=10 * one.scores - 5)
    comparison = compared(index, {"probabilities": one, "logits": logits}, replicates=20)
    assert comparison.calibration["probabilities"] > 0 and np.isnan(comparison.calibration["logits"])
    difference = comparison.of_ap("logits")
    assert difference["difference"] == 0  # AP depends on the order of the scores only


def test_without_objects_there_is_nothing_to_compare() -> None:
    index = drawn_index(12)
    crowds = replace(index, crowd=np.ones(len(index.boxes), dtype=np.bool_))
    with pytest.raises(UserError, match="None of the 12 evaluated images of drawn has an object that counts"):
        compared(crowds, {name: detector(index, 0.1, seed=1) for name in "ab"})


def test_few_images_give_no_interval_and_no_decision() -> None:
    index = drawn_index(6)
    comparison = compared(index, {name: detector(index, 0.1, seed=k) for k, name in enumerate("ab")}, replicates=20)
    row = comparison.of_ap("b")
    assert np.isnan(row["low"]) and "6 independent images" in row["method"]
    with pytest.raises(UserError, match=r"cannot be decided for b: .*6 independent images"):
        clearly_below(comparison, 1.0)


def test_a_detector_fails_if_it_is_clearly_below_the_limit() -> None:
    index = drawn_index()
    good, bad = detector(index, 0.02, seed=1), detector(index, 0.15, seed=2)
    worse, better = (compared(index, each) for each in ({"good": good, "bad": bad}, {"bad": bad, "good": good}))
    row = worse.of_ap("bad")
    assert row["high"] < -0.02
    end = -100 * float(row["high"])
    for limit in (0.0, 1.0, end - 0.01):
        [line] = clearly_below(worse, limit)
        assert line.startswith(f"bad is clearly more than {limit:g} point") and " below good: AP −" in line
        assert clearly_below(better, limit) == []
    # The upper end decides, not the difference
    assert clearly_below(worse, end + 0.01) == [] and end + 0.01 < -100 * row["difference"]
