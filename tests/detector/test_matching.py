"""Matching equals a slow, literal form of Caffe's: bipartite first, then by threshold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from bench.detector.boxes import to_corners
from bench.detector.matching import IGNORED, NEGATIVE, SMALLEST_OVERLAP, match
from bench.detector.prior_presets import preset_shapes
from bench.detector.priors import prior_boxes
from bench.spec import DetectorSpec
from tests.detector.oracles import Box, padded, random_boxes, targets_of
from variants.baseline import LIGHT_EXTRAS

THRESHOLD = 0.5


def slow_match(boxes: Tensor, priors: Tensor, threshold: float) -> list[int]:
    """MatchBBox of Caffe's bbox_util.cpp for one image, with its loops and strict comparisons."""
    overlap = box_iou(boxes, priors).tolist() if len(boxes) else []
    result = [NEGATIVE] * len(priors)
    unmatched = list(range(len(boxes)))
    while unmatched:
        largest, best_box, best_prior = -1.0, -1, -1
        for prior in range(len(priors)):
            for box in unmatched:
                if result[prior] == NEGATIVE and SMALLEST_OVERLAP < overlap[box][prior] > largest:
                    largest, best_box, best_prior = overlap[box][prior], box, prior
        if best_box < 0:
            break
        result[best_prior] = best_box
        unmatched.remove(best_box)
    for prior in range(len(priors)):
        if result[prior] == NEGATIVE:
            largest = -1.0
            for box in range(len(boxes)):
                if overlap[box][prior] >= threshold and overlap[box][prior] > largest:
                    largest, result[prior] = overlap[box][prior], box
    return result


# Eighths make ties and identical boxes common; there greedy matchers differ
CORNERS = st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 5), st.integers(1, 5)).map(
    lambda t: (t[0] / 8, t[1] / 8, min(t[0] + t[2], 8) / 8, min(t[1] + t[3], 8) / 8)
)


@pytest.mark.parametrize("avoid_sync", [False, True])
@settings(max_examples=300)
@given(images=st.lists(st.lists(CORNERS, max_size=6), min_size=1, max_size=3), priors=st.lists(CORNERS, min_size=1))
def test_match_equals_caffe(images: list[list[Box]], priors: list[Box], avoid_sync: bool) -> None:
    corners = torch.tensor(priors)
    result = match(targets_of(images), corners, THRESHOLD, avoid_sync=avoid_sync)
    for image, boxes in enumerate(images):
        assert result[image].tolist() == slow_match(torch.tensor(boxes).view(-1, 4), corners, THRESHOLD)


@settings(max_examples=60)
@given(images=st.lists(st.lists(CORNERS, max_size=8), min_size=1, max_size=3))
def test_padding_and_other_images_have_no_effect(images: list[list[Box]]) -> None:
    together = match(targets_of(images, padding=5), PRIORS, THRESHOLD)
    for image, boxes in enumerate(images):
        assert torch.equal(match(targets_of([boxes]), PRIORS, THRESHOLD)[0], together[image])


def ssd_priors() -> Tensor:
    """(8732, 4) xyxy of the COCO preset."""
    spec = DetectorSpec(classes=1, backbone="none", weights="none", extras=LIGHT_EXTRAS, priors=preset_shapes("coco"))
    return to_corners(prior_boxes(spec))


PRIORS = ssd_priors()


def test_every_ground_truth_is_matched() -> None:
    generator = torch.Generator().manual_seed(0)
    images = [random_boxes(generator, count) for count in (1, 5, 40)]
    images.append(torch.tensor([[0.31, 0.42, 0.38, 0.47]]).repeat(25, 1))  # one box 25 times
    result = match(padded(images), PRIORS, THRESHOLD)
    for image, boxes in enumerate(images):
        assert set(range(len(boxes))) <= set(result[image].tolist())


def test_two_boxes_with_the_same_best_prior_are_both_matched() -> None:
    priors = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.1, 0.0, 0.5, 0.4]])
    boxes: list[Box] = [(0.0, 0.0, 0.32, 0.4), (0.0, 0.0, 0.4, 0.4)]
    iou = box_iou(torch.tensor(boxes), priors)
    assert iou.argmax(dim=1).tolist() == [0, 0]
    result = match(targets_of([boxes]), priors, THRESHOLD)
    # The higher IoU wins; the other box takes its second best prior, although it is below the threshold
    assert result.tolist() == [[1, NEGATIVE, 0]]
    assert iou[0, 2] < THRESHOLD
    # In torchvision one overwrites the other, which is then not matched
    assert set(SSDMatcher(THRESHOLD)(iou).tolist()) == {1, -1} or set(SSDMatcher(THRESHOLD)(iou).tolist()) == {0, -1}


def test_a_box_that_overlaps_no_prior_is_unmatched() -> None:
    priors = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.7, 0.7]])
    boxes: list[Box] = [(0.8, 0.8, 0.9, 0.9)]
    assert match(targets_of([boxes]), priors, THRESHOLD).tolist() == [[NEGATIVE, NEGATIVE]]
    # torchvision matches it to prior 0, which does not overlap it
    assert SSDMatcher(THRESHOLD)(box_iou(torch.tensor(boxes), priors)).tolist() == [0, -1]


def test_a_prior_matches_the_box_with_the_higher_iou() -> None:
    priors = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.42, 0.42], [0.02, 0.0, 0.4, 0.4]])
    boxes: list[Box] = [(0.0, 0.0, 0.42, 0.42), (0.02, 0.0, 0.4, 0.4)]
    assert match(targets_of([boxes]), priors, THRESHOLD).tolist() == [[1, 0, 1]]


def test_an_iou_equal_to_the_threshold_is_positive() -> None:
    priors = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.25], [0.0, 0.0, 0.25, 0.25]])
    assert match(targets_of([[(0.0, 0.0, 0.5, 0.5)]]), priors, THRESHOLD).tolist() == [[0, 0, NEGATIVE]]


@pytest.mark.parametrize("avoid_sync", [False, True])
def test_priors_in_crowds_are_ignored(avoid_sync: bool) -> None:
    priors = torch.tensor(
        [
            [0.5, 0.5, 1.0, 1.0],  # the crowd exactly
            [0.6, 0.6, 0.8, 0.8],  # within it
            [0.3, 0.5, 0.7, 1.0],  # half within it
            [0.2, 0.5, 0.6, 1.0],  # a quarter within it
            [0.0, 0.0, 0.3, 0.3],  # outside
            [0.6, 0.6, 0.7, 0.7],  # within it, and equal to an object
        ]
    )
    targets = targets_of([[(0.6, 0.6, 0.7, 0.7)]], crowds=[[(0.5, 0.5, 1.0, 1.0)]])
    assert match(targets, priors, THRESHOLD, avoid_sync=avoid_sync).tolist() == [
        [IGNORED, IGNORED, IGNORED, NEGATIVE, NEGATIVE, 0]
    ]
    alone = targets_of([[]], crowds=[[(0.5, 0.5, 1.0, 1.0)]])
    assert (match(alone, priors, THRESHOLD, avoid_sync=avoid_sync) < 0).all()
    # A crowd in another image of the batch has no effect
    both = targets_of([[(0.6, 0.6, 0.7, 0.7)], []], crowds=[[], [(0.5, 0.5, 1.0, 1.0)]])
    assert IGNORED not in match(both, priors, THRESHOLD, avoid_sync=avoid_sync)[0]


def test_images_without_boxes_are_all_negative() -> None:
    result = match(targets_of([[], [(0.1, 0.1, 0.4, 0.4)], []]), PRIORS, THRESHOLD)
    assert (result[0] == NEGATIVE).all()
    assert (result[2] == NEGATIVE).all()
    assert (result[1] == 0).any()


def test_the_number_of_rounds_is_bounded_by_the_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 0
    argmax: Callable[..., Tensor] = Tensor.argmax

    def counting_argmax(self: Tensor, *, dim: int) -> Tensor:
        nonlocal rounds
        rounds += 1
        return argmax(self, dim=dim)

    monkeypatch.setattr(Tensor, "argmax", counting_argmax)  # called once for the threshold, then once per round
    generator = torch.Generator().manual_seed(1)
    match(padded([random_boxes(generator, 30) for _ in range(8)]), PRIORS, THRESHOLD)
    assert 2 <= rounds <= 9
    rounds = 0
    match(targets_of([[(0.3, 0.3, 0.5, 0.6)] * 12]), PRIORS, THRESHOLD)  # the worst case: each round matches one box
    assert rounds == 1 + 12
