"""Whole small runs through the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import run_all
from bench.analysis.cell_errors import load_run_errors
from bench.analysis.error_costs import errors_frame
from bench.analysis.run_records import load_run
from bench.run.priors_file import read_shapes
from bench.storage.run_folder import MARKER
from tests.conftest import REPOSITORY
from tests.report.made_run import write_run
from tests.small_runs import records, request_words
from tests.traps import executed, set_traps

COLUMNS = (
    *("variant", "fpn", "anchors", "unfreezing", "seeds", "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("images_per_second", "latency_p50_ms", "latency_p99_ms", "parameters_M", "forward_GFLOP", "train_seconds"),
)
VARIANTS = [
    "baseline",
    "fpn",
    "anchors",
    "unfreezing",
    "fpn+anchors",
    "fpn+unfreezing",
    "anchors+unfreezing",
    "fpn+anchors+unfreezing",
]


without_plots = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def words(pictures: Path, tiny_weights: Path, tmp_path: Path) -> list[str]:
    return request_words(pictures, tiny_weights, tmp_path)


@pytest.fixture(scope="module")
def once(
    pictures: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], datetime, datetime]:
    """The request of a finished run of the baseline, and the times before and after it."""
    words = [*request_words(pictures, tiny_weights, tmp_path_factory.mktemp("once")), "--axes", "none"]
    before = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.report.plots.write_plots", lambda analysis: [])
        assert run_all.main(words) == 0
    return words, before, datetime.now(UTC)


@pytest.fixture
def finished(once: tuple[list[str], datetime, datetime], tmp_path: Path) -> list[str]:
    """The request of a finished run of the baseline in the test's own folder."""
    words = list(once[0])
    place = words.index("--out") + 1
    shutil.copytree(words[place], tmp_path / "run")
    words[place] = str(tmp_path / "run")
    return words


def test_the_whole_matrix_is_trained_evaluated_and_reported(words: list[str], tmp_path: Path) -> None:
    assert run_all.main(words) == 0
    run = tmp_path / "run"
    table = pd.read_csv(run / "tables/ablation.csv")
    assert tuple(table.columns[: len(COLUMNS)]) == COLUMNS
    assert list(table["variant"]) == VARIANTS
    assert table["AP"].between(0, 1).all()
    assert (table["status"] == "done").all()
    for name in ("plan.json", "split.json", "ground_truth.json", "environment.json"):
        assert (run / name).is_file(), name
    assert {path.suffix for path in (run / "tables").glob("ablation.*")} == {".csv", ".md", ".tex"}
    assert "Verdict" in (run / "report.html").read_text(encoding="utf-8")
    assert list((run / "thumbnails").glob("*.jpg"))
    for plot in ("ap_by_variant", "ap_by_size", "ap_against_throughput", "priors_over_ground_truths"):
        assert (run / f"plots/{plot}.png").stat().st_size > 10_000

    found = records(run)
    assert set(found) == set(VARIANTS)
    # Arms differ only in what their axes change
    assert len({record["fingerprints"]["split"] for record in found.values()}) == 1
    assert len({record["fingerprints"]["train"] for record in found.values()}) == 1
    assert found["fpn"]["detector"]["neck"] is not None
    fitted = found["anchors"]["prepared"]["anchors"]
    assert fitted["recall_after"]["mean_best_iou"] >= fitted["recall_before"]["mean_best_iou"] > 0
    assert found["unfreezing"]["training"]["phases"] != found["baseline"]["training"]["phases"]
    assert found["unfreezing"]["detector"] == found["baseline"]["detector"]

    # Any COCO tool can score a cell's detections against ground_truth.json
    from pycocotools.coco import COCO  # noqa: PLC0415
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415

    baseline = found["baseline"]
    detections = run / "cells" / baseline["id"] / "detections.json"
    truth = COCO(str(run / "ground_truth.json"))
    if json.loads(detections.read_text()):
        evaluator = COCOeval(truth, truth.loadRes(str(detections)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        assert baseline["accuracy"]["AP"] == evaluator.stats[0]


@without_plots
def test_a_yolo_folder_is_trained_and_scored(words: list[str], pictures: Path, tmp_path: Path) -> None:
    """The same images, written as YOLO."""
    for number in range(10):
        side, (name, wide) = ("train", "val")[number >= 6], (("square", 20), ("bar", 40))[number % 2]
        for kind in ("images", "labels"):
            (tmp_path / kind / side).mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / f"JPEGImages/{number}.jpg", tmp_path / f"images/{side}/{number}.jpg")
        left, top = 5 + 3 * number, 10 + 2 * number
        box = ((left + wide / 2) / 96, (top + 10) / 80, wide / 96, 20 / 80)
        line = f"{('bar', 'square').index(name)} " + " ".join(f"{value:.6f}" for value in box)
        (tmp_path / f"labels/{side}/{number}.txt").write_text(line)
    data = tmp_path / "data.yaml"
    data.write_text("train: images/train\nval: images/val\nnames: [bar, square]\n")
    words[words.index("--data") + 1] = f"yolo:{data}"
    assert run_all.main([*words, "--axes", "none"]) == 0
    table = pd.read_csv(tmp_path / "run/tables/ablation.csv")
    assert list(table["variant"]) == ["baseline"]
    assert table["AP"].notna().all()


@without_plots
def test_crowds_are_ignored_in_a_coco_run(words: list[str], pictures: Path, tmp_path: Path) -> None:
    """Every image has an ordinary box and a crowd, which is no ground truth and not used for fitting."""
    shutil.copytree(pictures / "JPEGImages", tmp_path / "images")
    entries = []
    for number in range(10):
        ordinary = {"bbox": [5 + 3 * number, 10 + 2 * number, 20, 20], "iscrowd": 0, "area": 400}
        crowd = {"bbox": [0, 60, 96, 20], "iscrowd": 1, "area": 1920}
        entries += [part | {"image_id": 40 + number, "category_id": 7} for part in (ordinary, crowd)]
    content = {
        "images": [{"id": 40 + n, "file_name": f"{n}.jpg", "width": 96, "height": 80} for n in range(10)],
        "annotations": [entry | {"id": 100 + place} for place, entry in enumerate(entries)],
        "categories": [{"id": 7, "name": "square"}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    words[words.index("--data") + 1] = f"coco:{tmp_path}"
    assert run_all.main([*words, "--axes", "anchors"]) == 0
    found = records(tmp_path / "run")
    images = found["baseline"]["accuracy"]["images"]
    assert found["baseline"]["accuracy"]["ground_truths"]["all"] == images
    assert found["anchors"]["prepared"]["anchors"]["recall_before"]["boxes"] == 10 - images


def test_the_record_and_the_page_state_when_a_cell_finished(once: tuple[list[str], datetime, datetime]) -> None:
    words, before, after = once
    run = Path(words[words.index("--out") + 1])
    (record,) = records(run).values()
    assert before <= datetime.fromisoformat(record["finished"]) <= after
    assert record["finished"] in (run / "report.html").read_text()


@without_plots
def test_seeds_give_means_with_deviations(words: list[str], tmp_path: Path) -> None:
    assert run_all.main([*words, "--axes", "none", "--seeds", "2"]) == 0
    table = pd.read_csv(tmp_path / "run/tables/ablation.csv")
    assert list(table["seeds"]) == [2]
    assert list(table.columns[:4]) == ["variant", "seeds", "AP", "AP_std"]


@without_plots
def test_no_images_removes_the_thumbnails(finished: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert "data:image/jpeg" in (run / "report.html").read_text(encoding="utf-8")
    assert run_all.main([*finished, "--no-images"]) == 0
    assert not list(run.glob("thumbnails/*"))
    assert "data:image/jpeg" not in (run / "report.html").read_text(encoding="utf-8")


def test_plan_prints_the_cells_and_runs_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main([*words, "--plan", "--controls", "lateral-only,half-data,double-steps"]) == 0
    printed = capsys.readouterr().out
    for name in (*VARIANTS, "lateral-only", "half-data", "double-steps"):
        assert name in printed
    assert "assumed, not measured" in " ".join(printed.split())
    assert not (tmp_path / "run").exists()


def test_plan_takes_variances_from_an_earlier_run(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words += ["--plan", "--variants", "fpn,fpn+anchors", "--worth", "2"]
    like = write_run(tmp_path / "earlier", seeds=(0, 1, 2))
    assert run_all.main([*words, "--like", str(like)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "the baseline runs too" in printed
    assert "3 cells, 3 to run" in printed
    assert "Variants against the baseline: 2 points need" in printed
    assert "from earlier (3 seeds, for its validation images only): " in printed
    assert run_all.main([*words, "--like", str(write_run(tmp_path / "one"))]) == 2
    assert "1 finished seed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@without_plots
def test_a_report_for_another_worth_leaves_the_plan(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", seeds=(0, 1), changes={"worth": 2.0})
    before = (run / "plan.json").read_bytes()
    for words, worth in (([], 0.02), (["--worth", "0.5"], 0.005)):
        assert run_all.main(["report", str(run), *words]) == 0
        assert set(pd.read_csv(run / "tables/power.csv")["worth"]) == {worth}
    assert (run / "plan.json").read_bytes() == before


@without_plots
def test_parts_of_a_matrix_run_and_merge(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main([*words, "--variants", "baseline,fpn"]) == 0
    assert run_all.main([*words, "--variants", "anchors+fpn"]) == 2
    assert "variants: was ['baseline', 'fpn'], now ['baseline', 'fpn+anchors']" in capsys.readouterr().err
    other, merged = tmp_path / "other", tmp_path / "merged"
    rest = [*words, "--out", str(other), "--variants", "anchors+fpn,anchors", "--worth", "3"]
    assert run_all.main(rest) == 0
    assert json.loads((other / "plan.json").read_text())["axes"] == ["fpn", "anchors"]
    assert run_all.main(["report", str(tmp_path / "run"), str(other), "--out", str(merged)]) == 0
    table = pd.read_csv(merged / "tables/ablation.csv")
    assert list(table["variant"]) == ["baseline", "fpn", "anchors", "fpn+anchors"]
    effects = pd.read_csv(merged / "tables/effects.csv")
    assert effects.loc[(effects["kind"] == "main effect") & (effects["measure"] == "AP"), "effect"].notna().all()


@without_plots
def test_the_choice_of_cpu_kernels_is_part_of_the_plan(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words += ["--axes", "none"]
    assert run_all.main([*words, "--cpu-kernels", "off"]) == 0
    assert json.loads((tmp_path / "run/plan.json").read_text())["numerics"]["cpu_kernels"] is False
    assert records(tmp_path / "run")["baseline"]["numerics"]["cpu_kernels"] is False
    assert run_all.main([*words, "--cpu-kernels", "on"]) == 2
    assert "was run with --cpu-kernels off" in capsys.readouterr().err


@without_plots
def test_controls_are_additional_rows(words: list[str], tmp_path: Path) -> None:
    assert run_all.main([*words, "--axes", "none", "--controls", "lateral-only,half-data,double-steps"]) == 0
    found = records(tmp_path / "run")
    assert found["lateral-only"]["detector"]["neck"]["kind"] == "pyramid-lateral-only"
    assert found["double-steps"]["cost"]["steps"] == 2 * found["baseline"]["cost"]["steps"]
    assert found["half-data"]["fingerprints"]["train"] != found["baseline"]["fingerprints"]["train"]
    assert found["half-data"]["cost"]["steps"] == found["baseline"]["cost"]["steps"]


@pytest.mark.usefixtures("finished")
def test_predictions_are_drawn(pictures: Path, tmp_path: Path) -> None:
    image = pictures / "JPEGImages/7.jpg"
    assert run_all.main(["predict", str(tmp_path / "run"), str(image), "--threshold", "0"]) == 0
    drawn = tmp_path / "run/predictions/7.baseline.png"
    assert Image.open(drawn).size == (96, 80)
    other = tmp_path / "elsewhere/7.jpg"
    other.parent.mkdir()
    Image.open(image).crop((0, 0, 50, 40)).save(other)
    assert run_all.main(["predict", str(tmp_path / "run"), str(image), str(other)]) == 0
    assert Image.open(drawn).size == (96, 80)
    assert Image.open(drawn.with_name("7-2.baseline.png")).size == (50, 40)


@pytest.mark.usefixtures("finished")
def test_stored_error_types_equal_those_computed_from_the_boxes(tmp_path: Path) -> None:
    run = load_run(tmp_path / "run")
    kept = errors_frame(run, load_run_errors(run))
    (path,) = run.folder.glob("cells/*/error_types.npz")
    path.unlink()
    pd.testing.assert_frame_equal(errors_frame(run, load_run_errors(run)), kept)
    whole = kept[kept["scope"] == "all"].set_index("kind")
    # Missed objects are false negatives that no localisation or classification error explains.
    assert 0 <= whole["count"]["missed"] <= whole["count"]["false negatives"] <= whole["ground_truths"]["missed"]
    assert whole["dAP50"].notna().all()


@pytest.mark.usefixtures("finished")
def test_the_report_is_rebuilt_without_torch(tmp_path: Path) -> None:
    table = tmp_path / "run/tables/ablation.csv"
    before = table.read_bytes()
    table.unlink()
    code = (
        "import sys, run_all; status = run_all.main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    subprocess.run([sys.executable, "-c", code, "report", str(tmp_path / "run")], check=True, cwd=REPOSITORY)
    assert table.read_bytes() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_not_replaced_by_the_cpu(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words[words.index("--device") + 1] = "cuda"
    assert run_all.main(words) == 2
    assert "--device cpu" in capsys.readouterr().err


@without_plots
def test_the_command_line_takes_precedence_over_a_file(words: list[str], tmp_path: Path) -> None:
    config = tmp_path / "options.toml"
    config.write_text('axes = "none"\nsteps = 3\nseeds = 1\nskip_invalid = false\n')
    assert run_all.main([*words, "--config", str(config), "--steps", "2"]) == 0
    assert records(tmp_path / "run")["baseline"]["cost"]["steps"] == 2


def test_preflight_lists_every_problem(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    whole = (pictures / "JPEGImages/1.jpg").read_bytes()
    (tmp_path / "JPEGImages/cut.jpg").write_bytes(whole[: len(whole) // 2])
    for name in ("cut", "gone"):
        text = (pictures / "Annotations/1.xml").read_text()
        (tmp_path / f"Annotations/{name}.xml").write_text(text)
    words = ["preflight", "--data", f"voc:{tmp_path}", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "o")]
    assert run_all.main(words) == 2
    problems = json.loads((tmp_path / "o/preflight.json").read_text())["problems"]
    assert {"cut", "gone"} <= {Path(problem["where"].split(",")[0]).stem for problem in problems}
    assert "cut.jpg" in capsys.readouterr().err


def test_preflight_draws_contact_sheets_of_any_source(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheets"
    words = ["preflight", "--sheet", "--data", f"voc:{pictures}", "--cache", str(tmp_path / "c"), "--out", str(out)]
    assert run_all.main(words) == 0
    written = {path.name for path in out.iterdir()} - {MARKER}
    assert written == {"preflight.json", "sheet-images.png", "sheet-training.png"}
    with Image.open(out / "sheet-images.png") as images, Image.open(out / "sheet-training.png") as views:
        assert images.height < views.height  # ten images; twenty views of the six training images
        # The objects are yellow
        red, _, blue = np.asarray(images).astype(int).reshape(-1, 3).T
        assert ((red > 150) & (blue < 80)).sum() > 10_000


@without_plots
def test_every_cell_states_the_recall_of_its_priors_and_exports_them(words: list[str], tmp_path: Path) -> None:
    assert run_all.main([*words, "--axes", "anchors"]) == 0
    run = tmp_path / "run"
    found = records(run)
    for variant, record in found.items():
        file = run / "cells" / record["id"] / "priors.json"
        content = json.loads(file.read_text())
        assert [[list(shape) for shape in level] for level in read_shapes(file)] == record["detector"]["priors"]
        for split, images in (("train", 6), ("val", 4)):
            before, after = (record["prior_recall"][split][when] for when in ("before", "after"))
            assert content["recall"][split] == after
            assert before["boxes"] == after["boxes"] == images
            assert variant == "anchors" or before == after
    for split in ("train", "val"):
        baseline, fitted = (found[variant]["prior_recall"][split] for variant in ("baseline", "anchors"))
        assert fitted["before"] == baseline["after"]
    assert found["anchors"]["prior_recall"]["train"]["after"] == found["anchors"]["prepared"]["anchors"]["recall_after"]

    # A run with the exported file has exactly the same priors
    exported = run / "cells" / found["anchors"]["id"] / "priors.json"
    words[words.index("--out") + 1] = str(tmp_path / "second")
    assert run_all.main([*words, "--axes", "none", "--priors", str(exported)]) == 0
    again = records(tmp_path / "second")["baseline"]
    assert again["fingerprints"]["priors"] == found["anchors"]["fingerprints"]["priors"]
    assert again["detector"]["priors"] == found["anchors"]["detector"]["priors"]


def test_a_run_writes_only_into_the_named_folders_and_executes_nothing_of_the_current_one(
    words: list[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With an empty home folder, a run leaves it empty."""
    current = set_traps(tmp_path_factory.mktemp("current"))
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    for name in ("MPLCONFIGDIR", "TORCH_HOME", "HF_HOME"):
        environment.pop(name, None)
    command = [sys.executable, str(REPOSITORY / "run_all.py"), *words, "--axes", "none"]
    subprocess.run(command, check=True, env=environment, cwd=current, capture_output=True)
    assert executed(current) == []
    assert [path for path in home.rglob("*") if path.is_file()] == []
