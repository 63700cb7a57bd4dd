"""Overlapping objects and losses to suppression, against torchvision and plain loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou

from bench.diagnosis import overlaps
from bench.diagnosis.overlaps import crowding, overlapping, suppressed
from tests.index_builders import LabelledBox, index_of
from tests.tiny import specification

DETECTOR = specification().detector

CORNERS = st.tuples(st.integers(0, 60), st.integers(0, 50), st.integers(4, 30), st.integers(4, 30), st.integers(0, 1))
IMAGES = st.lists(st.lists(CORNERS, max_size=7), min_size=1, max_size=4)


def boxes_of(images: list[list[tuple[int, int, int, int, int]]]) -> list[list[LabelledBox]]:
    return [[(label, left, top, left + wide, top + high) for left, top, wide, high, label in own] for own in images]


@settings(deadline=None, max_examples=50)
@given(IMAGES, st.integers(1, 5))
def test_pairs_equal_a_plain_loop_for_any_part_size(
    images: list[list[tuple[int, int, int, int, int]]], part: int
) -> None:
    index = index_of(boxes_of(images))
    expected = {}
    for start, end in zip(index.offsets[:-1].tolist(), index.offsets[1:].tolist(), strict=True):
        for first, second in combinations(range(start, end), 2):
            pair = torch.from_numpy(index.boxes[[first, second]])
            iou = float(box_iou(pair[:1], pair[1:]))
            if iou > 0.3:
                expected[first, second] = iou
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlaps, "PART", part)
        found = overlapping(index, 0.3)
    pairs = zip(found.first.tolist(), found.second.tolist(), found.iou.tolist(), strict=True)
    assert {(first, second): iou for first, second, iou in pairs} == pytest.approx(expected)


def test_crowds_are_in_no_pair() -> None:
    index = index_of([[(0, 0, 0, 10, 10), (0, 0, 0, 10, 10), (0, 0, 0, 10, 11)]], crowd=[1])
    pairs = overlapping(index, 0.3)
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0], [2])


@settings(deadline=None, max_examples=60)
@given(IMAGES)
def test_suppression_equals_torchvision_in_the_same_order(
    images: list[list[tuple[int, int, int, int, int]]],
) -> None:
    index = index_of(boxes_of(images))
    pairs = overlapping(index, 0.45)
    same = index.labels[pairs.first] == index.labels[pairs.second]
    first, second = pairs.first[same], pairs.second[same]
    removed = suppressed(first, second, len(index.boxes))
    # Perfect boxes, the fewest overlaps first and then by row: as scores to torchvision's suppression
    degree = np.bincount(np.concatenate((first, second)), minlength=len(index.boxes))
    scores = -(degree * len(index.boxes) + np.arange(len(index.boxes)))
    groups = index.image_of_box * 2 + index.labels
    kept = batched_nms(
        torch.from_numpy(index.boxes), torch.from_numpy(scores.astype(np.float64)), torch.from_numpy(groups), 0.45
    )
    assert sorted(kept.tolist()) == np.flatnonzero(~removed).tolist()


def test_a_chain_loses_every_second_box_and_two_classes_lose_nothing() -> None:
    # Each box overlaps the next by two thirds of its width: an IoU of a half
    chain: list[LabelledBox] = [(0, 10.0 * place, 0, 10.0 * place + 30, 30) for place in range(5)]
    found = crowding(index_of([chain]), DETECTOR, overlapping(index_of([chain]), 0.3))
    assert (found["objects"], found["suppressed"], found["crowded"]) == (5, 2, 5)
    assert found["suppressed_by_class"] == {"class 0": 2}
    index = index_of([[(0, 0, 0, 30, 30), (1, 10, 0, 40, 30)]])
    found = crowding(index, DETECTOR, overlapping(index, 0.3))
    assert (found["suppressed"], found["crowded"], found["suppressed_by_class"]) == (0, 2, {})


def test_objects_that_are_not_scored_are_not_counted() -> None:
    index = index_of([[(0, 0, 0, 30, 30), (0, 0, 0, 30, 30)], []])
    assert crowding(index, DETECTOR, overlapping(index, 0.3))["suppressed"] == 1
    easy = replace(index, difficult=np.array([False, True]))
    found = crowding(easy, DETECTOR, overlapping(easy, 0.3))
    assert (found["objects"], found["suppressed"], found["crowded"]) == (1, 0, 0)
    assert found["objects_an_image"] == {"mean": 0.5, "median": 0.5, "most": 1}


def test_objects_beyond_the_detection_limits_are_counted() -> None:
    grid: list[LabelledBox] = [(place % 2, place, 0, place + 1, 1) for place in range(70)]
    index = index_of([grid, grid[:3]], classes=3)
    found = crowding(index, replace(DETECTOR, detections_per_image=50), overlapping(index, 0.3))
    assert (found["beyond_detections"], found["beyond_evaluated"]) == (20, 0)
    many = index_of([[(0, place / 4, 0, place / 4 + 0.2, 1) for place in range(130)]])
    assert crowding(many, DETECTOR, overlapping(many, 0.3))["beyond_evaluated"] == 30
