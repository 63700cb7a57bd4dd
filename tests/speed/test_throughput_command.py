"""``throughput``: the files that it writes, and the requests that it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

import run_all
from bench.detector.ssd import SSD
from bench.options import BaselineOptions
from bench.run.specification import base_specification
from bench.spec import Numerics, Specification
from bench.speed.measurements import chosen_precisions, suppress_detections
from bench.speed.memory import measure_memory
from bench.speed.miniature_cell import STEPS
from bench.speed.stages import STAGES
from tests.tiny import specification, weights_file

FORMS = {
    f"{name}.{ending}" for name in ("throughput", "training_steps", "environment") for ending in ("csv", "md", "tex")
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder of six pictures with a square each; every class has two."""
    root = tmp_path_factory.mktemp("coco")
    (root / "images").mkdir()
    for number in range(6):
        picture = Image.new("RGB", (96, 80), (30, 60, 90))
        picture.paste((240, 200, 20), (5 * number, 10, 5 * number + 30, 40))
        picture.save(root / f"images/{number}.jpg")
    content = {
        "images": [{"id": n + 1, "file_name": f"{n}.jpg", "width": 96, "height": 80} for n in range(6)],
        "annotations": [
            {
                "id": n + 1,
                "image_id": n + 1,
                "category_id": 1 + n % 2,
                "bbox": [5 * n, 10, 30, 30],
                "area": 900,
                "iscrowd": 0,
            }
            for n in range(6)
        ],
        "categories": [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}],
    }
    (root / "annotations.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def words(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("bench.speed.measurements.HEADS_BATCH", 2)  # torchvision is slow with 91 classes
    # No worker processes, and no threads beside those of the other tests
    for module in ("bench.run.data", "bench.run.commands.throughput"):
        monkeypatch.setattr(f"{module}.available_cores", lambda: 1)
    weights = weights_file(tmp_path / "tiny.pth")
    return [
        *("--data", f"coco:{photographs}", "--backbone", "test_efficientnet", "--weights", str(weights)),
        *("--device", "cpu", "--cache", str(tmp_path / "cache")),
    ]


def speed_only(words: list[str], out: Path) -> list[str]:
    return [
        "throughput",
        *words,
        "--batch",
        "2",
        "--batches",
        "1,2",
        "--seconds",
        "0.01",
        "--precision",
        "float32",
        "--out",
        str(out),
    ]


def written(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "throughput.json").read_text())
    return content


def test_stages_and_steps_are_measured_and_written(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "speed"
    assert run_all.main([*speed_only(words, out), "--compare", "torchvision"]) == 0
    content = written(out)
    assert {path.name for path in (out / "tables").iterdir()} > FORMS
    stages = pd.read_csv(out / "tables/throughput.csv")
    assert set(zip(stages["stage"], stages["batch"], strict=True)) == {(s, b) for s in STAGES for b in (1, 2)}
    assert (stages["samples"] >= 5).all()
    boxes = stages[stages["stage"] == "tensors to final boxes"]
    assert (boxes["peak_memory_MiB"] > boxes["idle_memory_MiB"]).all()
    speed = content["speed"]["float32"]
    assert speed["images_per_second"] == boxes["images_per_second"].max()
    assert speed["latency_p99_ms"] == boxes.set_index("batch")["p99_ms"][1]
    steps = pd.read_csv(out / "tables/training_steps.csv")
    assert list(zip(steps["schedule"], steps["share"], strict=True)) == [
        (name, share) for name in ("baseline", "unfreezing") for share in (0.0, 0.2, 0.4)
    ]
    comparison = pd.read_csv(out / "tables/comparison.csv")
    assert set(comparison["contender"]) == {"as shipped", "in our process", "at its best", "ours"}
    assert set(comparison[comparison["task"] == "inference"]["batch"]) == {1, 2}
    assert set(comparison[comparison["task"] == "post-processing"]["classes"]) == {3, 21, 91}
    preparation = pd.read_csv(out / "tables/preparation.csv")
    assert list(preparation["contender"]) == ["torchvision.transforms.v2", "ours, decoding", "ours, decoded once"]
    assert (preparation["p50_ms"] > 0).all()
    cells = pd.read_csv(out / "tables/cells.csv")
    assert list(cells["contender"]) == ["as shipped", "in our process", "at its best", "ours"]
    assert cells["times_as_fast"].iloc[0] == 1.0
    for table in (comparison, preparation, cells):
        assert (table["rounds"] >= 5).all()
        assert (table["times_as_fast_low"] <= table["times_as_fast"]).all()
        assert (table["times_as_fast"] <= table["times_as_fast_high"]).all()
    assert (cells["steps"] == STEPS).all()
    assert (cells["scored_images"] == content["images"]).all()  # fewer than the limit
    assert content["numerics"]["threads"] == content["environment"]["device"]["threads"]
    assert content["environment"]["packages"]["torch"]
    printed = capsys.readouterr().out
    assert "untrained" in printed
    assert re.search(r"\d \([\d.]+ to [\d.]+, n = \d+\)", printed)
    for stage in STAGES:
        assert stage in printed


@pytest.mark.usefixtures("undrawn")
def test_trained_weights_of_a_run(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, split, weights and frozen parts are those of the run, whose files are not touched."""
    run, out = tmp_path / "run", tmp_path / "speed"
    training = ["--profile", "smoke", "--steps", "2", "--batch", "2", "--axes", "none", "--out", str(run)]
    assert run_all.main([*words, *training]) == 0
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    backbones = []

    def recording(options: BaselineOptions, source: str, **rest: Any) -> Specification:
        backbones.append(options.backbone)
        return base_specification(options, source, **rest)

    monkeypatch.setattr("bench.run.commands.throughput.base_specification", recording)
    # The command line's last word on an option counts: one batch size is enough here
    assert (
        run_all.main([*speed_only(words[6:], out), "--run", str(run), "--variant", "baseline", "--batches", "1"]) == 0
    )
    content = written(out)
    assert (content["variant"], content["trained"]) == ("baseline", True)
    record = json.loads(next(run.glob("cells/*/record.json")).read_text())
    assert content["cost"]["parameters_M"] == record["cost"]["parameters_M"]
    assert content["cost"]["forward_GFLOP"] == record["cost"]["forward_GFLOP"]
    assert content["backbone"] == "test_efficientnet"
    assert backbones == ["test_efficientnet"]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--variant", "fpn"], "--run"),
        (["--run", "nowhere"], "no plan.json"),
        (["--batches", "1,none"], "not a whole number"),
        (["--batches", "0"], "not above 0"),
        (["--precision", "float16"], "invalid choice"),
        (["--compare", "keras"], "invalid choice"),
        (["--bathces", "1"], "did you mean --batches?"),
        (["--priors", "nowhere.json"], "no such file"),
    ],
)
def test_a_wrong_request_exits_with_a_message(
    words: list[str], extra: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main([*speed_only(words, tmp_path / "speed"), *extra]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "speed").exists()


def test_precisions_are_the_requested_ones_or_those_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, expected in ((True, ["float32", "bfloat16"]), (False, ["float32"])):
        monkeypatch.setattr("bench.speed.measurements.computes_bfloat16", lambda device, has=has: has)
        assert chosen_precisions(None, "cpu") == expected
        assert chosen_precisions("both", "cpu") == ["float32", "bfloat16"]
        assert chosen_precisions("bfloat16", "cpu") == ["bfloat16"]


def test_suppress_detections_silences_an_untrained_detector() -> None:
    """With two classes every prior would be a candidate otherwise."""
    model = SSD(specification().detector, seed=0).eval()
    images = torch.randint(0, 256, (1, 3, 300, 300), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert len(model.detect(images).scores) == model.spec.detections_per_image
        suppress_detections(model)
        assert len(model.detect(images).scores) == 0


def test_memory_is_that_of_a_fresh_process() -> None:
    """The memory of the parent does not count, and more images need more."""
    held = torch.ones(2**28)  # 1 GiB
    model = SSD(specification().detector, seed=0).eval()
    numerics = Numerics(device="cpu", precision="float32", threads=1)
    images = torch.zeros(1, 3, 300, 300, dtype=torch.uint8).expand(16, -1, -1, -1)
    one, many = measure_memory(model, images, numerics=[numerics], batches=(1, 16))
    assert one["peak_memory_MiB"] < many["peak_memory_MiB"]
    assert one["idle_memory_MiB"] <= one["peak_memory_MiB"] < held.numel() * 4 / 2**20 + one["idle_memory_MiB"] / 2
