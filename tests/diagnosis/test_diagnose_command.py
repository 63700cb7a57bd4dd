"""`run_all.py diagnose` from the command line to its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models.detection import ssd300_vgg16

import run_all
from bench.diagnosis import matchable
from bench.report.tables.diagnosis import diagnosis_tables, write_markdown
from bench.report.terminal.diagnosis import print_diagnosis
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOC folder of ten pictures with a square of 3 pixels and a bar of 60 x 30 each; six are for training."""
    root = tmp_path_factory.mktemp("voc")
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number in range(10):
        picture = Image.new("RGB", (96, 80), (20 * number, 60, 250 - 20 * number))
        objects = ""
        for name, (left, top, wide, high) in {"dot": (5, 5, 3, 3), "bar": (10 + number, 20, 60, 30)}.items():
            picture.paste((240, 200 - 15 * number, 20), (left, top, left + wide, top + high))
            objects += (
                f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
                f"<xmax>{left + wide}</xmax><ymax>{top + high}</ymax></bndbox></object>"
            )
        picture.save(root / f"JPEGImages/{number}.png")
        (root / f"Annotations/{number}.xml").write_text(
            f"<annotation><filename>{number}.png</filename><size><width>96</width><height>80</height>"
            f"<depth>3</depth></size>{objects}</annotation>"
        )
    (root / "ImageSets/Main/train.txt").write_text("\n".join(map(str, range(6))))
    (root / "ImageSets/Main/val.txt").write_text("\n".join(map(str, range(6, 10))))
    return root


@pytest.fixture(scope="module")
def diagnosed(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a diagnosis with perfect detections of the bars."""
    folder = tmp_path_factory.mktemp("diagnosis")
    detections = [
        {"image_id": f"{number}.png", "category_id": 1, "bbox": [10 + number, 20, 60, 30], "score": 0.9}
        for number in range(10)
    ]
    (folder / "found.json").write_text(json.dumps(detections))
    words = ["diagnose", "--data", f"voc:{photographs}", "--cache", str(folder / "cache"), "--out", str(folder / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matchable, "VIEWS", 100)  # for the seconds
        assert run_all.main([*words, "--detections", str(folder / "found.json")]) == 0
    return folder / "out"


def test_the_json_describes_the_data_and_plots_are_written(diagnosed: Path) -> None:
    content = json.loads((diagnosed / "diagnosis.json").read_text())
    assert content["sides"]["train"] == {"images": 6, "boxes": 12, "crowds": 0}
    assert content["sizes"]["val"]["network"]["under 16"] == 4
    assert content["matchable"]["given"]["val"]["by_class"]["dot"]["matched"] == 0
    [tiny] = [each for each in content["findings"] if each["kind"] == "tiny-objects"]
    assert tiny["severity"] == "serious" and tiny["sentence"].startswith("50.0% of your 20 objects are under 16")
    assert {path.name for path in (diagnosed / "plots").iterdir()} == {
        f"object_{name}.{ending}" for name in ("sizes", "shapes") for ending in ("png", "svg")
    }


def test_detections_of_any_detector_are_scored_by_class_and_size(diagnosed: Path) -> None:
    scored = json.loads((diagnosed / "diagnosis.json").read_text())["detections"]
    assert (scored["detections"], scored["elsewhere"]) == (4, 6)
    per_class = scored["accuracy"]["per_class"]
    assert (per_class["bar"]["AP"], per_class["dot"]["AP"], scored["accuracy"]["AP"]) == (1, 0, 0.5)
    assert scored["accuracy"]["AR_small"] == 0


def test_terminal_and_page_show_all_findings_uncut(
    diagnosed: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from rich.console import Console  # noqa: PLC0415

    content = json.loads((diagnosed / "diagnosis.json").read_text())
    print_diagnosis(content, Console(width=100))
    printed = capsys.readouterr().out
    assert "…" not in printed
    flat = " ".join(printed.split())
    page = (diagnosed / "diagnosis.md").read_text()
    for each in content["findings"]:
        assert " ".join(each["sentence"].split()) in flat
        assert each["sentence"].split(":")[0].split("(")[0].strip() in page.replace("\\", "")
    names = [table.name for table in diagnosis_tables(content)]
    assert names == [
        "sizes",
        "matchable",
        "classes",
        "suspects",
        "scores",
        "recall_by_size",
        "scored_errors",
        "scored_classes",
    ]
    write_markdown(content | {"findings": []}, tmp_path / "none.md")
    assert "6 training and 4 validation images" in (tmp_path / "none.md").read_text()


def test_the_terminal_reports_the_absence_of_findings(diagnosed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console  # noqa: PLC0415

    content = json.loads((diagnosed / "diagnosis.json").read_text()) | {"findings": [], "detections": None}
    print_diagnosis(content, Console(width=100))
    assert "nothing that would explain a low mAP" in capsys.readouterr().out


def test_wrong_requests_exit_with_2_and_no_traceback(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["diagnose", "--data", f"voc:{photographs}", "--cache", str(tmp_path), "--out", str(tmp_path / "out")]
    for wrong, says in (
        (["--detections", str(tmp_path / "none.json")], "none.json"),
        (["--priors", str(tmp_path / "none.json")], "--priors"),
        (["--eval-list", "holdout"], "holdout"),
        (["--detection", "x"], "did you mean --detections?"),
    ):
        assert run_all.main([*words, *wrong]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "out/diagnosis.json").exists()


def test_the_report_of_a_diagnosis_needs_no_torch() -> None:
    code = "import sys, bench.report.terminal.diagnosis, bench.report.plots.diagnosis; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_checkpoint_of_torchvisions_ssd_is_scored(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(matchable, "VIEWS", 20)
    torch.manual_seed(0)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=3)
    torch.save(theirs.state_dict(), tmp_path / "ssd.pth")
    torch.save(theirs.backbone.features.state_dict(), tmp_path / "features.pth")
    words = [
        "diagnose",
        "--data",
        f"voc:{photographs}",
        "--cache",
        str(tmp_path / "cache"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert run_all.main([*words, "--weights", str(tmp_path / "ssd.pth")]) == 0
    assert "ssd.pth knows 2 of 2 classes" in " ".join(capsys.readouterr().out.split())
    scored = json.loads((tmp_path / "out/diagnosis.json").read_text())["detections"]
    assert scored["file"] == "detections.json"
    assert scored["detections"] == len(json.loads((tmp_path / "out/detections.json").read_text())) > 0

    for given, says in (
        (["--weights", str(tmp_path / "features.pth")], "A backbone alone cannot detect objects"),
        (["--weights", str(tmp_path / "ssd.pth"), "--detections", "a.json"], "give only one of them"),
    ):
        assert run_all.main([*words, *given]) == 2
        assert says in capsys.readouterr().err
