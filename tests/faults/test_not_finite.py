"""A loss that becomes NaN: a failed record that names the step; other arms go on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import run_all
from bench.analysis.run_records import load_run
from tests.small_runs import records

pytestmark = pytest.mark.usefixtures("undrawn")

EXPLODING = """
from dataclasses import replace
from bench.axis import Axis


class Exploding(Axis):
    name = "exploding"
    slot = "schedule"

    def apply(self, spec, prepared):
        return replace(
            spec,
            training=replace(spec.training, optimiser="sgd", rate=1e30, warmup_share=0.0, clip_norm=0.0),
        )
"""


def test_a_cell_whose_loss_is_not_finite_has_failed_and_the_others_have_not(words: list[str], tmp_path: Path) -> None:
    axis = tmp_path / "exploding.py"
    axis.write_text(EXPLODING)
    words += ["--axes", "exploding", "--axis-file", str(axis)]
    assert run_all.main(words) == 1
    found = records(tmp_path / "run")
    assert found["baseline"]["status"] == "done"
    failure = found["exploding"]["failure"]
    assert failure["cause"].startswith("the loss is ") and "at step " in failure["cause"]
    assert "NotFinite" in failure["traceback"]
    assert failure["diverged"]
    run = load_run(tmp_path / "run")
    assert {cell.variant: run.diverged(cell) for cell in run.cells} == {"baseline": False, "exploding": True}
    assert failure["log_tail"]
    table = pd.read_csv(tmp_path / "run/tables/ablation.csv").set_index("variant")
    assert dict(table["status"]) == {"baseline": "done", "exploding": "failed"}
    assert dict(table["AP"].isna()) == {"baseline": False, "exploding": True}
