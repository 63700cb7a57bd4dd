"""If one arm runs out of memory, all arms restart with gradient accumulation; the batch size stays."""

from __future__ import annotations

from pathlib import Path

import pytest

import run_all
from bench.storage.records import read_json

pytestmark = pytest.mark.usefixtures("undrawn")

# With this axis, memory holds this many images.
HUNGRY = """
import torch
from bench.axis import Axis
from bench.detector.ssd import SSD

whole = SSD.loss


def loss(model, images, targets, divisor=None):
    if len(images) > {largest}:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return whole(model, images, targets, divisor)


class Hungry(Axis):
    name = "hungry"
    slot = "box_loss"

    def apply(self, spec, prepared):
        SSD.loss = loss
        return spec
"""


def asked(words: list[str], folder: Path, *, largest: int) -> list[str]:
    """The request with the hungry axis, four images a step."""
    path = folder / "hungry.py"
    path.write_text(HUNGRY.format(largest=largest))
    words[words.index("--axes") + 1] = "hungry"
    words[words.index("--batch") + 1] = "4"
    return [*words, "--axis-file", str(path)]


def test_all_arms_restart_with_gradient_accumulation(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = asked(words, tmp_path, largest=1)
    assert run_all.main(request) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "hungry, seed 0: out of memory at step 1 of 4, with 4 images at once; all cells restart" in printed
    assert "with 4 images in 2 micro-batches; all cells restart with 4 micro-batches per step" in printed
    plan = read_json(tmp_path / "run/plan.json")
    assert plan["numerics"]["micro_batches"] == 4
    assert plan["base"]["training"]["batch"] == 4
    records = [read_json(path) for path in (tmp_path / "run").glob("cells/*/record.json")]
    assert sorted(record["id"] for record in records) == sorted(cell["id"] for cell in plan["cells"])
    assert {record["variant"]: record["status"] for record in records} == {"baseline": "done", "hungry": "done"}
    assert all(record["numerics"]["micro_batches"] == 4 for record in records)
    assert records[0]["accuracy"] == records[1]["accuracy"]  # the axis changes nothing else
    note = "gradient accumulation to fit into memory: 4 micro-batches per step"
    assert note in (tmp_path / "run/tables/ablation.md").read_text()
    # The same command resumes the plan with micro-batches
    assert run_all.main(request) == 0
    assert "2 of 2 cells are already done" in capsys.readouterr().out


def test_a_cell_fails_if_not_even_one_image_fits(words: list[str], tmp_path: Path) -> None:
    assert run_all.main(asked(words, tmp_path, largest=0)) == 1
    records = [read_json(path) for path in (tmp_path / "run").glob("cells/*/record.json")]
    outcomes = {record["variant"]: (record["failure"] or {}).get("cause") for record in records}
    assert outcomes == {
        "baseline": None,
        "hungry": "out of memory at step 1 of 4, with 4 images one at a time",
    }
