"""Files of detections are read by image id or name, or rejected with one sentence that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import UserError
from bench.evaluation.results_file import read_detections
from tests.index_builders import index_of

VAL = index_of([[(0, 10, 10, 30, 30), (1, 40, 40, 80, 75)], [(0, 5, 5, 60, 60)]])
ENTRY: dict[str, Any] = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.9}


def written(folder: Path, content: Any) -> Path:
    path = folder / "found.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_an_image_is_named_by_id_file_or_path(tmp_path: Path) -> None:
    inner = VAL.take(np.arange(2))
    inner = type(inner)(**{**vars(inner), "files": ("a/0.png", "b/1.png")})
    for name, row in ((1, 0), ("0.png", 0), ("b/1.png", 1), ("1.png", 1)):
        detections, left_out = read_detections(written(tmp_path, [ENTRY | {"image_id": name}]), inner)
        assert detections.image.tolist() == [row] and left_out == 0
    assert detections.boxes.tolist() == [[10, 10, 30, 30]] and detections.labels.tolist() == [0]


def test_detections_on_images_of_the_other_side_are_left_out_and_counted(tmp_path: Path) -> None:
    val = VAL.take(np.array([1]))
    path = written(tmp_path, [ENTRY, ENTRY | {"image_id": 2}, ENTRY | {"image_id": "0.png"}])
    detections, left_out = read_detections(path, val, data=VAL)
    assert detections.image.tolist() == [0] and left_out == 2
    with pytest.raises(UserError, match=r"2 unknown image_id \(1, 0\.png\)"):
        read_detections(path, val)


def test_unknown_images_are_left_out_only_if_asked_to(tmp_path: Path) -> None:
    path = written(tmp_path, [ENTRY, ENTRY | {"image_id": 77}])
    with pytest.raises(UserError, match=r"1 unknown image_id \(77\).*for example 1 or 0\.png.*--skip-invalid"):
        read_detections(path, VAL, data=VAL)
    detections, left_out = read_detections(path, VAL, data=VAL, skip_unknown=True)
    assert len(detections.image) == left_out == 1


def test_a_list_without_entries_has_no_detections(tmp_path: Path) -> None:
    assert len(read_detections(written(tmp_path, []), VAL)[0].image) == 0


WRONG = {
    "empty file": ("", "is empty"),
    "blank file": (" \n", "is empty"),
    "no JSON": ("image_id,score\n", "is not JSON"),
    "truncated": ('[{"image_id": 1', "is not JSON"),
    "endless nesting": ("[" * 200_000, "is not JSON"),
    "ground truth": ({"images": [], "annotations": [], "categories": []}, "one object with images, annotations"),
    "a number": (3, "not a file of detections but 3"),
    "a list of numbers": ([1, 2], "not a file of detections"),
    "no score": ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}], "KeyError: 'score'"),
    "unknown image": ([ENTRY | {"image_id": 9}], r"1 unknown image_id \(9\)"),
    "image of another type": ([ENTRY | {"image_id": [1]}], "unknown image_id"),
    "unknown class": ([ENTRY | {"category_id": 9}], r"unknown category_id 9; the data have 2 \(1 class 0, 2 class 1\)"),
    "huge class": ([ENTRY | {"category_id": 10**30}], "not a file of detections"),
    "NaN score": ([ENTRY, ENTRY | {"score": float("nan")}], r"1 of 2 differ, first entry 2 \(.*score nan"),
    "infinite score": ([ENTRY | {"score": float("inf")}], "each score one"),
    "score beyond float32": ([ENTRY | {"score": 1e39}], "score inf"),
    "score is a list": ([ENTRY | {"score": [0.5]}], "each score one"),
    "score is text": ([ENTRY | {"score": "high"}], "not a file of detections"),
    "three corners": ([ENTRY | {"bbox": [1, 2, 3]}], "not a file of detections"),
    "NaN box": ([ENTRY | {"bbox": [1, 2, float("nan"), 4]}], "four finite numbers"),
    "huge box": ([ENTRY | {"bbox": [1e39, 2, 3, 4]}], "four finite numbers"),
    "negative size": ([ENTRY | {"bbox": [30, 30, -20, 4]}], "neither side may be negative"),
}


@pytest.mark.parametrize(("content", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_is_rejected_with_one_sentence(tmp_path: Path, content: Any, says: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=says) as caught:
        read_detections(path, VAL)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text and ". " not in text.removeprefix(str(path))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError, match=f"{path} cannot be read"):
            read_detections(path, VAL)


def test_bytes_that_are_no_text_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_detections(tmp_path / "found.json", VAL)


def test_a_file_on_other_images_alone_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of its images .* is evaluated"):
        read_detections(written(tmp_path, [ENTRY]), VAL.take(np.array([1])), data=VAL)
