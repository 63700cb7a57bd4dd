"""The sheets show the images and the views of training with their boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

from bench.data import sheet
from bench.data.drawing import COLOURS
from bench.data.index import ImageIndex
from bench.data.pixels import PixelSource
from tests import tiny

CELL = sheet.TILE + sheet.GAP


@pytest.fixture
def rectangles(monkeypatch: pytest.MonkeyPatch) -> ImageIndex:
    """26 pictures of 90 x 60 in memory with red and green rectangles, the first with none."""
    index, pixels = tiny.rectangles(26, empty=(0,))

    def opened(path: Path | None, part: ImageIndex) -> PixelSource:
        return tiny.Pixels([pixels[index.files.index(name)] for name in part.files])

    monkeypatch.setattr(sheet, "open_pixels", opened)
    return index


def tile_of(drawn: Image.Image, column: int, row: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The tile at a place of a sheet whose tiles all have one size (width, height)."""
    left, top = sheet.GAP + column * CELL, sheet.GAP + row * (size[1] + sheet.CAPTION + sheet.GAP)
    return np.asarray(drawn)[top : top + size[1], left : left + size[0]]


def test_twenty_images_spread_over_the_set_are_shown_with_boxes(rectangles: ImageIndex) -> None:
    drawn = sheet.image_sheet(rectangles, None)
    size = (480, 320)
    assert drawn.size == (4 * CELL + sheet.GAP, 5 * (size[1] + sheet.CAPTION + sheet.GAP) + sheet.GAP)
    colours = [ImageColor.getrgb(colour) for colour in COLOURS[:2]]
    first = tile_of(drawn, 0, 0, size).reshape(-1, 3)
    assert not any((first == colour).all(axis=1).any() for colour in colours)  # it has no box
    last = tile_of(drawn, 3, 4, size)
    own = slice(*rectangles.offsets[25:27])
    for box, label in zip(rectangles.boxes[own] * 480 / 90, rectangles.labels[own], strict=True):
        x0, y0, x1, y1 = np.minimum(box.round(), [479, 319, 479, 319]).astype(int)
        edges = np.concatenate((last[y0:y1, x0], last[y1, x0:x1], last[y0:y1, x1]))
        # Another box's outline or name may lie over a part of it
        assert (edges == colours[label]).all(axis=1).mean() > 0.4


def test_boxes_of_training_views_contain_objects(rectangles: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are bright red or green on grey, which zoom, crop, mirror and colour shifts preserve."""
    shares: list[float] = []

    def measured(picture: Image.Image, boxes: NDArray[np.float64], names: list[str], labels: list[int]) -> int:
        pixels = np.asarray(picture).astype(int)
        coloured = pixels.max(axis=2) - pixels.min(axis=2) > 35
        shares.extend(coloured[y0:y1, x0:x1].mean() for x0, y0, x1, y1 in boxes.round().astype(int).tolist())
        return 0

    monkeypatch.setattr(sheet, "draw_boxes", measured)
    sheet.training_sheet(rectangles, None)
    assert len(shares) > 15
    assert min(shares) > 0.85


def test_small_sets_are_shown_once(rectangles: ImageIndex) -> None:
    few = rectangles.take(np.array([3, 4, 5]))
    assert sheet.image_sheet(few, None).size == (3 * CELL + sheet.GAP, 320 + sheet.CAPTION + 2 * sheet.GAP)
    assert sheet.training_sheet(few, None).width == 4 * CELL + sheet.GAP  # seen again in the next epoch


def test_padding_is_not_drawn_and_crowds_are_labelled(rectangles: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly the boxes of the views are drawn, with their classes."""
    texts: list[list[str]] = []
    drawn: list[list[float]] = []

    def noted(picture: Image.Image, boxes: NDArray[np.float64], names: list[str], labels: list[int]) -> int:
        assert len(boxes) == len(names) == len(labels)
        assert (boxes[:, 2:] > boxes[:, :2]).all() and ((boxes >= 0) & (boxes <= 480)).all()
        texts.append(names)
        drawn.extend(boxes.tolist())
        return 0

    monkeypatch.setattr(sheet, "draw_boxes", noted)
    crowd = np.zeros(len(rectangles.boxes), dtype=bool)
    crowd[0] = True
    index = ImageIndex(**{**vars(rectangles), "crowd": crowd})
    sheet.image_sheet(index, None)
    assert texts[0] == [] and texts[1][0] == "crowd"
    assert drawn  # so the checks in `noted` saw boxes
    assert {name for names in texts for name in names} == {"crowd", "red", "green"}
    texts.clear()
    sheet.training_sheet(rectangles, None)
    assert len(texts) == 20
    assert {name for names in texts for name in names} == {"red", "green"}
    assert min(len(names) for names in texts) == 0 and max(len(names) for names in texts) <= 3


def test_both_sheets_are_written(rectangles: ImageIndex, tmp_path: Path) -> None:
    paths = sheet.write_sheets(tmp_path / "out", rectangles, rectangles, None)
    assert [path.name for path in paths] == ["sheet-images.png", "sheet-training.png"]
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG" and image.mode == "RGB"
