"""Two runs in one folder: the second one is refused, and nothing is lost or done twice."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import run_all
from bench.storage.run_folder import LOCK
from tests.faults.conftest import start


def test_one_of_two_runs_started_at_once_is_refused(words: list[str], tmp_path: Path) -> None:
    both = [start(words), start(words)]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], printed
    refused, done = sorted(zip(both, printed, strict=True), key=lambda pair: -pair[0].returncode)
    assert f"is in use by another run (process {done[0].pid} on " in refused[1].replace("\n", " ")
    assert "Traceback" not in refused[1]
    (record,) = (tmp_path / "run").glob("cells/*/record.json")
    assert json.loads(record.read_text())["status"] == "done"
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.usefixtures("undrawn")
def test_after_a_kill_the_same_command_takes_over_the_folder(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = start(words)
    deadline = time.monotonic() + 120
    lock = tmp_path / "run" / LOCK
    while not (lock.exists() and lock.read_text()):  # taken, and signed by its owner
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    first.kill()
    first.communicate()
    assert run_all.main(words) == 0
    assert f": process {first.pid} on " in " ".join(capsys.readouterr().out.split())
    assert not lock.exists()
