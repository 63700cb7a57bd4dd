"""Detection files of any detector are scored like ours, or rejected with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.diagnosis.scores import score
from bench.errors import UserError
from bench.evaluation.coco import evaluate
from bench.evaluation.coco_format import detections_coco
from bench.evaluation.results_file import read_detections
from tests.index_builders import index_of
from tests.tiny import specification

DETECTOR = specification().detector
VAL = index_of([[(0, 10, 10, 30, 30), (1, 40, 40, 80, 75)], [(0, 5, 5, 60, 60)]])


def written(path: Path, content: Any) -> Path:
    file = path / "detections.json"
    file.write_text(json.dumps(content))
    return file


def perfect(**changes: Any) -> list[dict[str, Any]]:
    return [
        {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.9} | changes,
        {"image_id": 1, "category_id": 2, "bbox": [40, 40, 40, 35], "score": 0.8},
        {"image_id": 2, "category_id": 1, "bbox": [5, 5, 55, 55], "score": 0.7},
    ]


def test_perfect_detections_score_one_by_id_and_by_file_name(tmp_path: Path) -> None:
    for name in (1, "0.png"):
        scored = score(written(tmp_path, perfect(image_id=name)), VAL, DETECTOR)
        assert scored["accuracy"]["AP"] == scored["accuracy"]["AR_100"] == 1
        assert (scored["detections"], scored["elsewhere"], scored["file"]) == (3, 0, "detections.json")


def test_our_own_files_give_the_same_figures(tmp_path: Path) -> None:
    path = written(tmp_path, perfect(bbox=[12, 10, 20, 20]) * 2)
    detections, _ = read_detections(path, VAL)
    again = written(tmp_path, detections_coco(detections, VAL))
    accuracy = score(again, VAL, DETECTOR)["accuracy"]
    assert accuracy == evaluate(VAL, detections).accuracy
    assert 0 < accuracy["AP"] < 1


def test_found_objects_are_counted_by_size_and_matching_prior(tmp_path: Path) -> None:
    # In images of 300 x 300 two of 8 x 8, which no prior matches, one of 90 x 90, and a difficult one
    val = index_of(
        [[(0, 0, 0, 8, 8), (0, 50, 50, 58, 58), (1, 105, 105, 195, 195), (1, 200, 200, 290, 290)]], size=(300, 300)
    )
    val = replace(val, difficult=np.array([False, False, False, True]))
    found = [([50, 50, 8, 8], 1), ([105, 105, 90, 90], 2), ([200, 200, 90, 90], 2), ([2, 0, 8, 5], 1)]
    content = [
        {"image_id": 1, "category_id": category, "bbox": box, "score": 0.01 * (place + 1)}
        for place, (box, category) in enumerate(found)
    ]
    scored = score(written(tmp_path, content), val, DETECTOR)["found"]
    assert scored["all"] == {"objects": 3, "found": 2, "with_prior": 1, "with_prior_found": 1}
    assert scored["under 16"] == {"objects": 2, "found": 1, "with_prior": 0, "with_prior_found": 0}
    assert scored["32 to 96"] == {"objects": 1, "found": 1, "with_prior": 1, "with_prior_found": 1}
    assert scored["16 to 32"]["objects"] == scored["96 and more"]["objects"] == 0


def test_errors_are_counted_by_type_with_their_cost(tmp_path: Path) -> None:
    # The first object under the wrong name, the second found; the third is not: one error each, of two classes
    errors = score(written(tmp_path, perfect(category_id=2, score=0.7)[:2]), VAL, DETECTOR)["errors"]
    assert {kind: own["count"] for kind, own in errors.items() if own["count"]} == {"classification": 1, "missed": 1}
    # Class 0 has an AP50 of nought: with the first mended, of 51 of 101 recall points; class 1 loses nothing.
    assert errors["classification"]["dAP50"] == pytest.approx(51 / 101 / 2)
    assert errors["localisation"]["dAP50"] == 0
    assert all(own["dAP50"] == 0 for own in score(written(tmp_path, perfect()), VAL, DETECTOR)["errors"].values())


def test_detections_on_other_images_are_skipped_and_counted(tmp_path: Path) -> None:
    val = VAL.take(np.array([0]))
    scored = score(written(tmp_path, perfect()), val, DETECTOR, data=VAL)
    assert (scored["detections"], scored["elsewhere"]) == (2, 1)
    unknown = written(tmp_path, [*perfect(), *perfect(image_id=77)[:1]])
    assert score(unknown, VAL, DETECTOR, data=VAL, skip_unknown=True)["elsewhere"] == 1
    with pytest.raises(UserError, match="unknown image_id"):
        score(unknown, VAL, DETECTOR, data=VAL)


def test_empty_detections_score_zero(tmp_path: Path) -> None:
    assert score(written(tmp_path, []), VAL, DETECTOR)["accuracy"]["AP"] == 0
