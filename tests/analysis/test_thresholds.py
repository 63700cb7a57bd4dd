"""The score threshold with the highest F1, against a search over all thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.analysis.thresholds import best_threshold, operating_points
from bench.evaluation.coco import evaluate
from tests.evaluation_oracles import detections_of, index_of, jittered, random_index

BOX = (10.0, 10.0, 50.0, 50.0)
STRAY = (100.0, 100.0, 150.0, 150.0)


@pytest.mark.parametrize("label", [None, 0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_threshold_is_that_of_a_search(seed: int, label: int | None) -> None:
    rng = np.random.default_rng(seed)
    index = random_index(rng)
    detections = jittered(rng, index)  # with ties
    found = best_threshold(evaluate(index, detections).matches, label)
    best = (0.0, math.inf, 0.0, 0.0)
    for limit in np.unique(detections.scores):
        # Evaluate again what remains above the threshold
        matches = evaluate(index, detections.take(detections.scores >= limit)).matches
        counted = ~matches.ignored[0, 0] & ((matches.label == label) if label is not None else True)
        right, total = int((matches.matched[0, 0] & counted).sum()), int(counted.sum())
        truths = int(matches.ground_truths().sum() if label is None else matches.ground_truths()[label])
        precision, recall = right / max(total, 1), right / truths
        f1 = 2 * precision * recall / (precision + recall) if right else 0.0
        best = max(best, (f1, float(limit), precision, recall))
    assert (found.f1, found.score, found.precision, found.recall) == pytest.approx(best)


def test_of_equal_thresholds_the_highest_counts() -> None:
    # F1 is 2/3 with the first alone, and with all four
    found = detections_of((0, 0, 0.9, *BOX), (0, 0, 0.8, *STRAY), (0, 0, 0.7, *STRAY), (1, 0, 0.6, *BOX))
    matches = evaluate(index_of([[(0, *BOX)], [(0, *BOX)]]), found).matches
    assert operating_points(matches).f1 == pytest.approx([2 / 3, 1 / 2, 2 / 5, 2 / 3])
    assert best_threshold(matches).score == pytest.approx(0.9)


@pytest.mark.parametrize("found", [(), ((0, 0, 0.9, *STRAY),)])
def test_without_a_correct_detection_there_is_no_threshold(found: tuple[tuple[int, int, float, float]]) -> None:
    matches = evaluate(index_of([[(0, *BOX)]]), detections_of(*found)).matches  # type: ignore[arg-type]
    assert math.isnan(best_threshold(matches).score)
    assert math.isnan(best_threshold(matches, 1).score)  # a class without ground truths
