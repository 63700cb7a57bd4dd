"""Draw labelled boxes on images, for `predict` and the contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's palette, distinguishable by colour-blind people.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
DARK = frozenset({"#009E73", "#0072B2", "#D55E00"})  # these need white text, the others black

Place = tuple[float, float, float, float]  # xyxy in pixels of the image


def draw_boxes(picture: Image.Image, boxes: NDArray[np.float64], texts: Sequence[str], labels: Sequence[int]) -> int:
    """Draw boxes on the RGB image `picture`, each in the colour of its label with its text.

    boxes: (K, 4) xyxy in pixels. Texts are placed in the order of the boxes, over all outlines: above the box, or at
    another of its edges if that place is taken or outside the image. A text that fits nowhere is left out.
    Returns the number of texts left out.
    """
    draw = ImageDraw.Draw(picture)
    font = label_font(max(11, round(max(picture.size) / 45)))
    line_width = max(1, round(max(picture.size) / 300))
    colours = [COLOURS[label % len(COLOURS)] for label in labels]
    for box, colour in zip(boxes.tolist(), colours, strict=True):
        draw.rectangle(box, outline=colour, width=line_width)
    taken: list[Place] = []
    for box, text, colour in zip(boxes.tolist(), texts, colours, strict=True):
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        text_size = (right + 4, bottom - top + 4)
        place = _free_place(box, text_size, picture.size, taken)
        if place is None:
            continue
        taken.append(place)
        draw.rectangle(place, fill=colour)
        ink = "white" if colour in DARK else "black"
        draw.text((place[0] + 2 - left, place[1] + 2 - top), text, fill=ink, font=font)
    return len(texts) - len(taken)


@cache
def label_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's built-in font covers only English letters."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _free_place(
    box: Sequence[float], size: tuple[float, float], picture: tuple[int, int], taken: Sequence[Place]
) -> Place | None:
    """A free place for a text of `size` (width, height) at a box: above, below, or inside at the top or bottom."""
    width, height = size
    x = min(max(0.0, box[0]), picture[0] - width)
    for y in (box[1] - height, box[3], box[1], box[3] - height):
        if x < 0 or y < 0 or y + height > picture[1]:
            continue
        if not any(x < t[2] and t[0] < x + width and y < t[3] and t[1] < y + height for t in taken):
            return x, y, x + width, y + height
    return None
