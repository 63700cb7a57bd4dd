"""Pascal VOC folders: the index of valid ones and the problems of invalid ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.index import UNKNOWN
from bench.data.readers.voc import read_voc
from bench.errors import UserError
from tests.data.builders import Box, annotation, kinds, write_voc


def test_boxes_flags_and_classes_are_read_as_written(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": ((60, 40), [("dog", 1, 2, 30.5, 40)]), "b": ((50, 50), [])}, {})
    extra = "<difficult>1</difficult><truncated>0</truncated>"
    text = annotation((60, 40), [("dog", 1, 2, 30.5, 40), ("cat", 0, 0, 5, 5)], extra)
    (root / "Annotations" / "a.xml").write_text(text)
    index = read_voc(root).index
    assert index.classes == ("cat", "dog")
    assert index.files == ("JPEGImages/a.jpg", "JPEGImages/b.jpg")
    assert index.offsets.tolist() == [0, 2, 2]
    assert index.boxes.tolist() == [[1, 2, 30.5, 40], [0, 0, 5, 5]]
    assert index.labels.tolist() == [1, 0]
    assert index.areas.tolist() == [29.5 * 38, 25]
    assert index.difficult.all()
    assert index.truncated.tolist() == [0, 0]
    assert (index.occluded == UNKNOWN).all()
    assert index.sizes.tolist() == [[60, 40], [50, 50]]


def test_parts_of_an_object_are_not_objects(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": ((60, 40), [])}, {})
    corners = "<xmin>3</xmin><ymin>3</ymin><xmax>9</xmax><ymax>9</ymax>"
    part = f"<part><name>head</name><bndbox>{corners}</bndbox></part>"
    text = annotation((60, 40), [("person", 2, 2, 20, 30)], part)
    # The part first: a search below the object would take its box.
    (root / "Annotations" / "a.xml").write_text(text.replace("<name>person", f"{part}<name>person"))
    index = read_voc(root).index
    assert index.classes == ("person",)
    assert index.boxes.tolist() == [[2, 2, 20, 30]]


def test_one_bad_box_never_discards_its_image(tmp_path: Path) -> None:
    boxes: list[Box] = [
        ("cat", 10, 10, 20, 20),
        ("cat", 30, 10, 20, 20),
        ("cat", 10, 10, 10, 20),
        ("cat", 10, 10, float("nan"), 20),
        ("cat", 50, 30, 61, 45),
        ("cat", 70, 10, 80, 20),
        ("", 1, 1, 5, 5),
    ]
    reading = read_voc(write_voc(tmp_path, {"a": ((60, 40), boxes)}, {}))
    assert reading.index.boxes.tolist() == [[10, 10, 20, 20], [50, 30, 60, 40]]
    found = {each.where.partition(", ")[2]: (each.severity, each.kind) for each in reading.problems}
    assert found == {
        "object 2": ("fatal", "inverted-box"),
        "object 3": ("drop", "zero-area-box"),
        "object 4": ("fatal", "non-finite-box"),
        "object 5": ("repair", "box-out-of-bounds"),
        "object 6": ("drop", "box-outside-image"),
        "object 7": ("fatal", "unknown-class"),
    }


def test_own_lists_are_rows_and_unlisted_annotations_are_counted(tmp_path: Path) -> None:
    images = {stem: ((20, 20), [("cat", 1, 1, 9, 9)]) for stem in "dcbae"}
    lists = {"train": ["c", "a.jpg", "a"], "val": ["d 1", "nowhere"], "test": ["b"]}
    reading = read_voc(write_voc(tmp_path, images, lists))
    names = {name: [reading.index.files[row][11] for row in rows] for name, rows in reading.lists.items()}
    assert names == {"train": ["a", "c"], "val": ["d"], "test": ["b"]}
    assert kinds(reading.problems) == {
        "annotation-in-no-list": 1,
        "duplicate-list-entry": 1,
        "listed-without-annotation": 1,
    }
    assert any("val.txt, line 2" in each.where for each in reading.problems)


def test_an_image_in_train_and_val_is_fatal_and_stays_in_val(tmp_path: Path) -> None:
    images = {stem: ((20, 20), [("cat", 1, 1, 9, 9)]) for stem in "ab"}
    reading = read_voc(write_voc(tmp_path, images, {"train": ["a", "b"], "val": ["b"]}))
    assert kinds(reading.problems) == {"image-in-two-lists": 1}
    assert (reading.lists["train"].tolist(), reading.lists["val"].tolist()) == ([0], [1])


def test_named_lists_replace_train_and_val(tmp_path: Path) -> None:
    images = {stem: ((20, 20), [("cat", 1, 1, 9, 9)]) for stem in "ab"}
    root = write_voc(tmp_path, images, {"trainval": ["a"], "test": ["b"]})
    own = read_voc(root)
    assert set(own.lists) == {"trainval", "test"}
    reading = read_voc(root, lists={"train": "trainval", "val": "test"})
    assert {name: rows.tolist() for name, rows in reading.lists.items()} == {"train": [0], "val": [1]}
    with pytest.raises(UserError, match=r"minival\.txt.*test\.txt, trainval\.txt"):
        read_voc(root, lists={"val": "minival"})


def test_given_classes_set_the_order_and_exclude_others(tmp_path: Path) -> None:
    boxes: list[Box] = [("cat", 1, 1, 9, 9), ("dog", 1, 1, 9, 9), ("emu", 1, 1, 9, 9)]
    reading = read_voc(write_voc(tmp_path, {"a": ((20, 20), boxes)}, {}), classes=("emu", "cat"))
    assert reading.index.classes == ("emu", "cat")
    assert reading.index.labels.tolist() == [1, 0]
    [refused] = reading.problems
    assert refused.where == "Annotations/a.xml, object 2"
    assert "'dog'" in refused.what


def test_latin_1_is_read_whether_declared_or_not(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": ((20, 20), []), "b": ((20, 20), []), "c": ((20, 20), [])}, {})
    text = annotation((20, 20), [("café", 1, 1, 9, 9)])
    (root / "Annotations" / "a.xml").write_bytes(text.encode("latin-1"))
    (root / "Annotations" / "b.xml").write_bytes(b'<?xml version="1.0" encoding="utf-8"?>' + text.encode("latin-1"))
    (root / "Annotations" / "c.xml").write_bytes(
        b'<?xml version="1.0" encoding="ISO-8859-1"?>' + text.encode("latin-1")
    )
    reading = read_voc(root)
    assert reading.index.classes == ("café",)
    assert len(reading.index.boxes) == 3
    assert [each.where for each in reading.problems] == ["Annotations/a.xml", "Annotations/b.xml"]


def test_entities_and_broken_files_are_fatal_but_do_not_affect_others(tmp_path: Path) -> None:
    images = {stem: ((20, 20), [("cat", 1, 1, 9, 9)]) for stem in "abcd"}
    root = write_voc(tmp_path, images, {})
    good = annotation((20, 20), [("cat", 1, 1, 9, 9)])
    bomb = '<!DOCTYPE annotation [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    (root / "Annotations" / "a.xml").write_text(bomb + good.replace("elsewhere", "&b;"))
    (root / "Annotations" / "b.xml").write_text(good[:-20])
    (root / "Annotations" / "c.xml").write_text("<svg/>")
    reading = read_voc(root)
    assert reading.index.files == ("JPEGImages/d.jpg",)
    assert kinds(reading.problems) == {"unreadable-annotation": 3}


def test_image_files_are_found_by_stem_then_by_filename(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {stem: ((20, 20), []) for stem in "abc"}, {})
    images = root / "JPEGImages"
    (images / "a.jpg").rename(images / "a.JPEG")
    (images / "b.jpg").rename(images / "photo.jpg")
    xml = (root / "Annotations" / "b.xml").read_text()
    (root / "Annotations" / "b.xml").write_text(xml.replace("elsewhere", "C:\\mine\\photo"))
    (images / "c.jpg").unlink()
    Image.new("RGB", (20, 20)).save(images / "stray.png")
    reading = read_voc(root)
    assert reading.index.files == ("JPEGImages/a.JPEG", "JPEGImages/photo.jpg")
    assert kinds(reading.problems) == {"missing-image": 1, "image-without-annotation": 2}
    missing = next(each for each in reading.problems if each.kind == "missing-image")
    assert missing.where == "Annotations/c.xml"


def test_a_missing_size_is_read_from_the_image(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"a": ((33, 21), [("cat", 1, 1, 99, 9)])}, {})
    (root / "Annotations" / "a.xml").write_text(annotation((0, 0), [("cat", 1, 1, 99, 9)]))
    reading = read_voc(root)
    assert reading.index.sizes.tolist() == [[33, 21]]
    assert reading.index.boxes.tolist() == [[1, 1, 33, 9]]
    assert kinds(reading.problems) == {"size-from-header": 1, "box-out-of-bounds": 1}


def test_a_folder_without_annotations_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no \.xml files"):
        read_voc(tmp_path)


def test_real_voc_data_are_read_completely(shared_data: Path) -> None:
    reading = read_voc(shared_data / "bccd")
    assert reading.index.classes == ("Platelets", "RBC", "WBC")
    assert {name: len(rows) for name, rows in reading.lists.items()} == {"train": 205, "val": 87, "test": 72}
    assert not [each for each in reading.problems if each.severity == "fatal" and "box" not in each.kind]
    written = sum(path.read_text().count("<object>") for path in (shared_data / "bccd" / "Annotations").iterdir())
    left_out = sum(each.severity != "repair" and each.kind != "annotation-in-no-list" for each in reading.problems)
    assert len(reading.index.boxes) == written - left_out
    assert np.all(reading.index.boxes[:, 2:] > reading.index.boxes[:, :2])
