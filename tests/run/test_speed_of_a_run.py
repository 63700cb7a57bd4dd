"""A run measures its networks in turns after the last cell: once, again only if other cells are done, never failing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import run_all
from bench.run import run as runs
from bench.storage.run_folder import SPEED, WEIGHTS
from tests.small_runs import records, request_words

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def words(pictures: Path, tiny_weights: Path, tmp_path: Path) -> list[str]:
    return [*request_words(pictures, tiny_weights, tmp_path), "--axes", "none"]


def speed_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / SPEED).read_text())
    return content


def test_a_resumed_run_keeps_the_measurement(words: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    words[words.index("none")] = "fpn"
    assert run_all.main(words) == 0
    content, before = speed_of(run), records(run)
    assert content["failure"] is None
    assert [network["variants"] for network in content["networks"]] == [["baseline"], ["fpn"]]
    assert content["machine"]["name"] == before["fpn"]["environment"]["device"]["name"]
    table = pd.read_csv(run / "tables/throughput.csv")
    assert list(table["network"]) == ["baseline", "fpn"]
    assert table["latency_p50_ms"].between(table["latency_low"], table["latency_high"]).all()

    written = (run / SPEED).stat().st_mtime_ns
    assert run_all.main(words) == 0
    assert (run / SPEED).stat().st_mtime_ns == written

    (run / SPEED).unlink()
    assert run_all.main(words) == 0
    assert speed_of(run)["measured"] >= content["measured"]
    assert records(run) == before


def test_without_weights_the_run_succeeds_and_says_what_is_missing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert run_all.main(words) == 0
    (run / "cells" / records(run)["baseline"]["id"] / WEIGHTS).unlink()
    (run / SPEED).unlink()
    capsys.readouterr()
    assert run_all.main(words) == 0
    assert "weights.pt is missing" in speed_of(run)["failure"]
    assert "speed in turns was not measured" in " ".join(capsys.readouterr().out.split())
    assert "batch" in pd.read_csv(run / "tables/throughput.csv")


def test_an_interrupted_measurement_leaves_no_file(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    with monkeypatch.context() as interrupted:
        interrupted.setattr(runs, "measure_in_turns", interrupt)
        assert run_all.main(words) == 130
    assert not (run / SPEED).exists()
    assert run_all.main(words) == 0
    assert speed_of(run)["failure"] is None
