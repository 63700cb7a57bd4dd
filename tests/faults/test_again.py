"""Repeat a command, or give another one for the same folder: what is kept, retried, or refused."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import run_all
from bench.storage.run_folder import LOCK
from tests.faults.conftest import start
from tests.small_runs import CLOCKS, records

pytestmark = pytest.mark.usefixtures("undrawn")


def test_repeating_the_command_runs_no_cell_again(words: list[str], tmp_path: Path) -> None:
    words += ["--axes", "fpn"]
    assert run_all.main(words) == 0
    run = tmp_path / "run"
    users = [
        run / name for name in (".notes.2026", "cells/notes/a.txt", "cells/0123456789ab/a.txt", "thumbnails/7.jpg")
    ]
    for path in users:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (run / "cells/.DS_Store").touch()  # a file browser's
    before = {path: path.stat().st_mtime_ns for path in run.glob("cells/*/*")}
    assert run_all.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in run.glob("cells/*/*")} == before
    assert all(path.exists() for path in users)


def test_two_runs_differ_only_in_clocks(words: list[str], tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        assert run_all.main([*words, "--axes", "anchors", "--out", str(tmp_path / name)]) == 0
        found.append(records(tmp_path / name))
    differences = {path for variant in found[0] for path in unequal(found[0][variant], found[1][variant])}
    print(f"differ: {', '.join(sorted(differences))}")
    allowed = (*CLOCKS, "latency_p90_ms", "sweep", "waiting_for_data_share", "finished")
    assert not {path for path in differences if path.split(".")[-1] not in allowed}
    for file in ("detections.json", "matches.npz", "priors.json"):
        ones, twos = (sorted((tmp_path / name).glob(f"cells/*/{file}")) for name in ("one", "two"))
        assert [path.read_bytes() for path in ones] == [path.read_bytes() for path in twos]
        assert len(ones) == 2


def unequal(one: Any, other: Any, path: str = "") -> list[str]:
    """Dotted paths at which two records differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [found for key in one for found in unequal(one[key], other[key], f"{path}.{key}" if path else key)]
    return [] if one == other else [path]


def test_another_plan_in_the_same_folder_is_refused_with_the_difference(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main(words) == 0
    capsys.readouterr()
    assert run_all.main([*words, "--lr", "0.5"]) == 2
    assert "base.training.rate: was 0.001, now 0.5" in capsys.readouterr().err
    # The existing split is kept, so these options would have no effect
    for option, value, name in (("--eval-list", "val", "eval_list"), ("--val-fraction", "0.5", "val_fraction")):
        assert run_all.main([*words, option, value]) == 2
        assert f"{name}: was None, now " in capsys.readouterr().err


def test_a_failed_cell_is_reported_and_retried(words: list[str], tmp_path: Path) -> None:
    """The axis fails as long as a file is missing; the failure is recorded but not kept."""
    remedy = tmp_path / "remedy"
    axis = tmp_path / "fragile.py"
    axis.write_text(
        "from pathlib import Path\nfrom bench.axis import Axis\n\n\n"
        "class Fragile(Axis):\n    name = 'fragile'\n    slot = 'box_loss'\n\n"
        "    def apply(self, spec, prepared):\n"
        f"        if not Path({str(remedy)!r}).exists():\n            raise RuntimeError('the remedy is missing')\n"
        "        return spec\n"
    )
    words += ["--axes", "fragile", "--axis-file", str(axis)]
    assert run_all.main(words) == 1
    run = tmp_path / "run"
    found = records(run)
    assert found["fragile"]["status"] == "failed"
    assert "the remedy is missing" in found["fragile"]["failure"]["cause"]
    table = pd.read_csv(run / "tables/ablation.csv").set_index("variant")
    assert dict(table["status"]) == {"baseline": "done", "fragile": "failed"}
    assert dict(table["AP"].isna()) == {"baseline": False, "fragile": True}

    remedy.touch()
    baseline = (run / "cells" / found["baseline"]["id"] / "record.json").stat().st_mtime_ns
    assert run_all.main(words) == 0
    assert records(run)["fragile"]["status"] == "done"
    assert (run / "cells" / found["baseline"]["id"] / "record.json").stat().st_mtime_ns == baseline


def test_an_interrupt_stops_cleanly_and_prints_how_to_resume(words: list[str], tmp_path: Path) -> None:
    words[words.index("--steps") + 1] = "5000"
    started = start(words)
    deadline = time.monotonic() + 120
    while not any('"step"' in path.read_text() for path in tmp_path.glob("run/cells/*/log.jsonl")):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGINT)
    for _ in range(20):  # a batch system repeats its signal
        time.sleep(0.05)
        if started.poll() is None:
            os.kill(started.pid, signal.SIGTERM)
    printed, _ = started.communicate(timeout=30)
    assert started.returncode == 130
    assert "resume with: python run_all.py" in printed
    assert "Traceback" not in printed


def test_interrupting_the_process_group_before_training_shows_no_traceback(words: list[str], tmp_path: Path) -> None:
    """A terminal sends the signal to the whole group, including the fork server, which is still importing."""
    started = start(words)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / LOCK).exists():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(started.pid, signal.SIGINT)
    printed, _ = started.communicate(timeout=30)
    assert started.returncode == 130
    assert "Traceback" not in printed
