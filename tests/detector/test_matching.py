"""Matching: Caffe's bipartite-then-threshold, against an obvious slow form of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import SSDMatcher
from torchvision.ops import box_iou

from bench.data.targets import Targets
from bench.detector.boxes import to_corners
from bench.detector.matching import IGNORED, NEGATIVE, SMALLEST_OVERLAP, match
from bench.detector.priors import preset_shapes, prior_boxes
from bench.spec import DetectorSpec
from variants.baseline import LIGHT_EXTRAS

THRESHOLD = 0.5
Box = tuple[float, float, float, float]


def targets_of(images: list[list[Box]], *, crowds: list[list[Box]] | None = None, padding: int = 0) -> Targets:
    """Padded targets; crowds come after an image's objects, then `padding` more empty rows than needed."""
    crowds = crowds or [[] for _ in images]
    most = max(1, *(len(boxes) + len(regions) for boxes, regions in zip(images, crowds, strict=True))) + padding
    targets = Targets(
        boxes=torch.zeros(len(images), most, 4),
        labels=torch.zeros(len(images), most, dtype=torch.long),
        crowd=torch.zeros(len(images), most, dtype=torch.bool),
    )
    for image, (boxes, regions) in enumerate(zip(images, crowds, strict=True)):
        for place, box in enumerate([*boxes, *regions]):
            targets.boxes[image, place] = torch.tensor(box)
        targets.labels[image, : len(boxes)] = 1
        targets.crowd[image, len(boxes) : len(boxes) + len(regions)] = True
    return targets


def padded(images: list[Tensor]) -> Targets:
    """Targets of images with boxes (G, 4) each, all of class 1."""
    return targets_of([[(a, b, c, d) for a, b, c, d in boxes.tolist()] for boxes in images])


def random_boxes(generator: torch.Generator, count: int) -> Tensor:
    """(count, 4) xyxy in [0, 1], small ones more often than large ones."""
    low = torch.rand(count, 2, generator=generator) * 0.95
    size = 0.03 + torch.rand(count, 2, generator=generator) ** 3 * (0.97 - low)
    return torch.cat((low, low + size), dim=1)


def slow_match(boxes: Tensor, priors: Tensor, threshold: float) -> list[int]:
    """MatchBBox of Caffe's bbox_util.cpp for one image: its loops, and its strict comparisons."""
    overlap = box_iou(boxes, priors).tolist() if len(boxes) else []
    result = [NEGATIVE] * len(priors)
    waiting = list(range(len(boxes)))
    while waiting:
        largest, best_box, best_prior = -1.0, -1, -1
        for prior in range(len(priors)):
            for box in waiting:
                if result[prior] == NEGATIVE and SMALLEST_OVERLAP < overlap[box][prior] > largest:
                    largest, best_box, best_prior = overlap[box][prior], box, prior
        if best_box < 0:
            break
        result[best_prior] = best_box
        waiting.remove(best_box)
    for prior in range(len(priors)):
        if result[prior] == NEGATIVE:
            largest = -1.0
            for box in range(len(boxes)):
                if overlap[box][prior] >= threshold and overlap[box][prior] > largest:
                    largest, result[prior] = overlap[box][prior], box
    return result


# Eighths make ties and identical boxes common, which is where greedy matchers differ.
CORNERS = st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 5), st.integers(1, 5)).map(
    lambda t: (t[0] / 8, t[1] / 8, min(t[0] + t[2], 8) / 8, min(t[1] + t[3], 8) / 8)
)


@pytest.mark.parametrize("avoid_sync", [False, True])
@settings(max_examples=300)
@given(images=st.lists(st.lists(CORNERS, max_size=6), min_size=1, max_size=3), priors=st.lists(CORNERS, min_size=1))
def test_it_is_caffe_s_match(images: list[list[Box]], priors: list[Box], avoid_sync: bool) -> None:
    corners = torch.tensor(priors)
    result = match(targets_of(images), corners, THRESHOLD, avoid_sync=avoid_sync)
    for image, boxes in enumerate(images):
        assert result[image].tolist() == slow_match(torch.tensor(boxes).view(-1, 4), corners, THRESHOLD)


@settings(max_examples=60)
@given(images=st.lists(st.lists(CORNERS, max_size=8), min_size=1, max_size=3))
def test_padding_and_company_do_not_matter(images: list[list[Box]]) -> None:
    together = match(targets_of(images, padding=5), PRIORS, THRESHOLD)
    for image, boxes in enumerate(images):
        assert torch.equal(match(targets_of([boxes]), PRIORS, THRESHOLD)[0], together[image])


def ssd_priors() -> Tensor:
    """(8732, 4) xyxy of the COCO preset."""
    spec = DetectorSpec(classes=1, backbone="none", weights="none", extras=LIGHT_EXTRAS, priors=preset_shapes("coco"))
    return to_corners(prior_boxes(spec))


PRIORS = ssd_priors()


def test_every_ground_truth_that_overlaps_gets_a_prior_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    images = [random_boxes(generator, count) for count in (1, 5, 40)]
    images.append(torch.tensor([[0.31, 0.42, 0.38, 0.47]]).repeat(25, 1))  # one object annotated 25 times
    result = match(padded(images), PRIORS, THRESHOLD)
    for image, boxes in enumerate(images):
        assert set(range(len(boxes))) <= set(result[image].tolist())


def test_two_that_share_a_best_prior_both_keep_one() -> None:
    priors = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9], [0.1, 0.0, 0.5, 0.4]])
    boxes: list[Box] = [(0.0, 0.0, 0.32, 0.4), (0.0, 0.0, 0.4, 0.4)]
    iou = box_iou(torch.tensor(boxes), priors)
    assert iou.argmax(dim=1).tolist() == [0, 0]
    result = match(targets_of([boxes]), priors, THRESHOLD)
    # The better overlap takes it; the other takes its second best, though that is below the threshold
    assert result.tolist() == [[1, NEGATIVE, 0]]
    assert iou[0, 2] < THRESHOLD
    # torchvision lets one overwrite the other, which then trains nothing
    assert set(SSDMatcher(THRESHOLD)(iou).tolist()) == {1, -1} or set(SSDMatcher(THRESHOLD)(iou).tolist()) == {0, -1}


def test_one_that_overlaps_nothing_gets_none() -> None:
    priors = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.7, 0.7]])
    boxes: list[Box] = [(0.8, 0.8, 0.9, 0.9)]
    assert match(targets_of([boxes]), priors, THRESHOLD).tolist() == [[NEGATIVE, NEGATIVE]]
    # torchvision hands it prior 0, which lies elsewhere
    assert SSDMatcher(THRESHOLD)(box_iou(torch.tensor(boxes), priors)).tolist() == [0, -1]


def test_a_prior_takes_the_better_of_two_above_the_threshold() -> None:
    priors = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.42, 0.42], [0.02, 0.0, 0.4, 0.4]])
    boxes: list[Box] = [(0.0, 0.0, 0.42, 0.42), (0.02, 0.0, 0.4, 0.4)]
    assert match(targets_of([boxes]), priors, THRESHOLD).tolist() == [[1, 0, 1]]


def test_the_threshold_itself_is_positive() -> None:
    priors = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.25], [0.0, 0.0, 0.25, 0.25]])
    assert match(targets_of([[(0.0, 0.0, 0.5, 0.5)]]), priors, THRESHOLD).tolist() == [[0, 0, NEGATIVE]]


@pytest.mark.parametrize("avoid_sync", [False, True])
def test_crowds_are_never_positive_nor_negative(avoid_sync: bool) -> None:
    priors = torch.tensor(
        [
            [0.5, 0.5, 1.0, 1.0],  # the crowd exactly
            [0.6, 0.6, 0.8, 0.8],  # within it
            [0.3, 0.5, 0.7, 1.0],  # half within it
            [0.2, 0.5, 0.6, 1.0],  # a quarter within it
            [0.0, 0.0, 0.3, 0.3],  # elsewhere
            [0.6, 0.6, 0.7, 0.7],  # within it, and an object's own
        ]
    )
    targets = targets_of([[(0.6, 0.6, 0.7, 0.7)]], crowds=[[(0.5, 0.5, 1.0, 1.0)]])
    assert match(targets, priors, THRESHOLD, avoid_sync=avoid_sync).tolist() == [
        [IGNORED, IGNORED, IGNORED, NEGATIVE, NEGATIVE, 0]
    ]
    alone = targets_of([[]], crowds=[[(0.5, 0.5, 1.0, 1.0)]])
    assert (match(alone, priors, THRESHOLD, avoid_sync=avoid_sync) < 0).all()
    # A crowd of another image of the batch changes nothing here
    both = targets_of([[(0.6, 0.6, 0.7, 0.7)], []], crowds=[[], [(0.5, 0.5, 1.0, 1.0)]])
    assert IGNORED not in match(both, priors, THRESHOLD, avoid_sync=avoid_sync)[0]


def test_images_without_boxes_are_all_negative() -> None:
    result = match(targets_of([[], [(0.1, 0.1, 0.4, 0.4)], []]), PRIORS, THRESHOLD)
    assert (result[0] == NEGATIVE).all()
    assert (result[2] == NEGATIVE).all()
    assert (result[1] == 0).any()


def test_rounds_are_few_and_bounded_by_the_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 0
    real: Callable[..., Tensor] = Tensor.argmax

    def counted(self: Tensor, *, dim: int) -> Tensor:
        nonlocal rounds
        rounds += 1
        return real(self, dim=dim)

    monkeypatch.setattr(Tensor, "argmax", counted)  # asked once for the threshold, then once a round: who wins?
    generator = torch.Generator().manual_seed(1)
    match(padded([random_boxes(generator, 30) for _ in range(8)]), PRIORS, THRESHOLD)
    assert 2 <= rounds <= 9
    rounds = 0
    match(targets_of([[(0.3, 0.3, 0.5, 0.6)] * 12]), PRIORS, THRESHOLD)  # the worst: each round settles one
    assert rounds == 1 + 12
