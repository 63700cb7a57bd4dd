"""The stored matches reproduce the figures of the evaluation, also with weighted images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.evaluation.coco import evaluate
from bench.evaluation.coco_format import detections_coco, ground_truth_coco
from bench.evaluation.detections import Detections
from bench.evaluation.matches import Matches, average_precision
from tests.evaluation_oracles import detections_of, jittered, plain_pycocotools, random_index

AREAS = ("all", "small", "medium", "large", "small_network", "medium_network", "large_network")


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), empty=st.booleans())
def test_matches_reproduce_the_evaluators_ap(seed: int, empty: bool) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    detections = detections_of() if empty else jittered(rng, index)
    evaluation = evaluate(index, detections)
    plain = plain_pycocotools(ground_truth_coco(index), detections_coco(detections, index))
    by_id = np.argsort(np.argsort(index.category_ids))
    for place, area in enumerate(AREAS[:4]):
        expected = plain.eval["precision"][..., place, 2].mean(axis=1).T[by_id]
        ours = average_precision(evaluation.matches, area=area)
        np.testing.assert_allclose(ours, np.where(expected == -1, np.nan, expected), rtol=0, atol=1e-12)
    for area in AREAS:
        figure = evaluation.accuracy["AP" if area == "all" else f"AP_{area}"]
        ours = average_precision(evaluation.matches, area=area)
        if figure is None:
            assert np.isnan(ours).all()
        else:
            assert np.nanmean(ours) == pytest.approx(figure, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_weights_equal_repeated_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng, images=8)
    detections = jittered(rng, index, ties=False)
    drawn = np.sort(rng.integers(0, len(index), len(index)))
    repeated = replace(index.take(drawn), image_ids=np.arange(1, len(drawn) + 1))
    rows = [np.flatnonzero(detections.image == row) for row in drawn]
    again = Detections(
        image=np.repeat(np.arange(len(drawn)), [len(row) for row in rows]),
        boxes=detections.boxes[np.concatenate(rows)],
        scores=detections.scores[np.concatenate(rows)],
        labels=detections.labels[np.concatenate(rows)],
    )
    weights = np.bincount(drawn, minlength=len(index)).astype(np.float64)
    matches = evaluate(index, detections).matches
    both = np.stack((np.ones(len(index)), weights))
    for area in AREAS:
        replicate = average_precision(matches, weights, area=area)
        expected = average_precision(evaluate(repeated, again).matches, area=area)
        np.testing.assert_allclose(replicate, expected, rtol=0, atol=1e-12)
        together = average_precision(matches, both, area=area)
        np.testing.assert_array_equal(together[1], replicate)
        np.testing.assert_array_equal(together[0], average_precision(matches, area=area))


@pytest.mark.parametrize("empty", [False, True])
def test_matches_round_trip_through_a_file(tmp_path: Path, empty: bool) -> None:
    rng = np.random.default_rng(1)
    index = random_index(rng)
    matches = evaluate(index, detections_of() if empty else jittered(rng, index)).matches
    matches.save(tmp_path / "matches.npz")
    loaded = Matches.load(tmp_path / "matches.npz")
    for name, value in vars(matches).items():
        other = getattr(loaded, name)
        if isinstance(value, tuple):
            assert other == value
        else:
            assert (other.dtype, other.shape) == (value.dtype, value.shape), name
            np.testing.assert_array_equal(other, value)
    assert [path.name for path in tmp_path.iterdir()] == ["matches.npz"]


def test_matches_index_detections_and_ground_truths() -> None:
    rng = np.random.default_rng(2)
    index = random_index(rng)
    detections = jittered(rng, index)
    matches = evaluate(index, detections).matches
    np.testing.assert_array_equal(matches.image, detections.image[matches.detection])
    np.testing.assert_array_equal(matches.score, detections.scores[matches.detection])
    np.testing.assert_array_equal(matches.truth >= 0, matches.matched[AREAS.index("all")])
    thresholds, places = np.nonzero(matches.truth >= 0)
    truths = matches.truth[thresholds, places]
    assert len(truths) > 100
    np.testing.assert_array_equal(index.labels[truths], matches.label[places])
    np.testing.assert_array_equal(index.image_of_box[truths], matches.image[places])
    ordinary = ~index.crowd[truths]
    a, b = detections.boxes[matches.detection[places]].astype(float)[ordinary], index.boxes[truths][ordinary]
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    shared = sides.prod(axis=1)
    union = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1) - shared
    assert (shared / union >= matches.thresholds[thresholds[ordinary]] - 1e-9).all()
