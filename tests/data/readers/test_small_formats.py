"""CSV, metadata.jsonl, FiftyOne and CVAT: what is wrong in them is named like in the other formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.data.readers.reading import Reading
from bench.data.sources import read_source
from bench.errors import UserError
from tests.data.builders import Box, Images
from tests.data.layout_samples import save, write

BOXES: list[Box] = []
IMAGES: Images = {name: ((60, 40), BOXES) for name in ("a.jpg", "b.jpg")}
GOOD = [1, 2, 11, 22]


def found(reading: Reading) -> list[tuple[str, str]]:
    return [(each.kind, each.where) for each in reading.problems]


def read(root: Path, name: str, text: str) -> Reading:
    save(root, IMAGES)
    write(root / name, text)
    return read_source(str(root), cache=root)


def test_bad_rows_of_a_table(tmp_path: Path) -> None:
    rows = [
        "image,xmin,ymin,xmax,ymax,class",
        "a.jpg,1,2,11,22,cat",
        "a.jpg,1,2,x,22,cat",
        "a.jpg,11,2,1,22,cat",
        "a.jpg,1,2,11",
        "a.jpg,1,2,11,22,",
        "b.jpg,,,,,",
        "c.jpg,1,2,11,22,dog",
    ]
    reading = read(tmp_path, "boxes.csv", "\n".join(rows))
    assert reading.index.files == ("a.jpg", "b.jpg")
    assert reading.index.boxes.tolist() == [GOOD]
    assert reading.index.classes == ("cat",)
    assert found(reading) == [
        ("missing-image", "c.jpg"),
        ("unknown-class", "boxes.csv, line 6"),
        ("non-finite-box", "boxes.csv, line 3"),
        ("inverted-box", "boxes.csv, line 4"),
        ("non-finite-box", "boxes.csv, line 5"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,xmin,ymin,width,height,class\n", r"has no xmax, ymax, but image, xmin, ymin"),
        ("", "has no image, .* but nothing"),
        ('a,"b', "has no image"),
    ],
)
def test_a_table_without_its_columns_is_refused(text: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "boxes.csv", text)
    with pytest.raises(UserError, match=message):
        read_source(f"csv:{tmp_path / 'boxes.csv'}", cache=tmp_path)


def test_tables_of_other_things_are_not_taken_for_boxes(tmp_path: Path) -> None:
    write(tmp_path / "classes.csv", "cat,0\ndog,1\n")
    write(tmp_path / "summary.csv", "class,images\ncat,1\n")
    reading = read(tmp_path, "boxes.csv", "a.jpg,1,2,11,22,cat\nb.jpg,,,,,\n")
    assert reading.index.files == ("a.jpg", "b.jpg")
    assert reading.index.boxes.tolist() == [GOOD]


def test_a_table_of_another_encoding_or_divider(tmp_path: Path) -> None:
    reading = read(tmp_path, "boxes.csv", "\ufeffImage;XMin;YMin;XMax;YMax;Class\r\na.jpg;1;2;11;22;cat\r\n")
    assert reading.index.boxes.tolist() == [GOOD]
    (tmp_path / "boxes.csv").write_bytes("image,xmin,ymin,xmax,ymax,class\na.jpg,1,2,11,22,é".encode("latin-1"))
    with pytest.raises(UserError, match="Write it in UTF-8"):
        read_source(str(tmp_path), cache=tmp_path)


def test_bad_lines_of_json(tmp_path: Path) -> None:
    def line(file: object, **objects: object) -> str:
        return json.dumps({"file_name": file, "objects": objects})

    lines = [
        line("a.jpg", bbox=[[1, 2, 10, 20], [1, 2, "x", 20], [1, 2, 3]], categories=["cat", "cat", True]),
        line("b.jpg", bbox=[[1, 2, 10, 20]], categories=[]),
        line(7),
        "{",
    ]
    reading = read(tmp_path, "metadata.jsonl", "\n".join(lines))
    assert reading.index.files == ("a.jpg",)
    assert reading.index.boxes.tolist() == [GOOD]
    assert found(reading) == [
        ("unreadable-annotation", "metadata.jsonl, entry 3"),
        ("unreadable-annotation", "metadata.jsonl, entry 4"),
        ("unreadable-annotation", "metadata.jsonl, entry 2"),
        ("unknown-class", "metadata.jsonl, entry 1, object 3"),
        ("non-finite-box", "metadata.jsonl, entry 1, object 2"),
    ]


def test_areas_and_numbers_of_classes_in_json_lines(tmp_path: Path) -> None:
    objects = {"bbox": [[1, 2, 10, 20]] * 2, "category": [1, 0], "area": [77, -1]}
    reading = read(tmp_path, "metadata.jsonl", json.dumps({"file_name": "a.jpg", "objects": objects}))
    assert (reading.index.classes, reading.index.labels.tolist()) == (("0", "1"), [1, 0])
    assert reading.index.areas.tolist() == [77, 200]


def test_bad_labels_of_fiftyone(tmp_path: Path) -> None:
    def box(label: object, bounding_box: object) -> dict[str, object]:
        return {"label": label, "bounding_box": bounding_box}

    labels: dict[str, Any] = {
        "a": [box(0, [0.25, 0.25, 0.5, 0.5]), box(7, [0, 0, 1, 1]), box(0, [0, 0, 1]), box("dog", [0, 0, 1, 1])],
        "b": "cat",
        "c": None,
    }
    reading = read(tmp_path, "labels.json", json.dumps({"classes": ["cat"], "labels": labels}))
    assert reading.index.files == ("a.jpg",)
    assert reading.index.boxes.tolist() == [[15, 10, 45, 30]]
    assert found(reading) == [
        ("missing-image", "c.jpg"),
        ("unreadable-annotation", "labels.json, b"),
        ("unknown-class", "labels.json, a, object 2"),
        ("unknown-class", "labels.json, a, object 4"),
        ("non-finite-box", "labels.json, a, object 3"),
    ]


@pytest.mark.parametrize("text", ["{", '{"classes": [], "labels": []}', '{"labels": ' * 5000])
def test_a_damaged_file_of_fiftyone_is_refused(text: str, tmp_path: Path) -> None:
    save(tmp_path, IMAGES)
    write(tmp_path / "labels.json", text)
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(UserError, match=r"labels\.json|It holds"):
        read_source(f"fiftyone:{tmp_path}", cache=tmp_path)


def cvat(*images: str, meta: str = "<label><name>cat</name></label>") -> str:
    return f"<annotations><meta>{meta}</meta>{''.join(images)}</annotations>"


def test_shapes_of_cvat(tmp_path: Path) -> None:
    shapes = [
        '<box label="cat" occluded="1" xtl="1" ytl="2" xbr="11" ybr="22"/>',
        '<polygon label="cat" points="1,2;11,2;5,22"/>',
        '<polygon label="cat" points="1,2;11"/>',
        '<box label="dog" xtl="1" ytl="2" xbr="11" ybr="22"/>',
        '<tag label="cat"/>',
    ]
    text = cvat(f'<image name="a.jpg" width="60" height="40">{"".join(shapes)}</image>', '<image name="b.jpg"/>')
    reading = read(tmp_path, "annotations.xml", text)
    assert reading.index.files == ("a.jpg", "b.jpg")
    assert reading.index.boxes.tolist() == [GOOD, GOOD]
    assert reading.index.occluded.tolist() == [1, -1]
    where = "annotations.xml, image a.jpg, object"
    assert found(reading) == [
        ("polygon-to-box", f"{where} 2"),
        ("polygon-to-box", f"{where} 3"),
        ("unknown-class", f"{where} 4"),
        ("size-from-header", "annotations.xml, image b.jpg"),
        ("non-finite-box", f"{where} 3"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (cvat("<track/>"), "describes a video"),
        (f'<!DOCTYPE a [<!ENTITY b "c">]>{cvat()}', "XML entities"),
        ("<annotations>", "cannot be read as XML"),
    ],
)
def test_a_file_of_cvat_that_cannot_be_used_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(tmp_path, "annotations.xml", text)
