"""Examples mark the true positives, false positives and misses of the evaluator."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.analysis.run_records import load_run
from bench.data.thumbnails import write_thumbnails
from bench.evaluation.coco import evaluate
from bench.evaluation.coco_format import detections_coco, ground_truth_coco
from bench.evaluation.detections import Detections
from bench.evaluation.matches import average_precision
from bench.report.page.examples import examples
from tests.index_builders import index_of
from tests.report.made_run import matrix, write_run
from tests.report.oracles import written_page

TRUTHS = [[(0, 10.0, 10.0, 50.0, 50.0), (1, 60.0, 20.0, 90.0, 70.0)], [], [(1, 5.0, 5.0, 30.0, 30.0)]]
# image, label, score, box: a true positive, a wrong class, a low score on a ground truth, a false positive
FOUND = [
    (0, 0, 0.9, (11.0, 10.0, 50.0, 50.0)),
    (0, 0, 0.8, (60.0, 20.0, 90.0, 70.0)),
    (2, 1, 0.2, (5.0, 5.0, 30.0, 30.0)),
    (1, 1, 0.7, (0.0, 0.0, 20.0, 20.0)),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of two cells: the baseline found `FOUND`, fpn nothing."""
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)))
    index = index_of(TRUTHS, root=tmp_path)
    for name in index.files:
        Image.new("RGB", (100, 80), (90, 90, 90)).save(tmp_path / name)
    write_thumbnails(folder, index, None)
    (folder / "ground_truth.json").write_text(json.dumps(ground_truth_coco(index)))
    for cell in load_run(folder).cells:
        found = FOUND if cell.variant == "baseline" else []
        detections = Detections(
            image=np.array([row[0] for row in found], dtype=np.int64),
            labels=np.array([row[1] for row in found], dtype=np.int32),
            scores=np.array([row[2] for row in found], dtype=np.float32),
            boxes=np.array([row[3] for row in found], dtype=np.float32).reshape(-1, 4),
        )
        place = folder / "cells" / cell.id
        (place / "detections.json").write_text(json.dumps(detections_coco(detections, index)))
        matches = evaluate(index, detections).matches
        matches.save(place / "matches.npz")
        record = json.loads((place / "record.json").read_text())
        record["accuracy"]["AP"] = float(np.nanmean(average_precision(matches)))
        (place / "record.json").write_text(json.dumps(record))
    return folder


def test_marks_are_those_of_the_evaluator(folder: Path) -> None:
    first, second, third = examples(load_run(folder))
    marks_of = dict(first.variants)
    assert list(marks_of) == ["baseline", "fpn"] and first.size == (100, 80)
    marks = {mark.text: (mark.kind, mark.box) for mark in marks_of["baseline"]}
    assert marks == {
        "missed: class 1": ("miss", (60, 20, 30, 50)),
        "false positive: class 0, score 0.80": ("alarm", (60, 20, 30, 50)),
        "true positive: class 0, score 0.90": ("hit", (11, 10, 39, 40)),
    }
    assert [mark.kind for mark in marks_of["fpn"]] == ["miss", "miss"]
    assert [mark.kind for mark in dict(second.variants)["baseline"]] == ["alarm"]
    # below the score threshold, the ground truth counts as missed
    assert [mark.kind for mark in dict(third.variants)["baseline"]] == ["miss"]


def test_the_page_embeds_each_image_once_for_both_variants(folder: Path) -> None:
    page = written_page(folder)
    assert page.count("data:image/jpeg") == 3 and page.count('<use href="#picture-') == 3
    assert page.count('<rect class="hit"') == 1 and page.count('<rect class="alarm"') == 2
    assert re.search(r'aria-label="baseline on 0.png: 1 true positives, 1 false positives, 1 missed"', page)


@pytest.mark.parametrize("lost", ["thumbnails/thumbnails.json", "ground_truth.json"])
def test_a_run_without_thumbnails_has_a_page_without_examples(folder: Path, lost: str) -> None:
    (folder / lost).unlink()
    assert examples(load_run(folder)) == [] and 'id="examples"' not in written_page(folder)
