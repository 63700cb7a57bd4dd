"""The table of under- and overfitting, and what captions and learning curves say of the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analysis.results import analyse
from bench.analysis.run_records import load_run
from bench.report.notes import subject, training_length, why_no_ap
from bench.report.plots.learning_curves import learning_curves
from bench.report.tables import all_tables
from bench.report.tables.formats import MISSING
from bench.report.tables.training_fit import training_fit_table
from tests.report.made_run import matrix, write_run

STEPS, TRAIN_IMAGES = 200, 40


def made(folder: Path, *, loss: Callable[[str, float], float], profile: str = "quick", **rest: Any) -> Path:
    """A run with training images, AP on 20 of them, and losses of `loss`, by variant and share of the steps."""
    base = {"training": {"steps": STEPS, "batch": 9, "data_share": 1.0}}
    write_run(folder, factors=matrix(("fpn",)), changes={"base": base, "profile": profile}, **rest)
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        record |= base | {"training_fit": {"images": 20, "ground_truths": 31, "AP": 0.5, "AP50": 0.7}}
        if record["status"] == "done":
            record["cost"]["steps"] = STEPS
        path.write_text(json.dumps(record))
        draw = np.random.default_rng(0)
        with path.with_name("log.jsonl").open("w") as log:
            for step in range(1, STEPS + 1):
                value = loss(record["variant"], step / STEPS) * (1 + 0.02 * draw.standard_normal())
                log.write(json.dumps({"step": step, "loss": value, "rate": 1.0 if step < 140 else 0.1}) + "\n")
    (folder / "split.json").write_text(json.dumps({"train": {"files": [f"{row}.jpg" for row in range(TRAIN_IMAGES)]}}))
    return folder


def falling(variant: str, share: float) -> float:
    return 5 - 3 * share


def falling_baseline(variant: str, share: float) -> float:
    return 5 - 3 * share if variant == "baseline" else 5


def test_the_table_has_lengths_gap_and_fall(tmp_path: Path) -> None:
    table = training_fit_table(load_run(made(tmp_path / "run", loss=falling_baseline, seeds=(0, 1))))
    headings = [heading.name for heading in table.headings]
    baseline, fpn = (dict(zip(headings, [entry.text for entry in row], strict=True)) for row in table.rows)
    ap = float(table.frame["AP_val"][0])
    assert (baseline["steps"], baseline["epochs"], baseline["AP_train"]) == ("200", "45", "50.0")
    assert baseline["AP_val"] == f"{100 * ap:.1f}" and baseline["gap"] == f"+{50 - 100 * ap:.1f}"
    fall = float(table.frame["loss_fall"][0])
    assert fall == pytest.approx(0.27, abs=0.02)
    assert baseline["loss_fall"].startswith(f"{100 * fall:.1f} ± ")
    assert (baseline["still_falling"], fpn["still_falling"]) == ("yes", "no")
    assert table.frame["still_falling"].tolist() == [1, 0] and table.frame["seeds"].tolist() == [2, 2]
    assert "on 20 training images" in table.caption and table.notes == ()


def test_an_older_run_has_the_table_without_the_new_values(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", factors=matrix(("fpn",)), failed={("fpn", 0): "lost"}))
    table = training_fit_table(run)
    texts = [[entry.text for entry in row] for row in table.rows]
    assert [row[0] for row in texts] == ["baseline", "fpn"]
    assert texts[0][2:4] == [MISSING, MISSING] and texts[0][4] != MISSING
    assert set(texts[1][1:]) == {MISSING}
    assert table.notes[0] == "The version that made this run scored no training images."
    assert "Failed: fpn, seed 0 (lost)" in table.notes


def test_the_subject_states_steps_epochs_images_and_seeds(tmp_path: Path) -> None:
    run = load_run(made(tmp_path / "run", loss=falling))
    assert training_length(run) == "200 steps, 45 epochs"
    assert subject(run) == (
        "scenes, backbone efficientnet_lite0, profile quick, 200 steps, 45 epochs, 40 training and 48 validation "
        "images, 1 seed"
    )
    captions = {table.name: table.caption for table in all_tables(analyse(run))}
    assert {name for name, caption in captions.items() if "200 steps, 45 epochs" not in caption} == set()


def test_a_smoke_run_is_not_a_result(tmp_path: Path) -> None:
    run = load_run(made(tmp_path / "run", loss=falling, profile="smoke"))
    assert "profile smoke, not a result: 200 steps, 45 epochs, " in subject(run)
    quick = load_run(made(tmp_path / "quick", loss=falling))
    assert "not a result" not in subject(quick)


@pytest.mark.parametrize(
    ("training", "files", "expected"),
    [
        ({"steps": 8, "batch": 4}, 64, "8 steps, 0.5 epochs"),
        ({"steps": 1, "batch": 4}, 4, "1 step, 1 epoch"),
        ({"steps": 90, "batch": 16, "data_share": 0.5}, 640, "90 steps, 4.5 epochs"),
        ({"steps": 90, "batch": 16}, None, "90 steps"),
        ({}, 40, ""),
    ],
)
def test_length_of_training(training: dict[str, Any], files: int | None, expected: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=[{}], changes={"base": {"training": training}})
    if files is not None:
        (folder / "split.json").write_text(json.dumps({"train": {"files": ["x"] * files}}))
    assert training_length(load_run(folder)) == expected


def test_learning_curves_say_whether_the_loss_was_falling(tmp_path: Path) -> None:
    for name, loss, said in (
        ("both", falling, "the loss was still falling at the end"),
        ("one", falling_baseline, "the loss was still falling at the end of 1 of 2 variants"),
        ("none", lambda variant, share: 5.0, "no loss was still falling at the end"),
    ):
        title = learning_curves(load_run(made(tmp_path / name, loss=loss))).get_suptitle()
        assert " ".join(title.split()).endswith(f"1 seed, {said}")
    pending = [("baseline", 0), ("fpn", 0)]
    empty = learning_curves(load_run(write_run(tmp_path / "x", factors=matrix(("fpn",)), pending=pending)))
    assert "falling" not in empty.get_suptitle()


def without_ap(folder: Path, boxes: list[dict[str, Any]] | None, *, count: int | None = 0) -> str:
    """`why_no_ap` of a run whose validation images have `boxes`, of which `count` count."""
    write_run(folder, factors=[{}])
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        record["accuracy"] |= {"AP": None, "ground_truths": {"all": count}}
        path.write_text(json.dumps(record))
    if boxes is not None:
        image = {"id": 1, "file_name": "1.jpg", "width": 9, "height": 9}
        placed = [{"image_id": 1, "bbox": [0, 0, 9, 9]} | box for box in boxes]
        (folder / "ground_truth.json").write_text(json.dumps({"images": [image], "annotations": placed}))
    return why_no_ap(load_run(folder))


def test_the_reason_for_a_run_without_ap(tmp_path: Path) -> None:
    difficult, crowd = {"difficult": 1, "iscrowd": 0}, {"difficult": 0, "iscrowd": 1}
    none_count = "the validation images hold no ground truths that count"
    assert without_ap(tmp_path / "a", [difficult] * 9 + [crowd] * 3) == f"{none_count}: 12 are difficult or crowd"
    assert without_ap(tmp_path / "b", [difficult]) == f"{none_count}: 1 is difficult"
    assert without_ap(tmp_path / "c", [crowd] * 2) == f"{none_count}: 2 are crowd"
    assert without_ap(tmp_path / "d", []) == "the validation images hold no ground truths"
    assert without_ap(tmp_path / "e", None) == none_count
    assert without_ap(tmp_path / "f", None, count=7) == "the records hold no AP"
    done = load_run(write_run(tmp_path / "g", factors=[{}]))
    assert why_no_ap(done) == ""
    assert why_no_ap(load_run(write_run(tmp_path / "h", factors=[{}], pending=[("baseline", 0)]))) == ""
