"""Decoded pixels: budget, file names, interrupted writes, and exact crops."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data.augment import View
from bench.data.dataset import check
from bench.data.index import ImageIndex
from bench.data.pixels import DecodedOnDemand, PixelWriter, fits_budget, open_pixels, pixels_file, stored_sizes
from bench.data.readers.reading import Reading
from bench.data.warp import warp
from tests.index_builders import index_of


def pictures(root: Path, count: int = 4, size: tuple[int, int] = (100, 80)) -> ImageIndex:
    """An index of noise, one box on each image, whose files exist."""
    root.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for number in range(count):
        noise = generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{number}.png")
    return index_of([[(0, 10, 10, 40, 40)]] * count, size=size, root=root)


def test_images_written_in_any_order_are_found_by_file_name(tmp_path: Path) -> None:
    index = pictures(tmp_path / "images")
    fresh = DecodedOnDemand(index)
    writer = PixelWriter(tmp_path / "cache" / "pixels.bin", index)
    for row in (2, 0, 3, 1):
        writer.put(row, fresh[row])
    path = writer.close()
    rows = np.array([3, 1])
    stored = open_pixels(path, index.take(rows))
    for place, row in enumerate(rows.tolist()):
        assert np.array_equal(stored[place], fresh[row])
    assert sorted(file.name for file in path.parent.iterdir()) == ["pixels.bin", "pixels.npz"]


@settings(max_examples=200)
@given(width=st.integers(1, 9000), height=st.integers(1, 9000))
def test_reserved_space_fits_the_decoded_image(width: int, height: int) -> None:
    index = index_of([[]], size=(width, height))
    longer = max(width, height)
    reduced = [max(1, round(side * 1000 / longer)) if longer > 1000 else side for side in (height, width)]
    bound = stored_sizes(index)[0].tolist()
    assert all(room >= needed for room, needed in zip(bound, reduced, strict=True))
    assert all(room <= needed + 1 for room, needed in zip(bound, reduced, strict=True))


def test_the_budget_counts_stored_bytes(tmp_path: Path) -> None:
    index = index_of([[]] * 10, size=(100, 80))
    needed = 10 * 100 * 80 * 3
    assert fits_budget(index, tmp_path / "not" / "there" / "yet", needed)
    assert not fits_budget(index, tmp_path, needed - 1)
    # 40 million pixels are stored as 1000 x 1000
    assert fits_budget(index_of([[]], size=(6400, 6400)), tmp_path, 3_000_000)


def test_the_file_name_depends_on_everything_that_affects_its_content(tmp_path: Path) -> None:
    index = pictures(tmp_path / "images")
    name = pixels_file(index, tmp_path)
    assert pixels_file(index, tmp_path) == name
    others = [
        pixels_file(index.take(np.arange(3)), tmp_path),
        pixels_file(index.take(np.array([1, 0, 2, 3])), tmp_path),
        pixels_file(replace(index, sizes=index.sizes + 1), tmp_path),
    ]
    os.utime(tmp_path / "images" / "2.png", ns=(0, 0))
    others.append(pixels_file(index, tmp_path))
    (tmp_path / "images" / "2.png").unlink()
    others.append(pixels_file(index, tmp_path))
    assert len({name, *others}) == 6
    # What is drawn on the images is no part of their pixels
    assert pixels_file(replace(index, labels=index.labels + 1), tmp_path) == pixels_file(index, tmp_path)


def test_an_interrupted_write_leaves_no_usable_file(tmp_path: Path) -> None:
    index = pictures(tmp_path / "images")

    def interrupt(done: int, images: int) -> None:
        raise KeyboardInterrupt

    reading = Reading(index=index, lists={}, problems=[])
    with pytest.raises(KeyboardInterrupt):
        check(reading, cache=tmp_path / "cache", workers=1, progress=interrupt)
    assert list((tmp_path / "cache").iterdir()) == []
    _, path = check(reading, cache=tmp_path / "cache", workers=1)
    assert path is not None
    assert np.array_equal(open_pixels(path, index)[3], DecodedOnDemand(index)[3])


PICTURE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    low=st.tuples(st.floats(0, 0.6), st.floats(0, 0.6)),
    size=st.tuples(st.floats(0.1, 0.4), st.floats(0.1, 0.4)),
    mirrored=st.booleans(),
)
def test_resizing_a_crop_equals_pillow_on_the_whole_image(
    low: tuple[float, float], size: tuple[float, float], mirrored: bool
) -> None:
    """Only the pixels that the filter reaches are passed."""
    rectangle = np.array([*low, low[0] + size[0], low[1] + size[1]])
    pixels, inside = warp(PICTURE, View(rectangle, mirrored), 300)
    box = tuple((rectangle * [320, 240, 320, 240]).tolist())
    expected = np.asarray(Image.fromarray(PICTURE).resize((300, 300), Image.Resampling.BILINEAR, box=box))
    assert inside == (0, 0, 300, 300)
    difference = pixels.astype(int) - (expected[:, ::-1] if mirrored else expected)
    # Pillow keeps corners in single precision: on noise a thousandth of a pixel is a level or two
    assert np.abs(difference).max() <= 4
    assert np.abs(difference).mean() < 0.1
