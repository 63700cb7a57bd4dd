"""YOLO data sets: label files, label lines, and data.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from PIL import Image

from bench.data.readers.yolo import label_file, read_yolo
from bench.errors import UserError
from tests.data.builders import Images, kinds, write_yolo


def one_image(root: Path, labels: str) -> Path:
    data = write_yolo(root, {"train": {"a.jpg": ((200, 100), [])}}, ["cat", "dog"])
    (root / "labels" / "train" / "a.txt").write_text(labels)
    return data


def test_normalised_centres_become_corners_in_pixels(tmp_path: Path) -> None:
    reading = read_yolo(one_image(tmp_path, "1 0.5 0.5 0.2 0.4\n\n0 0.05 0.05 0.1 0.1"))
    assert reading.index.boxes.tolist() == [[80, 30, 120, 70], [0, 0, 20, 10]]
    assert reading.index.labels.tolist() == [1, 0]
    assert reading.index.sizes.tolist() == [[200, 100]]
    assert reading.problems == []


def test_polygons_become_their_bounding_boxes_and_are_counted(tmp_path: Path) -> None:
    reading = read_yolo(one_image(tmp_path, "0 0.1 0.2 0.5 0.1 0.3 0.9\n0 0.1 0.2 0.5 nan 0.3 0.9"))
    assert reading.index.boxes.tolist() == [[20, 10, 100, 90]]
    assert kinds(reading.problems) == {"polygon-to-box": 2, "non-finite-box": 1}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 0.5 0.5 0.2", "bad-label-line"),
        ("0 0.5 0.5 0.2 0.2 0.9", "bad-label-line"),
        ("cat 0.5 0.5 0.2 0.2", "bad-label-line"),
        ("2 0.5 0.5 0.2 0.2", "unknown-class"),
        ("-1 0.5 0.5 0.2 0.2", "unknown-class"),
        ("0.5 0.5 0.5 0.2 0.2", "unknown-class"),
        ("nan 0.5 0.5 0.2 0.2", "unknown-class"),
        ("0 100 50 40 40", "not-normalised"),
        ("0 0.5 0.5 -0.2 0.2", "inverted-box"),
        ("0 0.5 inf 0.2 0.2", "non-finite-box"),
        ("0 0.5 0.5 0 0.2", "zero-area-box"),
        ("0 1.5 0.5 0.2 0.2", "box-outside-image"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_kept(tmp_path: Path, line: str, kind: str) -> None:
    reading = read_yolo(one_image(tmp_path, f"1 0.5 0.5 0.2 0.4\n{line}\n"))
    assert [(each.kind, each.where) for each in reading.problems] == [(kind, "labels/train/a.txt, line 2")]
    assert reading.index.boxes.tolist() == [[80, 30, 120, 70]]


POSE = "1 0.5 0.5 0.2 0.4"


@pytest.mark.parametrize(
    ("shape", "keypoints"),
    [("[2, 2]", "0.9 0.9 0.1 0.1"), ("[2, 3]", "0.9 0.9 2 0 0 0"), ("[1, 2]", "0.9 0.9"), ("[2, 3]", "")],
)
def test_rows_of_a_pose_set_have_the_box_before_the_keypoints(tmp_path: Path, shape: str, keypoints: str) -> None:
    """As in docs.ultralytics.com/datasets/pose: class, box, keypoints of two or three numbers."""
    data = one_image(tmp_path, f"{POSE} {keypoints}")
    data.write_text(f"{data.read_text()}kpt_shape: {shape}\n")
    reading = read_yolo(data)
    assert reading.index.boxes.tolist() == [[80, 30, 120, 70]]
    assert reading.problems == []


@pytest.mark.parametrize("keypoints", ["0.9 0.9", "0.9 0.9 0.1 0.1 0.2 0.2", "0.9 0.9 0.1", "a b c d"])
def test_rows_of_a_pose_set_with_other_keypoints_are_bad_lines(tmp_path: Path, keypoints: str) -> None:
    data = one_image(tmp_path, f"{POSE} {keypoints}\n{POSE} 0.9 0.9 0.1 0.1")
    data.write_text(f"{data.read_text()}kpt_shape: [2, 2]\n")
    reading = read_yolo(data)
    assert len(reading.index.boxes) == 1
    [found] = reading.problems
    assert (found.kind, found.where) == ("bad-label-line", "labels/train/a.txt, line 1")
    assert "kpt_shape asks for 9 numbers" in found.what


@pytest.mark.parametrize(
    "names", ["no, yes", "on, off", "1.10, 1.1", "007, 7", "0x10, 16", "12:30, 750", "2020-01-01, true"]
)
@pytest.mark.parametrize("form", ["[{}, {}]", "{{0: {}, 1: {}}}", "\n- {}\n- {}"])
def test_class_names_are_those_that_the_user_wrote(tmp_path: Path, names: str, form: str) -> None:
    data = one_image(tmp_path, "")
    written = names.split(", ")
    data.write_text(f"train: images/train\nnc: 2\nnames: {form.format(*written)}\nval: null\ntest:\n")
    assert read_yolo(data).index.classes == tuple(written)


def test_only_the_last_images_folder_is_replaced() -> None:
    assert label_file(Path("/images/my/images/train/a.b.jpg")) == Path("/images/my/labels/train/a.b.txt")
    assert label_file(Path("photos/a.jpg")) == Path("photos/a.txt")


def test_images_without_labels_are_kept_and_orphan_labels_named(tmp_path: Path) -> None:
    data = one_image(tmp_path, "")
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    (tmp_path / "labels" / "train" / "gone.txt").write_text("0 0.5 0.5 0.1 0.1")
    (tmp_path / "labels" / "train" / "classes.txt").write_text("cat\ndog")
    reading = read_yolo(data)
    assert len(reading.index) == 1
    assert [(each.kind, each.where) for each in reading.problems] == [("missing-image", "labels/train/gone.txt")]


def test_sizes_follow_exif_orientation(tmp_path: Path) -> None:
    data = one_image(tmp_path, "0 0.5 0.5 1 1")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100)).save(tmp_path / "images" / "train" / "a.jpg", exif=exif)
    index = read_yolo(data).index
    assert index.sizes.tolist() == [[100, 200]]
    assert index.boxes.tolist() == [[0, 0, 100, 200]]


def test_an_unreadable_image_is_fatal_and_removed_with_its_boxes(tmp_path: Path) -> None:
    images: Images = {"a.jpg": ((20, 20), [("cat", 1, 1, 9, 9)]), "b.jpg": ((20, 20), [("cat", 2, 2, 8, 8)])}
    data = write_yolo(tmp_path, {"train": images}, ["cat"])
    (tmp_path / "images" / "train" / "a.jpg").write_text("no image")
    reading = read_yolo(data)
    assert reading.index.boxes.tolist() == [[2, 2, 8, 8]]
    assert [(each.kind, each.where) for each in reading.problems] == [("unreadable-image", "images/train/a.jpg")]


def test_lists_may_be_folders_lists_of_folders_or_text_files(tmp_path: Path) -> None:
    image: Images = {"a.jpg": ((20, 20), [("cat", 1, 1, 9, 9)])}
    data = write_yolo(tmp_path / "set", {"one": image, "two": image, "three": image, "four": image}, ["cat"])
    (tmp_path / "set" / "val.txt").write_text("./images/three/a.jpg\nimages/three/gone.jpg\n")
    description = {
        "path": "set",
        "train": ["images/one", "images/two"],
        "val": "val.txt",
        "test": "../images/four",  # as Roboflow writes it
        "names": {1: "dog", 0: "cat"},
    }
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump(description))
    reading = read_yolo(data)
    assert reading.index.classes == ("cat", "dog")
    files = {name: [reading.index.files[row] for row in rows] for name, rows in reading.lists.items()}
    assert files == {
        "train": ["images/one/a.jpg", "images/two/a.jpg"],
        "val": ["images/three/a.jpg"],
        "test": ["images/four/a.jpg"],
    }
    assert [(each.kind, each.where) for each in reading.problems] == [("missing-image", "images/three/gone.jpg")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "cannot be read as YAML"),
        ("names: [a]", "names no images"),
        ("train: images/train", "has no 'names'"),
        ("train: images/train\nnames: [a, b]\nnc: 3", "nc is 3, but there are 2 names"),
        ("train: images/train\nnames: [a, a]", "'a' occurs more than once"),
        ("train: images/train\nnames: {1: a, 2: b}", "must be 0 to 1"),
        ("train: images/train\nnames: [a, ~]", "Quote a class"),
        ("train: images/train\nnames: [a, !!bool no]", "must contain only class names"),
        ("train: images/train\nnames: [a]\nkpt_shape: 17", "'kpt_shape' must be"),
        ("train: images/train\nnames: [a]\nkpt_shape: [17, 4]", "'kpt_shape' must be"),
        ("train: images/nowhere\nnames: [a]", "does not exist"),
        ("train: labels\nnames: [a]", "which has no images"),
    ],
)
def test_an_invalid_data_yaml_is_a_user_error(tmp_path: Path, text: str, message: str) -> None:
    data = one_image(tmp_path, "")
    data.write_text(text)
    with pytest.raises(UserError, match=message):
        read_yolo(data)


def test_a_missing_data_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        read_yolo(tmp_path / "data.yaml")
