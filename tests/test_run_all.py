"""Whole small runs through the command line: what is written, what is kept, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import run_all
from bench.analysis.counted import counted_cells
from bench.analysis.errors import errors_frame
from bench.analysis.frame import load_run
from bench.detector.backbones import Backbone
from bench.detector.priors import read_shapes
from tests.conftest import REPOSITORY

COLUMNS = (
    *("variant", "fpn", "anchors", "unfreezing", "seeds", "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("images_per_second", "latency_p50_ms", "latency_p99_ms", "parameters_M", "forward_GFLOP", "train_seconds"),
)
CLOCKS = [
    *("images_per_second", "latency_p50_ms", "latency_p99_ms", "latency_samples", "best_batch"),
    *("train_seconds", "step_seconds_median", "peak_memory_MiB"),
]
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


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of timm's smallest network in a file: to the suite they are pretrained."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(Backbone("test_efficientnet", "none").features.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOC folder of ten pictures with one bright square or bar each."""
    root = tmp_path_factory.mktemp("voc")
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number in range(10):
        name, wide = ("bar", 40) if number % 2 else ("square", 20)
        left, top = 5 + 3 * number, 10 + 2 * number
        picture = Image.new("RGB", (96, 80), (30, 60, 90))
        picture.paste((240, 200, 20), (left, top, left + wide, top + 20))
        picture.save(root / f"JPEGImages/{number}.jpg")
        box = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{left + wide}</xmax><ymax>{top + 20}</ymax>"
        (root / f"Annotations/{number}.xml").write_text(
            f"<annotation><size><width>96</width><height>80</height><depth>3</depth></size>"
            f"<object><name>{name}</name><difficult>0</difficult><bndbox>{box}</bndbox></object></annotation>"
        )
    (root / "ImageSets/Main/train.txt").write_text("\n".join(map(str, range(6))))
    (root / "ImageSets/Main/val.txt").write_text("\n".join(map(str, range(6, 10))))
    return root


@pytest.fixture
def words(photographs: Path, tiny_weights: Path, tmp_path: Path) -> list[str]:
    """A request that takes a second a cell and writes into the test's folder alone."""
    return [
        *("--data", f"voc:{photographs}", "--backbone", "test_efficientnet", "--weights", str(tiny_weights)),
        *("--profile", "smoke", "--steps", "4", "--batch", "2", "--device", "cpu"),
        *("--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")),
    ]


def records(run: Path) -> dict[str, dict[str, Any]]:
    """Records by variant."""
    found = [json.loads(path.read_text()) for path in sorted(run.glob("cells/*/record.json"))]
    return {record["variant"]: record for record in found}


def without_clocks(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "tables/ablation.csv").drop(columns=CLOCKS)


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
    for plot in ("ap_by_variant", "ap_by_size", "ap_against_throughput"):
        assert (run / f"plots/{plot}.png").stat().st_size > 10_000

    found = records(run)
    assert set(found) == set(VARIANTS)
    # Only what an axis is about differs between arms
    assert len({record["fingerprints"]["split"] for record in found.values()}) == 1
    assert len({record["fingerprints"]["train"] for record in found.values()}) == 1
    assert found["fpn"]["detector"]["neck"] is not None
    assert found["anchors"]["detector"]["priors"] != found["baseline"]["detector"]["priors"]
    assert found["anchors"]["prepared"]["anchors"]["recall_after"]["matched"] >= 0
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


def test_a_yolo_folder_gives_eight_rows(words: list[str], photographs: Path, tmp_path: Path) -> None:
    """The same pictures, written as YOLO."""
    for number in range(10):
        side, (name, wide) = ("train", "val")[number >= 6], (("square", 20), ("bar", 40))[number % 2]
        for kind in ("images", "labels"):
            (tmp_path / kind / side).mkdir(parents=True, exist_ok=True)
        shutil.copy(photographs / f"JPEGImages/{number}.jpg", tmp_path / f"images/{side}/{number}.jpg")
        left, top = 5 + 3 * number, 10 + 2 * number
        box = ((left + wide / 2) / 96, (top + 10) / 80, wide / 96, 20 / 80)
        line = f"{('bar', 'square').index(name)} " + " ".join(f"{value:.6f}" for value in box)
        (tmp_path / f"labels/{side}/{number}.txt").write_text(line)
    data = tmp_path / "data.yaml"
    data.write_text("train: images/train\nval: images/val\nnames: [bar, square]\n")
    words[words.index("--data") + 1] = f"yolo:{data}"
    assert run_all.main(words) == 0
    table = pd.read_csv(tmp_path / "run/tables/ablation.csv")
    assert list(table["variant"]) == VARIANTS
    assert table["AP"].notna().all()


def test_crowds_are_kept_apart_in_a_coco_run(words: list[str], photographs: Path, tmp_path: Path) -> None:
    """One ordinary box and one crowd on every picture: the crowd is no ground truth and fits no anchor."""
    shutil.copytree(photographs / "JPEGImages", tmp_path / "images")
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


def test_a_record_and_the_page_say_when_a_cell_was_done(words: list[str], tmp_path: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert run_all.main([*words, "--axes", "none"]) == 0
    (record,) = records(tmp_path / "run").values()
    assert before <= datetime.fromisoformat(record["finished"]) <= datetime.now(UTC)
    assert record["finished"] in (tmp_path / "run" / "report.html").read_text()


def test_the_same_command_repeats_no_cell(words: list[str], tmp_path: Path) -> None:
    words += ["--axes", "fpn"]
    assert run_all.main(words) == 0
    run = tmp_path / "run"
    before = {path: path.stat().st_mtime_ns for path in run.glob("cells/*/*")}
    assert run_all.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in run.glob("cells/*/*")} == before


def test_the_same_command_gives_the_same_records_apart_from_clocks(words: list[str], tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        assert run_all.main([*words, "--axes", "anchors", "--out", str(tmp_path / name)]) == 0
        found.append(records(tmp_path / name))
    differences = {path for variant in found[0] for path in unequal(found[0][variant], found[1][variant])}
    print(f"differ: {', '.join(sorted(differences))}")
    allowed = (*CLOCKS, "latency_p90_ms", "sweep", "waiting_for_data_share", "finished")
    assert not {path for path in differences if path.split(".")[-1] not in allowed}
    for file in ("detections.json", "matches.npz", "priors.json"):
        ones, twos = (sorted((tmp_path / name).glob(f"cells/*/{file}")) for name in ("one", "two"))
        assert [path.read_bytes() for path in ones] == [path.read_bytes() for path in twos]
        assert len(ones) == 2


def unequal(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two records differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in unequal(one[key], other[key], f"{path}.{key}" if path else key)]
    return [] if one == other else [path]


def test_seeds_give_means_with_deviations(words: list[str], tmp_path: Path) -> None:
    assert run_all.main([*words, "--axes", "none", "--seeds", "2"]) == 0
    table = pd.read_csv(tmp_path / "run/tables/ablation.csv")
    assert list(table["seeds"]) == [2]
    assert list(table.columns[:4]) == ["variant", "seeds", "AP", "AP_std"]


def test_another_plan_in_the_same_folder_is_refused_by_name(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words += ["--axes", "none"]
    assert run_all.main(words) == 0
    capsys.readouterr()
    assert run_all.main([*words, "--lr", "0.5"]) == 2
    assert "base.training.rate: was 0.001, now 0.5" in capsys.readouterr().err


def test_a_failing_cell_is_visible_and_tried_again(words: list[str], tmp_path: Path) -> None:
    """The axis fails as long as a file is missing: a failure is recorded, never kept as a result."""
    remedy = tmp_path / "remedy"
    axis = tmp_path / "fragile.py"
    axis.write_text(
        "from pathlib import Path\nfrom bench.axis import Axis\n\n\n"
        "class Fragile(Axis):\n    name = 'fragile'\n    slot = 'box_loss'\n\n"
        "    def apply(self, spec, prepared):\n"
        f"        if not Path({str(remedy)!r}).exists():\n            raise RuntimeError('the remedy is missing')\n"
        "        return spec\n"
    )
    words += ["--axes", "fragile", "--axis-file", str(axis)]
    assert run_all.main(words) == 1
    run = tmp_path / "run"
    found = records(run)
    assert found["fragile"]["status"] == "failed"
    assert "the remedy is missing" in found["fragile"]["failure"]["cause"]
    table = pd.read_csv(run / "tables/ablation.csv").set_index("variant")
    assert dict(table["status"]) == {"baseline": "done", "fragile": "failed"}
    assert dict(table["AP"].isna()) == {"baseline": False, "fragile": True}

    remedy.touch()
    baseline = (run / "cells" / found["baseline"]["id"] / "record.json").stat().st_mtime_ns
    assert run_all.main(words) == 0
    assert records(run)["fragile"]["status"] == "done"
    assert (run / "cells" / found["baseline"]["id"] / "record.json").stat().st_mtime_ns == baseline


def test_killed_in_the_middle_of_a_cell_it_goes_on_to_the_same_table(words: list[str], tmp_path: Path) -> None:
    words += ["--axes", "unfreezing"]
    words[words.index("--steps") + 1] = "60"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_all.main([*words, "--out", str(whole)]) == 0

    started = _start([*words, "--out", str(broken)])
    _wait_for(lambda: any(json.loads(line).get("step", 0) >= 31 for line in _log_lines(broken)))
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    assert len(list(broken.glob("cells/*/record.json"))) < 2
    assert list(broken.glob("cells/*/checkpoint.pt"))

    assert run_all.main([*words, "--out", str(broken)]) == 0
    resumed = [json.loads(line)["resumed_from"] for line in _log_lines(broken) if '"resumed_from"' in line]
    assert max(resumed) >= 30
    pd.testing.assert_frame_equal(without_clocks(broken), without_clocks(whole), check_exact=True)
    for path in whole.glob("cells/*/detections.json"):
        assert (broken / path.relative_to(whole)).read_bytes() == path.read_bytes()


def test_no_images_takes_out_what_was_kept(words: list[str], tmp_path: Path) -> None:
    assert run_all.main([*words, "--axes", "none"]) == 0
    run = tmp_path / "run"
    assert "data:image/jpeg" in (run / "report.html").read_text(encoding="utf-8")
    assert run_all.main([*words, "--axes", "none", "--no-images"]) == 0
    assert not list(run.glob("thumbnails/*"))
    assert "data:image/jpeg" not in (run / "report.html").read_text(encoding="utf-8")


def test_an_interrupt_stops_cleanly_and_says_how_to_go_on(words: list[str], tmp_path: Path) -> None:
    words[words.index("--steps") + 1] = "5000"
    started = _start([*words, "--axes", "none"])
    _wait_for(lambda: any('"step"' in line for line in _log_lines(tmp_path / "run")))
    os.kill(started.pid, signal.SIGINT)
    for _ in range(20):  # a batch system repeats itself
        time.sleep(0.05)
        if started.poll() is None:
            os.kill(started.pid, signal.SIGTERM)
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 130
    assert "go on with: python run_all.py" in errors
    assert "Traceback" not in errors


def test_the_plan_is_shown_and_nothing_runs(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main([*words, "--plan", "--controls", "lateral-only,half-data,double-steps"]) == 0
    printed = capsys.readouterr().out
    for name in (*VARIANTS, "lateral-only", "half-data", "double-steps"):
        assert name in printed
    assert not (tmp_path / "run").exists()


def test_controls_are_rows_beside_the_matrix(words: list[str], tmp_path: Path) -> None:
    assert run_all.main([*words, "--axes", "none", "--controls", "lateral-only,half-data,double-steps"]) == 0
    found = records(tmp_path / "run")
    assert found["lateral-only"]["detector"]["neck"]["kind"] == "lateral-only"
    assert found["double-steps"]["cost"]["steps"] == 2 * found["baseline"]["cost"]["steps"]
    assert found["half-data"]["fingerprints"]["train"] != found["baseline"]["fingerprints"]["train"]
    assert found["half-data"]["cost"]["steps"] == found["baseline"]["cost"]["steps"]


def test_predictions_are_drawn(words: list[str], photographs: Path, tmp_path: Path) -> None:
    assert run_all.main([*words, "--axes", "none"]) == 0
    image = photographs / "JPEGImages/7.jpg"
    assert run_all.main(["predict", str(tmp_path / "run"), str(image), "--threshold", "0"]) == 0
    drawn = tmp_path / "run/predictions/7.baseline.png"
    assert Image.open(drawn).size == (96, 80)


def test_the_error_types_that_a_cell_keeps_are_those_of_its_boxes(words: list[str], tmp_path: Path) -> None:
    assert run_all.main([*words, "--axes", "none"]) == 0
    run = load_run(tmp_path / "run")
    kept = errors_frame(run, counted_cells(run))
    (path,) = run.folder.glob("cells/*/error_types.npz")
    path.unlink()
    pd.testing.assert_frame_equal(errors_frame(run, counted_cells(run)), kept)
    whole = kept[kept["scope"] == "all"].set_index("kind")
    # What no localisation or classification error is about, and what one is about, was not found.
    assert 0 <= whole["count"]["missed"] <= whole["count"]["false negatives"] <= whole["ground_truths"]["missed"]
    assert whole["dAP50"].notna().all()


def test_the_report_is_rebuilt_without_torch(words: list[str], tmp_path: Path) -> None:
    assert run_all.main([*words, "--axes", "none"]) == 0
    table = tmp_path / "run/tables/ablation.csv"
    before = table.read_bytes()
    table.unlink()
    code = (
        "import sys, run_all; status = run_all.main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(status)"
    )
    subprocess.run([sys.executable, "-c", code, "report", str(tmp_path / "run")], check=True, cwd=REPOSITORY)
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--axes", "fnp"], "did you mean fpn?"),
        (["--controls", "half-date"], "did you mean half-data?"),
        (["--profil", "smoke"], "did you mean --profile?"),
        (["--profile", "fast"], "invalid choice: 'fast'"),
        (["--seeds", "0"], "not above 0"),
        (["--lr", "nan"], "not above 0"),
        (["--val-fraction", "1.5"], "not between 0 and 1"),
        (["--backend", "slurm"], "loky, dask, ray"),
        (["--weights", "nowhere.pth"], "no such file"),
        (["--weights", "none"], "'unfreezing' cannot be part of this run"),
        (["--priors", "nowhere.json"], "no such file"),
        (["--axis-file", "nowhere.py"], "no such file"),
        (["--data", "voc:nowhere"], "nowhere"),
        (["--backbone", "efficientnet_lite9"], "neither efficientnet_lite0 nor vgg16 nor a timm network"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--eval-list", "holdout"], "holdout"),
    ],
)
def test_a_wrong_request_is_told_in_words(
    words: list[str], extra: Sequence[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main([*words, *extra]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words[words.index("--device") + 1] = "cuda"
    assert run_all.main(words) == 2
    assert "--device cpu" in capsys.readouterr().err


def test_options_come_from_a_file_and_the_command_line_wins(words: list[str], tmp_path: Path) -> None:
    config = tmp_path / "options.toml"
    config.write_text('axes = "none"\nsteps = 3\nseeds = 1\nskip_invalid = false\n')
    assert run_all.main([*words, "--config", str(config), "--steps", "2"]) == 0
    assert records(tmp_path / "run")["baseline"]["cost"]["steps"] == 2


def test_preflight_lists_every_problem(photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    whole = (photographs / "JPEGImages/1.jpg").read_bytes()
    (tmp_path / "JPEGImages/cut.jpg").write_bytes(whole[: len(whole) // 2])
    for name in ("cut", "gone"):
        text = (photographs / "Annotations/1.xml").read_text()
        (tmp_path / f"Annotations/{name}.xml").write_text(text)
    words = ["preflight", "--data", f"voc:{tmp_path}", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "o")]
    assert run_all.main(words) == 2
    problems = json.loads((tmp_path / "o/preflight.json").read_text())["problems"]
    assert {"cut", "gone"} <= {Path(problem["where"].split(",")[0]).stem for problem in problems}
    assert "cut.jpg" in capsys.readouterr().err


def test_preflight_draws_contact_sheets_of_any_source(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheets"
    words = ["preflight", "--sheet", "--data", f"voc:{photographs}", "--cache", str(tmp_path / "c"), "--out", str(out)]
    assert run_all.main(words) == 0
    assert {path.name for path in out.iterdir()} == {"preflight.json", "sheet-images.png", "sheet-training.png"}
    with Image.open(out / "sheet-images.png") as images, Image.open(out / "sheet-training.png") as views:
        assert images.height < views.height  # ten images; twenty views of the six that are trained on
        # The objects' yellow
        red, _, blue = np.asarray(images).astype(int).reshape(-1, 3).T
        assert ((red > 150) & (blue < 80)).sum() > 10_000


def test_every_cell_says_what_its_priors_match_and_its_file_reads_back(words: list[str], tmp_path: Path) -> None:
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

    # A run that starts from the exported file has the very same priors
    exported = run / "cells" / found["anchors"]["id"] / "priors.json"
    words[words.index("--out") + 1] = str(tmp_path / "second")
    assert run_all.main([*words, "--axes", "none", "--priors", str(exported)]) == 0
    again = records(tmp_path / "second")["baseline"]
    assert again["fingerprints"]["priors"] == found["anchors"]["fingerprints"]["priors"]
    assert again["detector"]["priors"] == found["anchors"]["detector"]["priors"]
    assert (run / "plots/priors_over_ground_truths.svg").stat().st_size > 10_000


def test_nothing_outside_the_named_folders_is_written(words: list[str], tmp_path: Path) -> None:
    """A home of its own, emptied: what a run leaves there it was not told to."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    for name in ("MPLCONFIGDIR", "TORCH_HOME", "HF_HOME"):
        environment.pop(name, None)
    command = [sys.executable, str(REPOSITORY / "run_all.py"), *words, "--axes", "none"]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, capture_output=True)
    assert [path for path in home.rglob("*") if path.is_file()] == []


def _start(words: Sequence[str]) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    command = [sys.executable, str(REPOSITORY / "run_all.py"), *words]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _log_lines(run: Path) -> list[str]:
    return [line for path in run.glob("cells/*/log.jsonl") for line in path.read_text().splitlines()]


def _wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
