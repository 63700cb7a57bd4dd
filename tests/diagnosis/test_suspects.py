"""Suspicious annotations: an example and a near miss for each kind."""

from __future__ import annotations

from typing import Any

import pytest

from bench.diagnosis.overlaps import overlapping
from bench.diagnosis.suspects import KINDS, LISTED, similar_names, suspects
from tests.index_builders import LabelledBox, index_of


def found_in(boxes: list[list[LabelledBox]], **about: Any) -> dict[str, Any]:
    index = index_of(boxes, size=(600, 300), **about)
    return suspects(index, 300, overlapping(index, 0.3))


@pytest.mark.parametrize(
    ("kind", "boxes", "almost"),
    [
        ("annotated-twice", [(0, 0, 0, 100, 100), (0, 2, 0, 102, 100)], [(0, 0, 0, 100, 100), (0, 6, 0, 106, 100)]),
        ("annotated-twice", [(0, 0, 0, 100, 100), (0, 0, 0, 100, 100)], [(0, 0, 0, 100, 100), (1, 2, 0, 102, 100)]),
        ("two-classes", [(0, 0, 0, 100, 100), (1, 0, 0, 100, 100)], [(0, 0, 0, 100, 100), (1, 1, 0, 100, 100)]),
        ("covers-image", [(0, 0, 0, 600, 290)], [(0, 0, 0, 600, 284)]),
        ("unseen", [(0, 0, 0, 1.9, 5)], [(0, 0, 0, 2.1, 5)]),
        ("very-long", [(0, 0, 0, 101, 10)], [(0, 0, 0, 100, 10)]),
        ("very-long", [(0, 0, 0, 10, 101)], [(0, 0, 0, 10, 99)]),
    ],
)
def test_each_kind_is_found_but_near_misses_are_not(
    kind: str, boxes: list[LabelledBox], almost: list[LabelledBox]
) -> None:
    found = found_in([[], boxes])
    assert {name: own["count"] for name, own in found["kinds"].items()} == {name: int(name == kind) for name in KINDS}
    assert found["boxes"] == 1
    [listed] = found["kinds"][kind]["listed"]
    label, *corners = boxes[-1]
    assert listed == {"file": "1.png", "class": f"class {label}", "box": corners}
    assert found_in([[], almost])["boxes"] == 0


def test_empty_images_are_named_and_crowds_are_not_suspects() -> None:
    found = found_in([[(0, 0, 0, 600, 300), (0, 0, 0, 600, 300)], [], []], crowd=[0, 1])
    assert found["boxes"] == 0
    assert found["empty_images"] == {"count": 2, "listed": ["1.png", "2.png"]}


def test_boxes_are_counted_once_and_long_lists_are_truncated() -> None:
    found = found_in([[(0, 0, 0, 0.5, 100)] * (LISTED + 2)])
    assert found["boxes"] == LISTED + 2
    assert found["kinds"]["unseen"]["count"] == found["kinds"]["very-long"]["count"] == LISTED + 2
    assert len(found["kinds"]["unseen"]["listed"]) == LISTED


def test_only_spellings_of_one_class_are_similar_names() -> None:
    names = ("Car", "glass", "cars", "traffic light", "bus", "traffic-lights", "gas", "dog", "Dog", "buses", "+", "-")
    assert similar_names(names) == [["Car", "cars"], ["Dog", "dog"], ["traffic light", "traffic-lights"]]
