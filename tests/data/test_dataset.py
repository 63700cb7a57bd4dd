"""Reopening a data set: nothing is decoded twice, and stale cache entries are never used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data import dataset as opened
from bench.data import split
from bench.data.dataset import Dataset, open_dataset
from bench.data.pixels import is_intact, open_pixels
from bench.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A VOC folder of eight pictures of 60 x 50; the first is grey."""
    root = tmp_path / "voc"
    for name in ("Annotations", "JPEGImages"):
        (root / name).mkdir(parents=True)
    for number in range(8):
        Image.new("RGB" if number else "L", (60, 50), (number * 20,) * 3 if number else 7).save(
            root / f"JPEGImages/{number}.png"
        )
        annotate(root, number)
    return root


def annotate(root: Path, number: int, *, width: int = 60) -> None:
    (root / f"Annotations/{number}.xml").write_text(
        f"<annotation><size><width>{width}</width><height>50</height></size><object><name>thing</name>"
        "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"
    )


def opening(root: Path, *, skip_invalid: bool = False) -> Dataset:
    return open_dataset(f"voc:{root}", cache=root.parent / "cache", workers=2, skip_invalid=skip_invalid)


def truncate(file: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:2000])


def test_reopening_reports_the_same_without_decoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truncate(folder / "JPEGImages/3.png")
    first = opening(folder, skip_invalid=True)
    kinds = [problem.kind for problem in first.report.reading.problems]
    assert "truncated-image" in kinds
    assert "grey-image" in kinds
    monkeypatch.setattr(opened, "preflight", lambda *_, **__: pytest.fail("decoded again"))
    second = opening(folder, skip_invalid=True)
    assert second.report.reading.problems == first.report.reading.problems
    assert second.report.images_checked == first.report.images_checked == 8
    assert second.index.files == first.index.files
    assert len(second.index) == 7
    assert second.pixels == first.pixels
    with pytest.raises(UserError, match=r"3.png.*truncated-image"):
        opening(folder)


def test_modified_images_are_decoded_again(folder: Path) -> None:
    truncate(folder / "JPEGImages/3.png")
    with pytest.raises(UserError, match="truncated-image"):
        opening(folder)
    Image.new("RGB", (60, 50), (1, 2, 3)).save(folder / "JPEGImages/3.png")
    data = opening(folder)
    row = next(row for row, name in enumerate(data.index.files) if name.endswith("3.png"))
    assert open_pixels(data.pixels, data.index)[row][0, 0].tolist() == [1, 2, 3]


def test_annotation_changes_are_noticed_despite_the_cache(folder: Path) -> None:
    # Whether a picture has the size that is stated was decided on decoding; the statement may have changed since
    annotate(folder, 5, width=61)
    with pytest.raises(UserError, match=r"5.png.*61x50.*size-disagrees"):
        opening(folder)
    annotate(folder, 5)
    assert len(opening(folder).index) == 8
    annotate(folder, 6, width=59)
    with pytest.raises(UserError, match=r"6.png.*59x50.*size-disagrees"):
        opening(folder)


def test_deleted_pixels_are_rebuilt(folder: Path) -> None:
    data = opening(folder)
    assert data.pixels is not None
    data.pixels.unlink()
    again = opening(folder)
    assert again.pixels == data.pixels
    assert open_pixels(again.pixels, again.index)[7][0, 0].tolist() == [140] * 3


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flip,
    "zeros": lambda content: bytes(len(content)),
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "text": lambda _: b"not a cache",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ending", [".bin", ".npz", ".report.npz"])
def test_a_damaged_cache_counts_as_none(folder: Path, ending: str, damage: str) -> None:
    data = opening(folder)
    assert data.pixels is not None
    file = data.pixels.with_suffix(ending)
    intact = file.read_bytes()
    file.write_bytes(DAMAGES[damage](intact))
    # A cell that opens the damaged file gets the right pixels, too
    for again in (data, opening(folder)):
        pixels = open_pixels(again.pixels, again.index)
        assert [int(pixels[row][0, 0, 0]) for row in range(8)] == [7, *range(20, 160, 20)]
    assert again.report.reading.problems == data.report.reading.problems
    assert again.pixels == data.pixels
    assert is_intact(data.pixels, again.index)


def test_an_image_replaced_by_one_of_the_same_size_and_time_is_decoded_again(folder: Path) -> None:
    opening(folder)
    path = folder / "JPEGImages/7.png"
    before = path.stat()
    Image.new("RGB", (60, 50), (141, 141, 141)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    again = opening(folder)
    assert open_pixels(again.pixels, again.index)[7][0, 0].tolist() == [141] * 3


def test_images_beyond_the_budget_are_decoded_on_demand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "fits_budget", lambda *_: False)
    data = opening(folder)
    assert data.pixels is None
    assert open_pixels(data.pixels, data.index)[7][0, 0].tolist() == [140] * 3
    monkeypatch.setattr(opened, "preflight", lambda *_, **__: pytest.fail("checked again"))
    assert opening(folder).pixels is None


def test_train_and_val_follow_the_split(folder: Path, tmp_path: Path) -> None:
    data = opening(folder)
    assert {*data.train.files, *data.val.files} == set(data.index.files)
    assert not {*data.train.files} & {*data.val.files}
    split.save(data.split, data.index, tmp_path / "split.json")
    kept = open_dataset(
        f"voc:{folder}", cache=tmp_path / "cache", workers=1, val_fraction=0.5, frozen=tmp_path / "split.json"
    )
    assert kept.val.files == data.val.files
