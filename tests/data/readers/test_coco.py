"""COCO instances files: ids, crowds, missing fields, folders, and the size of train2017."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.data.readers.coco import read_coco
from bench.errors import UserError
from tests.data.builders import Box, Document, instances, kinds, write_coco


def two_images() -> Document:
    boxes: list[Box] = [("cat", 1, 2, 11, 22), ("dog", 5, 5, 15.5, 10)]
    return instances({"b.jpg": ((60, 40), boxes), "a.jpg": ((50, 50), [("cat", 0, 0, 50, 50)])}, ["cat", "dog"])


def test_ids_may_have_gaps_and_order_the_classes(tmp_path: Path) -> None:
    document = two_images()
    document["categories"] = [{"id": 90, "name": "cat"}, {"id": 7, "name": "dog"}]
    for each in document["annotations"]:
        each["category_id"] = {1: 90, 2: 7}[each["category_id"]]
        each["image_id"] += 138
    for image in document["images"]:
        image["id"] += 138
    document["annotations"].reverse()
    write_coco(tmp_path / "annotations.json", document, tmp_path / "images")
    reading = read_coco(tmp_path)
    index = reading.index
    assert (index.classes, index.category_ids.tolist()) == (("dog", "cat"), [7, 90])
    assert (index.files, index.image_ids.tolist()) == (("images/a.jpg", "images/b.jpg"), [140, 139])
    assert index.boxes.tolist() == [[0, 0, 50, 50], [5, 5, 15.5, 10], [1, 2, 11, 22]]
    assert index.labels.tolist() == [1, 0, 1]
    assert index.areas.tolist() == [2500, 52.5, 200]
    assert (reading.lists, reading.problems) == ({}, [])


def test_crowds_are_kept_and_missing_fields_filled(tmp_path: Path) -> None:
    document = two_images()
    document["annotations"][0]["iscrowd"] = 1
    document["annotations"][0]["area"] = 77.5
    for key in ("iscrowd", "area"):
        del document["annotations"][1][key]
    document["annotations"][2] |= {"area": 0, "difficult": 1, "truncated": 1}
    write_coco(tmp_path / "annotations.json", document, tmp_path / "images")
    reading = read_coco(tmp_path)
    assert reading.index.crowd.tolist() == [False, True, False]
    assert reading.index.areas.tolist() == [2500, 77.5, 52.5]
    assert reading.index.difficult.tolist() == [True, False, False]
    assert reading.index.truncated.tolist() == [1, -1, -1]
    [filled] = reading.problems
    assert (filled.kind, filled.what) == ("area-from-box", "2 of 3 annotations have no positive area")


@pytest.mark.parametrize("crowd", [1, 1.0, True, "1"])
def test_a_crowd_is_one_however_its_number_is_written(tmp_path: Path, crowd: object) -> None:
    document = two_images()
    document["annotations"][0]["iscrowd"] = crowd
    write_coco(tmp_path / "annotations.json", document, tmp_path / "images")
    reading = read_coco(tmp_path)
    assert reading.index.crowd.tolist() == [False, True, False]
    assert reading.problems == []


def test_an_unclear_crowd_is_an_object_and_counted(tmp_path: Path) -> None:
    document = two_images()
    for each, crowd in zip(document["annotations"], ("yes", 2, None), strict=True):
        each["iscrowd"] = crowd
    write_coco(tmp_path / "annotations.json", document, tmp_path / "images")
    reading = read_coco(tmp_path)
    assert not reading.index.crowd.any()
    [unclear] = reading.problems
    assert (unclear.kind, unclear.what.split()[:3]) == ("unclear-crowd", ["2", "of", "3"])


@pytest.mark.parametrize("spelling", ["./a.jpg", "b/../a.jpg", ".//a.jpg", ".\\a.jpg", "../images/a.jpg"])
def test_two_spellings_of_a_file_are_one_image(tmp_path: Path, spelling: str) -> None:
    document = two_images()
    write_coco(tmp_path / "annotations.json", document, tmp_path / "images")
    document["images"].append({"id": 9, "file_name": spelling, "width": 50, "height": 50})
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    reading = read_coco(tmp_path)
    assert kinds(reading.problems) == {"duplicate-image": 1}
    assert reading.index.files == ("images/b.jpg",)


def test_annotations_may_all_lack_ids_but_not_some(tmp_path: Path) -> None:
    document = two_images()
    for each in document["annotations"]:
        del each["id"]
    write_coco(tmp_path / "annotations.json", document, tmp_path / "images")
    assert len(read_coco(tmp_path).index.boxes) == 3
    for each in document["annotations"][1:]:
        each["id"] = 7  # the first has none, which must not hide that the others have the same
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"annotations, number 1: 'id' is missing"):
        read_coco(tmp_path)


def test_segments_of_all_kinds_are_skipped(tmp_path: Path) -> None:
    document = two_images()
    tricky = 'a "segmentation": [1, 2] cat'
    document["categories"][0]["name"] = tricky
    document["annotations"][0]["segmentation"] = {"counts": [1, 2, 3], "size": [60, 40]}
    document["annotations"][1]["segmentation"] = {"counts": "ab[c", "size": [60, 40]}
    document["annotations"][2]["segmentation"] = [[1, 2.5e0, -3], []]
    # Keys in another order, so that a segment also comes last in its object.
    document["annotations"] = [dict(sorted(each.items())) for each in document["annotations"]]
    write_coco(tmp_path / "annotations.json", document, tmp_path / "images")
    plain = two_images()
    write_coco(tmp_path / "plain" / "annotations.json", plain, tmp_path / "plain" / "images")
    reading, expected = read_coco(tmp_path), read_coco(tmp_path / "plain")
    assert reading.index.classes == (tricky, "dog")
    assert reading.index.boxes.tolist() == expected.index.boxes.tolist()
    assert reading.index.areas.tolist() == expected.index.areas.tolist()


def test_duplicate_and_unknown_ids_are_fatal_and_located(tmp_path: Path) -> None:
    document = two_images()
    extra = {"bbox": [1, 1, 5, 5], "category_id": 1, "image_id": 1, "iscrowd": 0, "area": 25}
    document["annotations"] += [
        extra | {"id": 1, "image_id": 2},
        extra | {"id": 10, "image_id": 99},
        extra | {"id": 11, "category_id": 98},
    ]
    write_coco(tmp_path / "annotations.json", document, tmp_path / "images")
    reading = read_coco(tmp_path)
    assert len(reading.index.boxes) == 3
    found = {each.kind: each for each in reading.problems}
    assert {each.severity for each in reading.problems} == {"fatal"}
    assert found["duplicate-annotation-id"].where == "annotations.json, annotation id 1"
    assert "number 1 (image id 1)" in found["duplicate-annotation-id"].what
    assert "4 (image id 2)" in found["duplicate-annotation-id"].what
    assert "99" in found["annotation-of-unknown-image"].what
    assert found["annotation-of-unknown-image"].where.endswith("annotation id 10")
    assert "98" in found["unknown-class"].what


def test_images_with_a_shared_id_or_file_are_all_removed(tmp_path: Path) -> None:
    document = two_images()
    document["images"] += [
        {"id": 1, "file_name": "c.jpg", "width": 9, "height": 9},
        {"id": 5, "file_name": "d.jpg", "width": 9, "height": 9},
        {"id": 6, "file_name": "d.jpg", "width": 9, "height": 9},
    ]
    write_coco(tmp_path / "annotations.json", document, tmp_path / "images")
    reading = read_coco(tmp_path)
    assert reading.index.files == ("images/a.jpg",)
    assert kinds(reading.problems) == {"duplicate-image-id": 1, "duplicate-image": 1}
    shared = next(each for each in reading.problems if each.kind == "duplicate-image-id")
    assert "(b.jpg)" in shared.what
    assert "(c.jpg)" in shared.what


@pytest.mark.parametrize("bbox", [None, [1, 2, 3], "box", [1, 2, 3, None], [1, 2, float("nan"), 4], [10**400, 0, 1, 1]])
def test_a_box_without_four_numbers_does_not_affect_others(tmp_path: Path, bbox: object) -> None:
    document = two_images()
    document["annotations"][0]["bbox"] = bbox
    write_coco(tmp_path / "annotations.json", document, tmp_path / "images")
    reading = read_coco(tmp_path)
    assert [(each.kind, each.where) for each in reading.problems] == [
        ("non-finite-box", "annotations.json, annotation id 1")
    ]
    assert reading.index.boxes.tolist() == [[0, 0, 50, 50], [5, 5, 15.5, 10]]


def test_negative_width_is_an_inverted_box(tmp_path: Path) -> None:
    document = two_images()
    document["annotations"][0]["bbox"] = [20, 20, -10, 10]
    write_coco(tmp_path / "annotations.json", document, tmp_path / "images")
    assert kinds(read_coco(tmp_path).problems) == {"inverted-box": 1}


@pytest.mark.parametrize(("train", "val"), [("images/train2017", "images/val2017"), ("train2017", "val2017"), ("", "")])
def test_train_and_val_files_become_lists(tmp_path: Path, train: str, val: str) -> None:
    own, other = two_images(), two_images()
    for number, image in enumerate(other["images"]):
        image["file_name"] = f"z{number}.jpg"
    write_coco(tmp_path / "annotations" / "instances_train2017.json", own, tmp_path / train)
    write_coco(tmp_path / "annotations" / "instances_val2017.json", other, tmp_path / val)
    reading = read_coco(tmp_path)
    files = {name: [reading.index.files[row] for row in rows] for name, rows in reading.lists.items()}
    before, after = (f"{folder}/" if folder else "" for folder in (train, val))
    assert files == {
        "train": [f"{before}a.jpg", f"{before}b.jpg"],
        "val": [f"{after}z0.jpg", f"{after}z1.jpg"],
    }
    assert kinds(reading.problems) == {"image-ids-renumbered": 1}
    ids = {name: reading.index.image_ids[rows].tolist() for name, rows in reading.lists.items()}
    assert ids["val"] == [image["id"] for image in other["images"]]  # files of results for it keep their meaning
    assert len(set(ids["train"] + ids["val"])) == 4
    assert len(reading.index.boxes) == 6


def test_different_categories_name_the_difference(tmp_path: Path) -> None:
    own, other = two_images(), two_images()
    other["categories"][1]["name"] = "emu"
    write_coco(tmp_path / "annotations" / "instances_train.json", own, tmp_path / "images")
    write_coco(tmp_path / "annotations" / "instances_val.json", other, tmp_path / "images")
    with pytest.raises(UserError, match=r"dog \(id 2\).*emu \(id 2\)"):
        read_coco(tmp_path)


BREAKAGES: dict[str, tuple[Callable[[Document], object], str]] = {
    "no images": (lambda document: document.pop("images"), "no list of objects 'images'"),
    "no image id": (lambda document: document["images"][1].pop("id"), "images, number 2: 'id' is missing"),
    "text as id": (
        lambda document: document["annotations"][2].update(image_id="7"),
        "number 3: 'image_id' is '7'",
    ),
    "huge id": (lambda document: document["annotations"][0].update(id=2**70), "number 1: 'id' is"),
    "name is true": (
        lambda document: document["categories"][1].update(name=True),
        "must be text",
    ),
    "same name": (
        lambda document: document["categories"][1].update(name="cat"),
        "'cat' occurs more than once",
    ),
}


@pytest.mark.parametrize("case", BREAKAGES)
def test_a_malformed_document_is_a_user_error(tmp_path: Path, case: str) -> None:
    breakage, message = BREAKAGES[case]
    document = two_images()
    breakage(document)
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=message):
        read_coco(tmp_path)


def test_missing_or_ambiguous_files_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs annotations\.json"):
        read_coco(tmp_path)
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_coco(tmp_path)
    (tmp_path / "annotations.json").unlink()
    for year in (2014, 2017):
        write_coco(tmp_path / "annotations" / f"instances_train{year}.json", two_images(), tmp_path)
    with pytest.raises(UserError, match="several train files"):
        read_coco(tmp_path)


def test_real_coco_data_are_read_completely(shared_data: Path) -> None:
    reading = read_coco(shared_data / "coco-mini")
    document = json.loads((shared_data / "coco-mini" / "annotations.json").read_text())
    assert len(reading.index) == len(document["images"])
    assert len(reading.index.boxes) == len(document["annotations"])
    assert not [each for each in reading.problems if each.severity == "fatal"]
