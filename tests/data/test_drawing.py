"""Drawn boxes are at their positions, and names never overlap."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from bench.data import drawing
from bench.data.drawing import COLOURS, draw_boxes


def test_outlines_have_the_position_and_colour_of_their_box() -> None:
    picture = Image.new("RGB", (200, 150), "black")
    assert draw_boxes(picture, np.array([[50.0, 60.0, 120.0, 110.0]]), ["mug"], [8]) == 0
    pixels = np.asarray(picture)
    colour = ImageColor.getrgb(COLOURS[8 % len(COLOURS)])
    for x, y in ((50, 80), (120, 80), (80, 60), (80, 110), (50, 110), (120, 110)):
        assert tuple(pixels[y, x]) == colour
    assert not pixels[65:105, 55:115].any()  # the inside is left as it was
    assert pixels[40:59, 50:80].any()  # the name above it
    assert not pixels[:, 130:].any() and not pixels[120:].any()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(0, 40), side=st.integers(20, 300))
def test_names_stay_inside_and_never_overlap(seed: int, count: int, side: int) -> None:
    generator = np.random.default_rng(seed)
    low = generator.random((count, 2)) * side
    boxes = np.concatenate((low, low + generator.random((count, 2)) * (side - low)), axis=1)
    taken: list[drawing.Place] = []
    for box in boxes.tolist():
        place = drawing._free_place(box, (30.0, 12.0), (side, side), taken)
        if place is None:
            continue
        assert 0 <= place[0] < place[2] <= side and 0 <= place[1] < place[3] <= side
        assert all(place[0] >= o[2] or o[0] >= place[2] or place[1] >= o[3] or o[1] >= place[3] for o in taken)
        taken.append(place)
    picture = Image.new("RGB", (side, side))
    left_out = draw_boxes(picture, boxes, ["name"] * count, list(range(count)))
    assert 0 <= left_out <= count


def test_names_without_room_are_counted() -> None:
    boxes = np.tile([[5.0, 5.0, 95.0, 95.0]], (12, 1))
    assert draw_boxes(Image.new("RGB", (100, 100)), boxes, ["twelve of them"] * 12, [0] * 12) >= 8


def test_the_font_has_non_english_letters() -> None:
    """A font without them would draw the same empty frame for each."""
    font = drawing.label_font(16)
    masks = {bytes(font.getmask(letter)) for letter in "×…éőжΩ"}
    assert len(masks) == 6
