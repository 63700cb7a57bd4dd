"""Checks of boxes and images that are the same for all formats."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.data.index import BOX_FIELDS
from bench.data.readers.reading import BOX_VERDICTS, MIN_SIDE, USABLE_VERDICTS, check_boxes
from tests.data.builders import one_class_each

COORDINATES = st.one_of(
    st.floats(-50, 150), st.sampled_from([0.0, -0.0, 40.0, 60.0, float("nan"), float("inf"), float("-inf")])
)
BOXES = st.lists(st.tuples(*[COORDINATES] * 4), min_size=1, max_size=20)


def checked(boxes: list[tuple[float, ...]]) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    written = np.array(boxes, dtype=np.float64)
    clamped, verdicts = check_boxes(written, np.tile(np.array([[60, 40]]), (len(boxes), 1)))
    return clamped, verdicts, written


@given(boxes=BOXES)
def test_usable_boxes_are_inside_with_positive_sides(boxes: list[tuple[float, ...]]) -> None:
    clamped, verdicts, _ = checked(boxes)
    usable = clamped[np.isin(verdicts, USABLE_VERDICTS)]
    assert np.all(usable >= 0)
    assert not np.signbit(usable).any()
    assert np.all(usable <= [60, 40, 60, 40])
    assert np.all(usable[:, 2:] - usable[:, :2] >= MIN_SIDE)


@given(boxes=BOXES)
def test_only_boxes_inside_pass_unchanged(boxes: list[tuple[float, ...]]) -> None:
    clamped, verdicts, written = checked(boxes)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        extent = written[:, 2:] - written[:, :2]
    inside = (written >= 0).all(axis=1) & (written <= [60, 40, 60, 40]).all(axis=1) & (extent >= MIN_SIDE).all(axis=1)
    assert np.array_equal(verdicts == 0, inside)
    assert np.array_equal(clamped[inside], written[inside])


def test_each_verdict_has_an_example() -> None:
    cases = {
        "": (0, 0, 60, 40),
        "non-finite-box": (0, float("nan"), 60, 40),
        "inverted-box": (70, 10, 65, 20),
        "zero-area-box": (10, 10, 20, 10),
        "box-outside-image": (60, 10, 80, 20),
        "box-out-of-bounds": (50, -1, 60, 20),
    }
    assert tuple(cases) == BOX_VERDICTS
    _, verdicts, _ = checked(list(cases.values()))
    assert verdicts.tolist() == list(range(len(cases)))


def test_keeping_images_updates_lists_and_boxes() -> None:
    reading = one_class_each(6)
    reading.lists.update(train=np.array([0, 2, 5]), val=np.array([1, 3]))
    kept = reading.keep(np.array([True, False, False, True, True, True]))
    assert kept.index.files == ("000.jpg", "003.jpg", "004.jpg", "005.jpg")
    assert {name: rows.tolist() for name, rows in kept.lists.items()} == {"train": [0, 3], "val": [1]}
    assert kept.index.labels.tolist() == [0, 0, 1, 2]
    assert {len(getattr(kept.index, name)) for name in BOX_FIELDS} == {4}
