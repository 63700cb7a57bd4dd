"""One cell in this process: what it writes, and what its record says if it fails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.data.index import ImageIndex
from bench.detector.ssd import SSD
from bench.evaluation.detections import Detections
from bench.run import cell as room
from bench.run.cell import CellJob, fit_sample, prior_recall, run_cell, share_of
from bench.run.priors_file import read_shapes
from bench.storage.records import read_log, read_record
from bench.storage.run_folder import (
    CHECKPOINT,
    DETECTIONS,
    ERROR_TYPES,
    LOG,
    MATCHES,
    PRIORS,
    RECORD,
    WEIGHTS,
)
from bench.training.trainer import Trainer
from tests import small_runs, tiny

STEPS = 2
FAILING = """
from bench.axis import Axis


class Failing(Axis):
    name = "failing"
    slot = "box_loss"

    def apply(self, spec, prepared):
        raise RuntimeError("this remedy does not work")
"""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def jobs_of(pictures: Path, folder: Path, *axes: str) -> list[CellJob]:
    file = folder / "failing.py"
    file.write_text(FAILING)
    return small_runs.jobs_of(pictures, folder, file, axes, steps=STEPS)


def test_a_cell_writes_its_files_and_a_record_of_its_own_specification(pictures: Path, tmp_path: Path) -> None:
    _, job = jobs_of(pictures, tmp_path, "anchors")
    record = run_cell(job)
    record = json.loads(json.dumps(record))  # tuples become lists
    assert record == read_record(job.run, job.cell.id)
    assert (record["status"], record["failure"], record["warnings"]) == ("done", None, [])
    assert (record["variant"], record["factors"], record["seed"]) == ("anchors", {"anchors": True}, 0)
    assert record["numerics"]["cpu_kernels"] is False
    names = {path.name for path in job.folder.iterdir()}
    assert names == {RECORD, LOG, PRIORS, DETECTIONS, MATCHES, ERROR_TYPES, WEIGHTS}  # no checkpoint is left
    assert not (job.folder / CHECKPOINT).exists()

    assert [line["phase"] for line in read_log(job.folder / LOG) if "phase" in line] == [
        *("preparing", "training", "evaluating", "measuring speed"),
    ]
    assert [line["step"] for line in read_log(job.folder / LOG) if "step" in line][-1] == STEPS
    shapes = [[list(shape) for shape in level] for level in read_shapes(job.folder / PRIORS)]
    assert shapes == record["detector"]["priors"] == record["prepared"]["anchors"]["shapes"]
    assert record["cost"]["steps"] == STEPS
    assert record["accuracy"]["images"] == len(job.val)
    assert record["fingerprints"]["val"] == job.val.fingerprint()


def first_objects(model: SSD, index: ImageIndex, *_: Any, **__: Any) -> Detections:
    """In place of a trained detector: the objects of all images but the first, under the first object's class."""
    boxes = slice(int(index.offsets[1]), None)
    return Detections(
        image=index.image_of_box[boxes],
        boxes=index.boxes[boxes].astype(np.float32),
        scores=np.ones(len(index.boxes[boxes]), dtype=np.float32),
        labels=np.full(len(index.boxes[boxes]), index.labels[0], dtype=np.int32),
    )


def test_training_images_are_scored_as_validation_images_are(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell whose validation images are its sample of training images has the same AP on both."""
    monkeypatch.setattr(room, "detect_all", first_objects)
    (job,) = jobs_of(pictures, tmp_path)
    sample = fit_sample(job.train, 1.0, 200)
    assert len(sample) == 3
    record = run_cell(replace(job, val=sample))
    fit, accuracy = record["training_fit"], record["accuracy"]
    assert fit == {
        "images": 3,
        "ground_truths": accuracy["ground_truths"]["all"],
        "AP": accuracy["AP"],
        "AP50": accuracy["AP50"],
    }
    assert fit["ground_truths"] == len(sample.boxes) == 3
    assert 0 < fit["AP50"] < 1
    assert run_cell(replace(job, run=tmp_path / "fewer", fit_images=2))["training_fit"]["images"] == 2


def test_the_scored_training_images_are_the_same_in_every_cell_that_trains_on_them() -> None:
    index, _ = tiny.rectangles(500)
    sample = fit_sample(index, 1.0, 200)
    assert len(sample) == 200 and len(set(sample.files)) == 200
    assert fit_sample(index, 0.5, 200).files == sample.files
    assert set(sample.files) <= set(share_of(index, 0.5).files)
    small, _ = tiny.rectangles(30)
    assert fit_sample(small, 1.0, 200).files == fit_sample(small, 0.5, 200).files == share_of(small, 0.5).files
    assert fit_sample(small, 0.1, 200).files == share_of(small, 0.1).files
    assert set(fit_sample(small, 1.0, 10).files) < set(share_of(small, 0.5).files)
    one, _ = tiny.rectangles(1)
    assert len(fit_sample(one, 1.0, 200)) == 1


def test_weights_load_into_a_detector_of_the_record(pictures: Path, tmp_path: Path) -> None:
    (job,) = jobs_of(pictures, tmp_path)
    record = run_cell(job)
    content = torch.load(job.folder / WEIGHTS, weights_only=True)
    model = SSD(job.cell.base.detector, seed=1)
    model.load_state_dict(content["model"])
    assert content["priors"] == model.priors_fingerprint() == record["fingerprints"]["priors"]
    assert hashlib.sha256((job.folder / WEIGHTS).read_bytes()).hexdigest() == record["fingerprints"]["weights"]


def test_a_failure_is_a_record_with_its_cause_and_no_figures(pictures: Path, tmp_path: Path) -> None:
    _, job = jobs_of(pictures, tmp_path, "failing")
    record = run_cell(job)
    assert record == read_record(job.run, job.cell.id)
    assert record["status"] == "failed"
    assert record["failure"]["cause"] == "RuntimeError: this remedy does not work"
    assert "in apply" in record["failure"]["traceback"]
    assert not record["failure"]["batch_too_large"]
    assert {"accuracy", "speed", "cost"}.isdisjoint(record)


def test_a_cell_without_memory_says_so(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "step", too_large)
    (job,) = jobs_of(pictures, tmp_path)
    record = run_cell(job)
    assert record["status"] == "failed"
    assert record["failure"]["batch_too_large"]


def test_a_share_of_the_training_images_is_the_same_in_every_cell() -> None:
    index, _ = tiny.rectangles(10)
    half = share_of(index, 0.5)
    assert len(half) == 5
    assert half.files == share_of(index, 0.5).files
    assert list(half.files) == sorted(half.files, key=index.files.index)
    assert share_of(index, 1.0) is index
    assert len(share_of(index, 0.01)) == 1


def test_recall_of_priors_before_and_after_the_axes() -> None:
    base = tiny.specification()
    fitted = replace(base, detector=replace(base.detector, priors=tuple(((0.3, 0.3),) * 4 for _ in range(6))))
    boxes = {"train": np.array([[0.1, 0.1, 0.4, 0.4]]), "val": np.zeros((0, 4))}
    found = prior_recall(base, fitted, boxes)
    assert found.keys() == {"train", "val"}
    assert found["train"]["before"]["boxes"] == found["train"]["after"]["boxes"] == 1
    assert found["train"]["after"]["mean_best_iou"] > found["train"]["before"]["mean_best_iou"]
    assert found["val"]["after"]["boxes"] == 0
