"""Curves average to the published metrics; calibration and confusion match hand-counted examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.confusion import confusion_matrix
from bench.analysis.curves import BINS, ap_by_threshold, precision_at_recalls, reliability
from bench.evaluation.coco import evaluate
from bench.evaluation.detections import xywh
from bench.evaluation.error_types import ap50, error_types
from bench.evaluation.matches import average_precision
from tests.evaluation_oracles import detections_of, index_of, jittered, random_index

BOX = (10.0, 10.0, 110.0, 110.0)
BESIDE = (65.0, 10.0, 165.0, 110.0)  # IoU with BOX: 45 / 155
FAR = (200.0, 200.0, 290.0, 290.0)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_curves_average_to_the_published_metrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    evaluation = evaluate(index, jittered(rng, index))
    matches, accuracy = evaluation.matches, evaluation.accuracy
    curves = precision_at_recalls(matches)
    np.testing.assert_allclose(curves.mean(axis=1), ap50(matches), atol=1e-12)
    assert np.all(np.diff(curves, axis=1)[~np.isnan(curves).any(axis=1)] <= 0)
    by_threshold = ap_by_threshold(matches)
    np.testing.assert_allclose(by_threshold, np.nanmean(average_precision(matches), axis=0), atol=1e-12)
    assert by_threshold.mean() == pytest.approx(accuracy["AP"], abs=1e-12)
    assert by_threshold[5] == pytest.approx(accuracy["AP75"], abs=1e-12)


def test_curves_without_ground_truths_are_nan() -> None:
    matches = evaluate(index_of([[]]), detections_of((0, 0, 0.5, *BOX))).matches
    assert np.isnan(precision_at_recalls(matches)).all() and np.isnan(ap_by_threshold(matches)).all()


def test_reliability_by_hand() -> None:
    index = replace(index_of([[(0, *BOX), (1, *FAR)]] * 4), difficult=np.tile([False, True], 4))
    detections = detections_of(
        *((image, 0, 0.75, *BOX) for image in range(3)),
        (3, 0, 0.75, *BESIDE),
        (0, 0, 0.25, *FAR),
        (0, 1, 0.25, *FAR),  # difficult: ignored
    )
    found = reliability(evaluate(index, detections).matches)
    assert found.count.tolist() == [0, 0, 1, 0, 0, 0, 0, 4, 0, 0] and len(found.count) == BINS
    assert (found.score[2], found.precision[2]) == (0.25, 0.0)
    assert (found.score[7], found.precision[7]) == (0.75, 0.75)
    assert np.isnan(found.score[0]) and np.isnan(found.precision[0])
    assert found.error == pytest.approx(0.25 / 5)
    nothing = reliability(evaluate(index, detections_of()).matches)
    assert np.isnan(nothing.error) and not nothing.count.any()


def test_a_score_of_one_is_in_the_last_bin() -> None:
    found = reliability(evaluate(index_of([[(0, *BOX)]]), detections_of((0, 0, 1.0, *BOX))).matches)
    assert found.count[-1] == 1 and found.error == 0


def test_confusion_by_hand() -> None:
    index = index_of([[(0, *BOX)], [(0, *BOX)], [(0, *BOX)], [(1, *BOX)], [(2, *BOX)]], classes=3)
    index = replace(index, difficult=np.array([False] * 4 + [True]))
    detections = detections_of(
        (0, 0, 0.9, *BOX),
        (0, 2, 0.8, *BOX),  # second prediction for an object that is already matched
        (1, 1, 0.7, *BOX),
        (1, 0, 0.5, *BOX),  # correct, but the wrong class has the higher score
        (2, 0, 0.3, *BOX),  # below the score threshold
        (3, 1, 0.6, *BESIDE),
        (4, 2, 0.9, *BOX),
        (4, 0, 0.9, *FAR),
    )
    matches = evaluate(index, detections).matches
    types = error_types(matches, xywh(detections.boxes[matches.detection]), xywh(index.boxes))
    assert confusion_matrix(matches, types, threshold=0.4).tolist() == [
        [1, 1, 0, 1],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
        [2, 1, 1, 0],
    ]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_every_ground_truth_and_every_prediction_counts_once(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    detections = jittered(rng, index)
    matches = evaluate(index, detections).matches
    types = error_types(matches, xywh(detections.boxes[matches.detection]), xywh(index.boxes))
    table = confusion_matrix(matches, types, threshold=threshold)
    truths = np.bincount(index.labels[~index.crowd], minlength=len(index.classes))
    assert table[:-1].sum(axis=1).tolist() == truths.tolist()
    claims = (matches.score >= threshold) & ~matches.ignored[0, 0]
    assert (
        table[:, :-1].sum(axis=0).tolist() == np.bincount(matches.label[claims], minlength=len(index.classes)).tolist()
    )
