"""Trainings that continue shorter ones: --continue and --lengths."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

import run_all
from bench.errors import UserError
from bench.run import run as run_module
from bench.run.continuing import EarlierRun
from bench.speed.in_turns import InTurnsSettings
from bench.speed.inference import SpeedSettings
from bench.storage.records import read_log
from bench.storage.run_folder import BEFORE_DECAY, LOG, WEIGHTS
from tests import tiny
from tests.small_runs import records, request_words

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module", autouse=True)
def _short_measurements() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "InTurnsSettings", InTurnsSettings.smoke)
        patch.setattr(run_module, "SpeedSettings", SpeedSettings.quick)
        yield


def without_steps(data: Path, weights: Path, folder: Path) -> list[str]:
    """A request in a profile that keeps the states of its trainings."""
    words = request_words(data, weights, folder)
    place = words.index("--steps")
    del words[place : place + 2]
    words[words.index("smoke")] = "quick"
    return words


def with_out(words: list[str], out: Path) -> list[str]:
    place = words.index("--out") + 1
    return [*words[:place], str(out), *words[place + 1 :]]


@pytest.fixture
def words(pictures: Path, tiny_weights: Path, tmp_path: Path) -> list[str]:
    return without_steps(pictures, tiny_weights, tmp_path)


@pytest.fixture(scope="module")
def four_steps(pictures: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The request of a finished run of the baseline with four steps."""
    words = [*without_steps(pictures, tiny_weights, tmp_path_factory.mktemp("four")), "--axes", "none"]
    assert run_all.main([*words, "--steps", "4"]) == 0
    return words


def folder_of(run: Path, variant: str) -> Path:
    return run / "cells" / str(records(run)[variant]["id"])


def test_a_longer_training_continues_a_shorter_one_and_equals_one_from_the_start(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words += ["--axes", "fpn,unfreezing"]
    assert run_all.main([*words, "--lengths", "4,8"]) == 0
    short, long = tmp_path / "run-4-steps", tmp_path / "run"
    assert "preliminary" in " ".join(capsys.readouterr().out.split())
    for run, steps in ((short, 4), (long, 8)):
        plan = json.loads((run / "plan.json").read_text())
        assert plan["base"]["training"]["steps"] == steps and plan["lengths"] == [4, 8]
        assert {record["cost"]["steps"] for record in records(run).values()} == {steps}
    assert json.loads((long / "plan.json").read_text())["continues"] == {"run": str(short), "steps": 4}

    begun = list(read_log(folder_of(long, "fpn") / LOG))
    assert [line["resumed_from"] for line in begun if "resumed_from" in line] == [3]
    assert [line["step"] for line in begun if "step" in line] == list(range(1, 9))
    assert {line["steps"] for line in begun if "step" in line} == {8}
    alone = list(read_log(folder_of(long, "unfreezing") / LOG))
    assert [line["resumed_from"] for line in alone if "resumed_from" in line] == [0]
    (warning,) = records(long)["unfreezing"]["warnings"]
    assert warning.startswith("trained from the start: its schedule depends on the number of steps")

    table = pd.read_csv(long / "tables/lengths.csv")
    assert list(table["row"][:2]) == ["baseline after 4 steps", "fpn after 4 steps"]
    for run in (short, long):
        own = table[table["steps"] == json.loads((run / "plan.json").read_text())["base"]["training"]["steps"]]
        assert dict(zip(own["variant"], own["AP"], strict=True)) == {
            variant: record["accuracy"]["AP"] for variant, record in records(run).items()
        }
    assert not (short / "tables/lengths.csv").exists()

    # Without the kept states the same request trains from the start
    for path in short.glob(f"cells/*/{BEFORE_DECAY}"):
        path.unlink()
    assert run_all.main([*with_out(words, tmp_path / "anew"), "--steps", "8", "--continue", str(short)]) == 0
    for variant, record in records(tmp_path / "anew").items():
        assert record["accuracy"] == records(long)[variant]["accuracy"]
        anew, continued = (
            torch.load(folder_of(run, variant) / WEIGHTS, weights_only=True)["model"]
            for run in (tmp_path / "anew", long)
        )
        assert all(torch.equal(value, continued[name]) for name, value in anew.items())


def test_a_run_can_be_continued_later_and_resumed(four_steps: list[str], tmp_path: Path) -> None:
    run = Path(four_steps[four_steps.index("--out") + 1])
    longer = [*with_out(four_steps, tmp_path / "longer"), "--steps", "8", "--continue", str(run)]
    assert run_all.main([*longer, "--plan"]) == 0
    assert run_all.main(longer) == 0
    record = folder_of(tmp_path / "longer", "baseline") / "record.json"
    before = record.read_bytes()
    assert run_all.main(longer) == 0  # nothing is left to do
    assert record.read_bytes() == before


def test_other_data_are_refused(four_steps: list[str]) -> None:
    earlier = EarlierRun.read(Path(four_steps[four_steps.index("--out") + 1]))
    with pytest.raises(UserError, match="other data, or another split"):
        earlier.baseline(tiny.specification(), "another")


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (("--steps", "4", "--continue", "RUN"), "that run has 4 steps; ask for more"),
        (("--steps", "8", "--continue", "RUN", "--lr", "0.1"), "that run has another baseline"),
        (("--continue", "RUN"), "give the number of steps"),
        (("--steps", "8", "--continue", "nowhere"), "is not the folder of a run"),
        (("--lengths", "4,8", "--continue", "RUN"), "give only one of them"),
        (("--lengths", "4,8", "--steps", "8"), "give only one of them"),
        (("--lengths", "4"), "is one length"),
        (("--lengths", "4,8", "--profile", "smoke"), "keeps no state"),
    ],
)
def test_a_run_that_cannot_be_continued_is_refused(
    added: tuple[str, ...],
    said: str,
    four_steps: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = four_steps[four_steps.index("--out") + 1]
    request = with_out(four_steps, tmp_path / "longer")
    assert run_all.main([*request, *(run if word == "RUN" else word for word in added)]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "longer").exists()
