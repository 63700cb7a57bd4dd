"""Runs that an older version of this program made, with other names for their numerics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import run_all
from bench.spec import detector_from
from bench.storage.run_folder import GROUND_TRUTH, PLAN, RECORD, WEIGHTS, cell_folder
from tests.conftest import REPOSITORY
from tests.dataset_builders import CLASSES, picture
from tests.small_runs import request_words

REFERENCE = REPOSITORY / "results/reference/scenes-quick-epyc-avx512-bf16-2-cores-2026-11-25"
OLDER = Path(__file__).with_name("older_run.json")  # plan, record of the cell `fpn`, names and shapes of its weights

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def older(tiny_weights: Path, tmp_path: Path) -> Path:
    """A run of commit d576c4d on the tiny network; random numbers stand in for the trained weights."""
    content: dict[str, Any] = json.loads(OLDER.read_text())
    run, record = tmp_path / "run", content["record"]
    record["detector"]["weights"] = str(tiny_weights)
    folder = cell_folder(run, record["id"])
    folder.mkdir(parents=True)
    (run / PLAN).write_text(json.dumps(content["plan"]))
    categories = [{"id": number, "name": name} for number, name in enumerate(sorted(CLASSES), 1)]
    (run / GROUND_TRUTH).write_text(json.dumps({"categories": categories}))
    (folder / RECORD).write_text(json.dumps(record))
    generator = torch.Generator().manual_seed(0)
    model = {
        name: 0.01 * torch.randn(shape, generator=generator)
        if dtype == "torch.float32"
        else torch.zeros(shape, dtype=torch.int64)
        for name, (dtype, shape) in content["weights"].items()
    }
    torch.save({"priors": record["fingerprints"]["priors"], "model": model}, folder / WEIGHTS)
    return run


def test_the_fixture_is_of_the_older_version(older: Path) -> None:
    plan = json.loads((older / PLAN).read_text())
    assert {"pieces", "compiled"} <= plan["numerics"].keys()
    assert json.loads((REFERENCE / PLAN).read_text())["numerics"].keys() == plan["numerics"].keys()


def test_report_rebuilds_the_same_figures(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(REFERENCE, run)
    names = ("ablation.csv", "effects.csv")
    for name in names:
        (run / "tables" / name).unlink()
    assert run_all.main(["report", str(run)]) == 0
    for name in names:
        rebuilt, expected = (pd.read_csv(folder / "tables" / name) for folder in (run, REFERENCE))
        pd.testing.assert_frame_equal(rebuilt, expected, rtol=1e-9)


def test_predict_loads_the_weights(older: Path, tmp_path: Path) -> None:
    picture(3).save(tmp_path / "3.jpg")
    words = ["predict", str(older), str(tmp_path / "3.jpg"), "--variant", "fpn", "--out", str(tmp_path / "drawn")]
    assert run_all.main(words) == 0
    assert (tmp_path / "drawn/3.fpn.png").is_file()
    record = next(older.glob("cells/*/record.json"))
    assert detector_from(json.loads(record.read_text())["detector"]).neck is not None


def test_resuming_is_refused_with_one_sentence(
    older: Path, pictures: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in older.rglob("*") if path.is_file()}
    words = [*request_words(pictures, tiny_weights, tmp_path), "--axes", "fpn", "--no-images"]
    assert words[words.index("--out") + 1] == str(older)
    assert run_all.main(words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {older} was begun by another version of this program")
    assert "--out" in printed
    assert "Traceback" not in printed
    assert {path: path.read_bytes() for path in older.rglob("*") if path.is_file()} == before
