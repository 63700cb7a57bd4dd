"""Sizes, classes and conditions against hand counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.diagnosis.objects import SIDE_RANGES, class_counts, conditions, object_sizes
from tests.index_builders import index_of


def test_sizes_are_counted_in_original_pixels_and_at_the_network() -> None:
    # 600 x 300 to 300 x 300: widths are halved, heights stay
    index = index_of(
        [
            [(0, 0, 0, 20, 10), (0, 100, 100, 140, 140), (1, 0, 0, 600, 300)],
            [(0, 10, 10, 50, 36), (1, 0, 0, 600, 300)],
        ],
        size=(600, 300),
        crowd=[4],
    )
    found = object_sizes(index, 300)
    # Sides at the network: 10 x 10, 20 x 40 (28.3), 300 x 300, 20 x 26 (22.8); the crowd is left out
    assert found["objects"] == 4
    assert found["network"] == dict(zip(SIDE_RANGES, (1, 2, 0, 1), strict=True))
    # Areas in the photographs: 200, 1600, 180000 and 1040, of which 1024 is small's limit
    assert found["coco"] == {"small": 1, "medium": 2, "large": 1}
    assert found["coco_network"] == {"small": 3, "medium": 0, "large": 1}
    assert found["shrunk"] == 2
    assert found["small_and_tiny"] == 1
    assert found["shapes"] == [[10, 10], [20, 40], [300, 300], [20, 26]]
    assert found["ratio"][1] == pytest.approx((40 / 26 + 2) / 2)
    assert found["ratio_network"][1] == pytest.approx((20 / 26 + 1) / 2)
    for scale in ("original", "network"):
        assert sum(found["histogram"][scale]) == 4
    edges, counts = np.array(found["histogram"]["edges"]), np.array(found["histogram"]["network"])
    assert counts[(edges[:-1] <= 300) & (edges[1:] > 300)].tolist() == [1]


def test_sizes_use_the_area_of_the_evaluation() -> None:
    index = index_of([[(0, 0, 0, 50, 50)]])
    assert object_sizes(index, 300)["coco"]["medium"] == 1
    assert object_sizes(replace(index, areas=np.array([1000.0])), 300)["coco"]["small"] == 1


def test_an_empty_index_has_no_sizes() -> None:
    found = object_sizes(index_of([[]]), 300)
    assert (found["objects"], found["side"], found["shapes"]) == (0, None, [])
    assert conditions(index_of([[]]))["objects"] == 0


def test_class_counts_exclude_crowds_and_difficult_validation_objects() -> None:
    train = index_of([[(0, 0, 0, 10, 10), (0, 0, 0, 20, 10), (1, 0, 0, 9, 9)], [(0, 0, 0, 10, 10)]], crowd=[2])
    val = index_of([[(1, 0, 0, 50, 40), (1, 5, 5, 55, 45), (0, 0, 0, 10, 10)]])
    val = replace(val, difficult=np.array([False, True, False]))
    red, green = class_counts(train, val, 300)
    assert {key: red[key] for key in ("train", "train_images", "val", "val_images")} == {
        "train": 3,
        "train_images": 2,
        "val": 1,
        "val_images": 1,
    }
    assert (green["train"], green["val"], green["val_images"]) == (0, 1, 1)
    # Images of 100 x 80: 50 x 40 pixels are 150 x 150 at the network
    assert green["side_network"] == pytest.approx(150)


def test_a_class_without_objects_has_no_size() -> None:
    index = index_of([[(0, 0, 0, 10, 10)]], classes=3)
    assert [row["side_network"] is None for row in class_counts(index, index, 300)] == [False, True, True]


def test_conditions_count_annotated_flags_and_boxes_at_the_border() -> None:
    index = index_of([[(0, 0, 5, 10, 10), (0, 5, 5, 10, 79.8), (0, 5, 5, 10, 79), (0, 90, 5, 100, 10)]])
    index = replace(index, truncated=np.array([1, 0, -1, 1], np.int8), occluded=np.full(4, -1, np.int8))
    assert conditions(index) == {
        "objects": 4,
        "at_border": 3,
        "truncated_stated": 3,
        "truncated": 2,
        "occluded_stated": 0,
        "occluded": 0,
    }
