"""The thumbnails of a run: few, small, deterministic, and removable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.index import ImageIndex
from bench.data.thumbnails import write_thumbnails
from bench.storage.own_files import remove_thumbnails
from tests.index_builders import index_of


@pytest.fixture
def photographs(tmp_path: Path) -> ImageIndex:
    """Thirty images of 400 × 200, each of its own grey."""
    index = index_of([[(0, 10, 10, 50, 50)]] * 30, size=(400, 200), root=tmp_path / "data")
    index.root.mkdir()
    for number, name in enumerate(index.files):
        Image.new("RGB", (400, 200), (8 * number,) * 3).save(index.root / name)
    return index


def test_twelve_thumbnails_with_ids_and_scale_spread_over_the_split(photographs: ImageIndex, tmp_path: Path) -> None:
    files = write_thumbnails(tmp_path / "run", photographs, None)
    entries = json.loads((tmp_path / "run/thumbnails/thumbnails.json").read_text())["thumbnails"]
    assert len(files) == len(entries) == 12 and sum(path.stat().st_size for path in files) < 500_000
    ids = [entry["image_id"] for entry in entries]
    assert ids[0] == 1 and ids[-1] == 30 and set(np.diff(ids)) <= {2, 3}
    for path, entry in zip(files, entries, strict=True):
        with Image.open(path) as image:
            assert image.size == (300, 150) and image.format == "JPEG"
            # the right picture under the right id
            assert abs(image.convert("L").getpixel((150, 75)) - 8 * (entry["image_id"] - 1)) <= 2
        assert entry["scale"] == 0.75 and entry["file"] == path.name
    first = [path.read_bytes() for path in files]
    assert [path.read_bytes() for path in write_thumbnails(tmp_path / "run", photographs, None)] == first


def test_small_splits_are_complete_and_small_images_are_not_enlarged(tmp_path: Path) -> None:
    index = index_of([[], []], size=(40, 30), root=tmp_path)
    for name in index.files:
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    files = write_thumbnails(tmp_path / "run", index, None)
    assert len(files) == 2
    with Image.open(files[0]) as image:
        assert image.size == (40, 30)


def test_thumbnails_can_be_removed(photographs: ImageIndex, tmp_path: Path) -> None:
    write_thumbnails(tmp_path / "run", photographs, None)
    remove_thumbnails(tmp_path / "run")
    assert not list((tmp_path / "run/thumbnails").iterdir())
    remove_thumbnails(tmp_path / "another")
