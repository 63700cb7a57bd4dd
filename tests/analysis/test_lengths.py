"""AP and effects after several lengths of training."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from bench.analysis.effects import effects_frame
from bench.analysis.lengths import lengths_frame, lengths_of, lengths_so_far, turned
from bench.analysis.run_records import load_run
from bench.analysis.samples import samples_of
from bench.errors import UserError
from tests.analysis.made_run import of_steps, write_matches


def frame_of(folder: Path) -> pd.DataFrame:
    run = load_run(folder)
    return lengths_frame(run, effects_frame(run, samples_of(run)))


@pytest.fixture
def continued(tmp_path: Path) -> Path:
    """fpn harms after 200 steps and helps after 600; anchors help after both."""
    short = write_matches(tmp_path / "short", axes=("fpn", "anchors"), gains={"fpn": -0.5, "anchors": 0.5})
    long = write_matches(tmp_path / "long", axes=("fpn", "anchors"), gains={"fpn": 0.5, "anchors": 0.5})
    of_steps(short, 200), of_steps(long, 600)
    (long / "lengths.json").write_text(json.dumps(lengths_so_far(short)))
    return long


def test_every_length_has_the_figures_of_its_run(continued: Path) -> None:
    frame = frame_of(continued)
    assert lengths_of(frame) == [200, 600]
    for steps, folder in ((200, continued.with_name("short")), (600, continued)):
        own = frame[frame["steps"] == steps].set_index("variant")
        run = load_run(folder)
        effects = effects_frame(run, samples_of(run))
        for cell, record in run.done():
            assert own.loc[cell.variant, "AP"] == record["accuracy"]["AP"]
            assert own.loc[cell.variant, "row"] == f"{cell.variant} after {steps} steps"
        row = effects[(effects["measure"] == "AP") & (effects["contrast"] == "fpn vs baseline")].iloc[0]
        for name in ("effect", "low", "high", "verdict"):
            assert own.loc["fpn", name] == row[name]
        assert own["effect"].isna()["baseline"]


def test_an_effect_turns_if_it_was_clear_and_has_the_other_sign(continued: Path) -> None:
    frame = frame_of(continued)
    ((before, after),) = turned(frame)
    assert (before["variant"], before["steps"], after["steps"]) == ("fpn", 200, 600)
    assert before["effect"] < 0 < after["effect"]
    unclear = frame.assign(verdict=["undecided" if steps == 200 else "" for steps in frame["steps"]])
    assert turned(unclear) == []


def test_a_third_length_keeps_the_first(continued: Path, tmp_path: Path) -> None:
    longest = of_steps(write_matches(tmp_path / "longest", axes=("fpn", "anchors")), 1800)
    (longest / "lengths.json").write_text(json.dumps(lengths_so_far(continued)))
    assert lengths_of(frame_of(longest)) == [200, 600, 1800]


def test_a_run_that_continues_none_has_one_length(tmp_path: Path) -> None:
    assert lengths_of(frame_of(of_steps(write_matches(tmp_path / "run", axes=("fpn",)), 90))) == [90]


def test_a_damaged_file_is_named(continued: Path) -> None:
    (continued / "lengths.json").write_text("[]")
    with pytest.raises(UserError, match=r"lengths\.json is not a JSON object"):
        frame_of(continued)
