"""The preflight finds all problems at once, removes unusable images, and reports in the terminal and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.data.preflight import enforce, preflight, summary, write_report
from bench.data.readers.reading import Reading
from bench.data.readers.voc import read_voc
from bench.errors import UserError
from tests.data.builders import Box, kinds, write_voc

CAT: list[Box] = [("cat", 1, 1, 9, 9)]


def reading_of_six(root: Path) -> Reading:
    """a, b, c, d in train and e, f in val: b truncated, c grey, d of another size, e of EXIF, f good."""
    images = {stem: ((40, 30), CAT) for stem in "abcdef"}
    write_voc(root, images, {"train": ["a", "b", "c", "d"], "val": ["e", "f"]})
    pictures = root / "JPEGImages"
    data = (pictures / "b.jpg").read_bytes()
    (pictures / "b.jpg").write_bytes(data[:-40])
    Image.new("L", (40, 30)).save(pictures / "c.jpg")
    Image.new("RGB", (41, 30)).save(pictures / "d.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40)).save(pictures / "e.jpg", exif=exif)
    return read_voc(root)


def stems(reading: Reading, rows: NDArray[np.int64]) -> list[str]:
    return [Path(reading.index.files[row]).stem for row in rows]


@pytest.mark.parametrize("workers", [1, 3])
def test_bad_images_are_removed_from_the_index_and_lists(tmp_path: Path, workers: int) -> None:
    reading = reading_of_six(tmp_path)
    seen: dict[int, tuple[int, ...]] = {}
    steps: list[tuple[int, int]] = []
    report = preflight(
        reading,
        workers=workers,
        progress=lambda done, total: steps.append((done, total)),
        on_image=lambda row, pixels: seen.update({row: pixels.shape}),
    )
    cleaned = report.reading
    assert {name: stems(cleaned, rows) for name, rows in cleaned.lists.items()} == {
        "train": ["a", "c"],
        "val": ["e", "f"],
    }
    assert len(cleaned.index.boxes) == 4
    assert [(each.kind, Path(each.where).stem) for each in cleaned.problems] == [
        ("truncated-image", "b"),
        ("grey-image", "c"),
        ("size-disagrees", "d"),
        ("exif-orientation", "e"),
    ]
    assert steps[-1] == (6, 6)
    assert seen == dict.fromkeys((0, 2, 4, 5), (30, 40, 3))
    assert len(reading.index) == 6


def test_fatal_problems_are_listed_together_unless_skipped(tmp_path: Path) -> None:
    cleaned = preflight(reading_of_six(tmp_path), workers=1).reading
    with pytest.raises(UserError) as caught:
        enforce(cleaned, skip_invalid=False)
    text = str(caught.value)
    assert "2 fatal problems" in text
    assert "JPEGImages/b.jpg: it cannot be decoded" in text
    assert "JPEGImages/d.jpg: it has 41x30 pixels" in text
    assert "grey" not in text
    assert "--skip-invalid" in text
    enforce(cleaned, skip_invalid=True)


def test_long_lists_of_problems_are_truncated_and_counted(tmp_path: Path) -> None:
    inverted: list[Box] = [("cat", 9, 1, 1, 9)] * 25
    missing = {f"x{number}": ((20, 20), CAT) for number in range(3)}
    root = write_voc(tmp_path, {"a": ((20, 20), [*CAT, *inverted]), **missing}, {})
    for stem in missing:
        (root / "JPEGImages" / f"{stem}.jpg").unlink()
    with pytest.raises(UserError) as caught:
        enforce(read_voc(root), skip_invalid=False)
    text = str(caught.value)
    assert text.count(", object ") + text.count("there is no file") == 20
    assert "and 8 more" in text
    assert "inverted-box (25)" in text
    assert "missing-image (3)" in text


def test_whole_set_problems_cannot_be_skipped(tmp_path: Path) -> None:
    bare = preflight(read_voc(write_voc(tmp_path / "bare", {"a": ((20, 20), [])}, {}), classes=["cat"]), workers=1)
    assert kinds(bare.reading.problems) == {"no-boxes": 1}
    gone = write_voc(tmp_path / "gone", {"a": ((20, 20), CAT)}, {})
    (gone / "JPEGImages" / "a.jpg").write_bytes(b"")
    empty = preflight(read_voc(gone), workers=1)
    assert kinds(empty.reading.problems) == {"unreadable-image": 1, "no-images": 1}
    leak = write_voc(tmp_path / "leak", {"a": ((20, 20), CAT)}, {"train": ["a"], "val": ["a"]})
    untrained = preflight(read_voc(leak), workers=1)
    assert kinds(untrained.reading.problems) == {"image-in-two-lists": 1, "no-training-images": 1}
    for report in (bare, empty, untrained):
        with pytest.raises(UserError, match="1 fatal problem:"):
            enforce(report.reading, skip_invalid=True)


def test_classes_without_training_boxes_are_named(tmp_path: Path) -> None:
    images = {"a": ((20, 20), CAT), "b": ((20, 20), [*CAT, ("dog", 1, 1, 9, 9)])}
    reading = read_voc(write_voc(tmp_path, images, {"train": ["a"], "val": ["b"]}))
    [found] = preflight(reading, workers=1).reading.problems
    assert (found.severity, found.kind, found.where) == ("repair", "class-without-training-boxes", "class dog")


def test_the_report_is_json_and_the_summary_has_one_line_per_kind(tmp_path: Path) -> None:
    report = preflight(reading_of_six(tmp_path), workers=2)
    path = tmp_path / "out" / "preflight.json"
    write_report(report, path)
    content = json.loads(path.read_text())
    assert content["counts"] == {
        "fatal": {"truncated-image": 1, "size-disagrees": 1},
        "drop": {},
        "repair": {"grey-image": 1, "exif-orientation": 1},
        "warning": {},
    }
    assert [each["where"] for each in content["problems"]] == [each.where for each in report.reading.problems]
    assert (content["images_checked"], content["images_usable"], content["boxes_usable"]) == (6, 4, 4)
    assert [entry.name for entry in path.parent.iterdir()] == ["preflight.json"]
    lines = summary(report)
    assert lines[0] == "4 of 6 decoded images usable, 4 boxes, 1 classes"
    assert sum(line.startswith(("fatal ", "repair ")) for line in lines) == 4
    assert any(line.startswith("fatal truncated-image: 1, e.g. JPEGImages/b.jpg") for line in lines)


def test_real_photographs_have_no_fatal_problems(shared_data: Path) -> None:
    reading = read_voc(shared_data / "bccd")
    few = reading.keep(np.arange(len(reading.index)) < 24)
    report = preflight(few, workers=2, max_side=300)
    assert len(report.reading.index) == 24
    assert report.reading.problems == reading.problems
