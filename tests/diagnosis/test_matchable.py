"""Matchable objects: the real matcher against the closed form of the grid and a plain loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from bench.data.augment import boxes_in_view, draw_view, generator_of
from bench.data.index import ImageIndex
from bench.detector.boxes import to_corners
from bench.detector.prior_fitting import matchable_boxes, recall
from bench.detector.prior_presets import preset_shapes
from bench.detector.priors import prior_boxes
from bench.diagnosis import matchable
from bench.diagnosis.matchable import match_views, training_views, whole_views
from bench.spec import AugmentSpec
from tests.index_builders import LabelledBox, index_of
from tests.tiny import specification

DETECTOR = specification().detector


def scattered(images: int, seed: int = 0) -> ImageIndex:
    """Images with zero to eight boxes of all sizes, some of them crowds."""
    generator = np.random.default_rng(seed)
    boxes: list[list[LabelledBox]] = []
    for _ in range(images):
        own = []
        for _ in range(int(generator.integers(0, 9))):
            wide, high = np.exp(generator.uniform(np.log(3), np.log(90), 2)) * (1, 0.8)
            left, top = generator.uniform(0, 100 - wide), generator.uniform(0, 80 - high)
            own.append((int(generator.integers(2)), left, top, left + wide, top + high))
        boxes.append(own)
    count = sum(map(len, boxes))
    return index_of(boxes, crowd=range(0, count, 7))


@pytest.mark.parametrize("preset", ["coco", "voc"])
def test_matching_whole_images_equals_the_closed_form_of_the_grid(preset: str) -> None:
    index = scattered(40)
    detector = replace(DETECTOR, priors=preset_shapes(preset))
    found = match_views(whole_views(index), detector)
    expected = recall(matchable_boxes(index), detector)
    assert 0.2 < expected["matched"] < 0.9
    assert len(found.reached) == expected["boxes"]
    assert found.reached.mean() == pytest.approx(expected["matched"])
    assert found.labels.tolist() == index.labels[~index.crowd].tolist()


def test_prior_counts_equal_a_plain_loop() -> None:
    index = scattered(12, seed=1)
    index = replace(index, crowd=np.zeros(len(index.boxes), bool))
    found = match_views(whole_views(index), DETECTOR)
    priors = to_corners(prior_boxes(DETECTOR))
    fractions = index.fractions()
    for row in range(len(index)):
        own = slice(*index.offsets[row : row + 2])
        if own.start == own.stop:
            continue
        overlap = box_iou(torch.from_numpy(fractions[own]).float(), priors)
        owner = torch.where(overlap.amax(0) >= 0.5, overlap.argmax(0), -1)
        left = overlap.clone()
        for _ in range(len(left)):  # Caffe's greedy bipartite part, pair by pair
            place = int(left.argmax())
            truth, prior = divmod(place, left.shape[1])
            owner[prior] = truth
            left[truth] = -1
            left[:, prior] = -1
        counted = torch.bincount(owner[owner >= 0], minlength=len(overlap))
        assert found.priors[own].tolist() == counted.tolist()
        assert found.reached[own].tolist() == (overlap.amax(1) >= 0.5).tolist()


def test_the_batch_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = whole_views(scattered(15, seed=2))
    whole = match_views(seen, DETECTOR)
    monkeypatch.setattr(matchable, "MAX_OVERLAPS", 10 * 8732)
    parts = match_views(seen, DETECTOR)
    for name in ("labels", "size", "reached", "priors"):
        assert getattr(whole, name).tolist() == getattr(parts, name).tolist()


def test_views_equal_those_of_training() -> None:
    index = scattered(5, seed=3)
    seen = training_views(index, AugmentSpec(), seed=4)
    assert len(seen.offsets) - 1 >= matchable.VIEWS
    for epoch, row in ((0, 0), (0, 4), (7, 2)):
        own = slice(*index.offsets[row : row + 2])
        crowd = index.crowd[own]
        boxes = index.fractions()[own]
        view = draw_view(generator_of(4, epoch, row), boxes[~crowd], AugmentSpec())
        expected, stays = boxes_in_view(boxes, view, always=crowd)
        place = slice(*seen.offsets[epoch * 5 + row : epoch * 5 + row + 2])
        assert seen.boxes[place].tolist() == expected.tolist()
        assert seen.labels[place].tolist() == index.labels[own][stays].tolist()
        assert seen.crowd[place].tolist() == crowd[stays].tolist()


def test_large_sets_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matchable, "MAX_OBJECTS", 20)
    index = index_of([[(row % 2, 1, 1, 20 + row, 30)] * 2 for row in range(40)])
    assert len(whole_views(index).boxes) == 20
    monkeypatch.setattr(matchable, "VIEWS", 30)
    assert len(training_views(index, AugmentSpec(), seed=0).offsets) - 1 == 10


def test_an_index_without_boxes_has_no_matches() -> None:
    empty = index_of([[], []])
    found = matchable.matchable_objects(empty, empty, DETECTOR, DETECTOR, augment=AugmentSpec(), seed=0)
    assert found["given"]["val"]["all"] == {
        "objects": 0,
        "matched": 0,
        "priors_mean": None,
        "priors_median": None,
        "lone": 0,
    }


def test_given_and_fitted_priors_are_counted() -> None:
    # Of 9 x 9 at the network, centred in a cell of the finest map; and one that the given priors match
    index = index_of([[(0, 10.5, 8.4, 13.5, 10.8), (1, 20, 20, 70, 60)]] * 4)
    nine = replace(DETECTOR, priors=(((0.03, 0.03),) * 4, *DETECTOR.priors[1:]))
    found = matchable.matchable_objects(index, index, DETECTOR, nine, augment=AugmentSpec(), seed=0)
    given, fitted = (found[priors]["val"] for priors in ("given", "fitted"))
    assert (given["all"]["objects"], given["all"]["matched"]) == (8, 4)
    assert given["by_size"]["under 16"]["matched"] == 0
    assert given["by_class"]["class 0"] == {
        "objects": 4,
        "matched": 0,
        "priors_mean": 1,
        "priors_median": 1,
        "lone": 4,
    }
    assert fitted["by_class"]["class 0"]["matched"] == found["fitted"]["train"]["by_class"]["class 0"]["matched"] == 4
    assert fitted["by_class"]["class 0"]["priors_mean"] == 4
