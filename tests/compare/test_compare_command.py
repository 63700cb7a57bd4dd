"""`run_all.py compare` from the command line to its files, and against a run with the same detections."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import run_all
from bench.analysis.effects import THESE_MODELS, effects_frame
from bench.analysis.run_records import load_run
from bench.analysis.samples import samples_of
from bench.data import split as splits
from bench.data.dataset import Dataset, open_dataset
from bench.evaluation.coco import evaluate
from tests.compare.made_detections import coco_folder, detector, written
from tests.conftest import REPOSITORY
from tests.report.made_run import matrix, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data`` and the detections ``good.json`` and ``bad.json`` on its validation images."""
    root = tmp_path_factory.mktemp("compare")
    data = opened(coco_folder(root / "data"))
    for name, noise, seed in (("good", 0.02, 1), ("bad", 0.15, 2)):
        written(root / f"{name}.json", detector(data.val, noise, seed=seed), data.val)
    return root


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plots, which take longer than the rest."""
    monkeypatch.setattr("bench.run.commands.compare.write_plots", lambda comparison, folder: [])


def opened(data: Path) -> Dataset:
    return open_dataset(f"coco:{data}", cache=data.parent / "cache", workers=1)


def words(folder: Path, out: Path, *files: str) -> list[str]:
    """A request for files of `folder`, by name."""
    paths = [str(folder / f"{name}.json") for name in files]
    source = ["--data", f"coco:{folder / 'data'}", "--cache", str(folder / "cache")]
    return ["compare", *paths, *source, "--out", str(out)]


def test_a_comparison_writes_tables_plots_and_a_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main(words(folder, tmp_path / "out", "good", "bad")) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "comparing on 16 images: validation split (the data's own lists train and val)" in printed
    assert "bad is worse than good: AP " in printed
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert [each["name"] for each in content["detectors"]] == ["good", "bad"]
    [row] = [each for each in content["differences"] if each["measure"] == "AP" and each["class"] == ""]
    assert row["verdict"] == "lower" and row["high"] < 0
    tables = {path.stem for path in (tmp_path / "out/tables").glob("*.md")}
    assert tables == {"detectors", "differences", "per_class", "errors", "thresholds"}
    assert {path.stem for path in (tmp_path / "out/tables").glob("*.csv")} == tables
    frame = pd.read_csv(tmp_path / "out/tables/detectors.csv")
    assert frame["AP"].tolist() == [each["accuracy"]["AP"] for each in content["detectors"]]
    page = (tmp_path / "out/report.html").read_text()
    plots = sorted(path.stem for path in (tmp_path / "out/plots").glob("*.png"))
    assert len(plots) == 10 and page.count("<figure><img") == 10
    assert "bad is worse than good" in re.sub(r"<[^>]+>", "", page)
    assert not re.search("https?:", re.sub(r"data:[^\"]+", "", page))
    # Values in the verdict lead to their cells
    targets = re.findall(r'<a href="#([^"]+)" title=', page)
    ids = set(re.findall(r'id="([^"]+)"', page))
    assert any(target.startswith("differences/AP") for target in targets)
    assert {target.replace("%2C", ",") for target in targets} <= ids


@pytest.mark.usefixtures("unpainted")
def test_a_comparison_equals_the_effects_of_a_run_with_the_same_detections(folder: Path, tmp_path: Path) -> None:
    data = opened(folder / "data")
    run_folder = write_run(tmp_path / "run", factors=matrix(("fpn", "anchors")))
    splits.save(data.split, data.index, run_folder / "split.json")
    run = load_run(run_folder)
    named = []
    for place, cell in enumerate(run.cells):
        found = detector(data.val, 0.05 + 0.03 * place, seed=place)
        evaluation = evaluate(data.val, found)
        evaluation.matches.save(run.folder_of(cell.id) / "matches.npz")
        record = run.folder_of(cell.id) / "record.json"
        record.write_text(json.dumps({**run.records[cell.id], "accuracy": evaluation.accuracy}))
        path = written(run.folder_of(cell.id) / "detections.json", found, data.val)
        named.append(f"{cell.variant}={path}")
    request = words(folder, tmp_path / "out")
    assert run_all.main([request[0], *named, *request[1:]]) == 0

    run = load_run(run_folder)
    effects = {
        (row["contrast"], row["measure"], row["class"]): row
        for _, row in effects_frame(run, samples_of(run)).iterrows()
    }
    rows = json.loads((tmp_path / "out/comparison.json").read_text())["differences"]
    assert {row["measure"] for row in rows} >= {"AP", "AP50", "AP75", "AP_medium", "AP_large"}
    assert {row["class"] for row in rows} == {"", "class 0", "class 1"}
    for row in rows:
        effect = effects[f"{row['detector']} vs baseline", row["measure"], row["class"]]
        for name, theirs in (("difference", "effect"), ("low", "low"), ("high", "high"), ("p", "p")):
            ours = math.nan if row[name] is None else row[name]
            assert ours == pytest.approx(effect[theirs], abs=1e-12, nan_ok=True), (row, name)
        if row["measure"] == "AP" and not row["class"]:  # p values of the others are adjusted for more effects in a run
            assert row["p_adjusted"] == effect["p_adjusted"] and row["adjusted_by"] == "max-T"
            assert row["verdict"] == effect["verdict"].removeprefix(THESE_MODELS)


@pytest.mark.usefixtures("unpainted")
def test_json_alone_is_on_the_standard_output(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main([*words(folder, tmp_path / "out", "bad", "good"), "--json", "--fail-below", "1"]) == 0
    printed = capsys.readouterr()
    content: dict[str, Any] = json.loads(printed.out)
    assert content == json.loads((tmp_path / "out/comparison.json").read_text())
    assert content["verdict"][0].startswith("On data (16 images) good is better than bad: AP ")
    assert "comparing on 16 images" in printed.err


@pytest.mark.usefixtures("unpainted")
def test_a_clearly_worse_detector_ends_with_status_3(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = words(folder, tmp_path / "out", "good", "bad")
    assert run_all.main([*request, "--fail-below", "1"]) == 3
    assert "bad is clearly more than 1 point below good" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "out/report.html").exists()
    assert run_all.main([*request, "--fail-below", "90"]) == 0


@pytest.mark.usefixtures("unpainted")
def test_without_an_interval_nothing_is_decided(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Four training images
    data = opened(folder / "data")
    for name, noise in (("one", 0.02), ("other", 0.15)):
        written(tmp_path / f"{name}.json", detector(data.train, noise, seed=1), data.train)
    named = [str(tmp_path / f"{name}.json") for name in ("one", "other")]
    request = words(folder, tmp_path / "out")
    assert run_all.main([request[0], *named, *request[1:], "--eval-list", "train", "--fail-below", "1"]) == 2
    printed = capsys.readouterr()
    assert "cannot be decided for other" in printed.err
    assert "nothing can be claimed of other and one" in " ".join(printed.out.split())


def test_wrong_requests_and_files_exit_with_2(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = json.loads((folder / "good.json").read_text())
    truth = json.loads((folder / "data/annotations/instances_val.json").read_text())
    wrong = {
        "unknown_image": ([*good, good[0] | {"image_id": 10**6}], "1 unknown image_id (1000000)"),
        "unknown_class": ([*good, good[0] | {"category_id": 9}], "unknown category_id 9"),
        "truth": (truth, "not a file of detections but one object with info, licenses, images"),
        "endless": ([*good, good[0] | {"score": math.inf}], "each score one"),
        "empty": (None, "is empty"),
    }
    for name, (content, says) in wrong.items():
        (tmp_path / f"{name}.json").write_text("" if content is None else json.dumps(content))
        request = words(folder, tmp_path / "out", "good")
        assert run_all.main([*request[:2], str(tmp_path / f"{name}.json"), *request[2:]]) == 2
        printed = capsys.readouterr().err
        assert says in printed and f"{name}.json" in printed and len(printed.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_detection_file_is_named_by_its_stem_or_as_given(tmp_path: Path) -> None:
    from bench.compare.files import detection_files  # noqa: PLC0415
    from bench.errors import UserError  # noqa: PLC0415

    for name in ("a", "b"):
        (tmp_path / f"lr=1/{name}").mkdir(parents=True)
        (tmp_path / f"lr=1/{name}/found.json").touch()
    one, other = (str(tmp_path / f"lr=1/{name}/found.json") for name in ("a", "b"))
    assert [file.name for file in detection_files([one, f"my net={other}"])] == ["found", "my net"]
    for given, says in (
        ([one], "at least two files"),
        ([one, other], "have the same name 'found'.*first=.*second="),
        ([one, f"={other}"], "no name"),
        ([one, "x=nowhere.json"], "nowhere.json: no such file"),
        ([one, str(tmp_path)], "no such file"),
    ):
        with pytest.raises(UserError, match=says):
            detection_files(given)


@pytest.mark.usefixtures("unpainted")
def test_all_images_can_be_evaluated(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = opened(folder / "data").index
    named = [
        str(written(tmp_path / f"{name}.json", detector(index, noise, seed=1), index))
        for name, noise in (("one", 0.05), ("other", 0.06))
    ]
    request = words(folder, tmp_path / "out")
    request = [request[0], *named, *request[1:]]
    assert run_all.main([*request, "--all-images"]) == 0
    assert "comparing on 20 images: all images" in capsys.readouterr().out
    assert run_all.main(request) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "on other images left out (--all-images evaluates all)" in printed
    assert run_all.main([*request, "--all-images", "--eval-list", "val"]) == 2


def test_comparing_needs_no_torch() -> None:
    code = "import sys, bench.run.commands.compare; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
