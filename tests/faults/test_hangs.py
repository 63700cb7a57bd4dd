"""Cells that hang or are killed leave a failed record with the cause; other cells go on."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.run.cell import CellJob
from bench.run.scheduler import run_jobs, supervise
from bench.storage.records import read_record
from bench.storage.run_folder import STOP
from tests import small_runs

HANGING = """
import time
from pathlib import Path
from bench.axis import Axis


class Hanging(Axis):
    name = "hanging"
    slot = "box_loss"

    def apply(self, spec, prepared):
        while not Path({remedy!r}).exists():
            time.sleep(0.05)
        return spec
"""


@pytest.fixture
def jobs(pictures: Path, tmp_path: Path) -> list[CellJob]:
    """The baseline, and an arm that waits for a file named `remedy`."""
    axis = tmp_path / "hanging.py"
    axis.write_text(HANGING.format(remedy=str(tmp_path / "remedy")))
    return small_runs.jobs_of(pictures, tmp_path, axis, ("hanging",))


def record_of(job: CellJob) -> dict[str, Any]:
    record = read_record(job.run, job.cell.id)
    assert record is not None
    return record


def test_a_hung_cell_fails_with_its_stack_and_the_others_go_on(jobs: list[CellJob], tmp_path: Path) -> None:
    baseline, hanging = jobs
    run_jobs([replace(hanging, hung_after=3.0), baseline], parallel=2, backend="loky", retries=0, watch=lambda: None)
    assert record_of(baseline)["status"] == "done"
    record = record_of(hanging)
    assert record["status"] == "failed"
    assert record["failure"]["cause"].startswith("hung: no progress for 0.05 minutes")
    if "preparing" in record["failure"]["cause"]:  # otherwise the machine was too busy to start it in three seconds
        assert "hanging.py" in record["failure"]["traceback"]
        assert record["failure"]["log_tail"][-1] == {"phase": "preparing"}
    # The next start retries it
    (tmp_path / "remedy").touch()
    assert supervise(hanging, retries=0) == "done"


@pytest.mark.parametrize("backend", ["loky", "dask", "ray"])
def test_every_backend_runs_cells_and_stops_them(jobs: list[CellJob], backend: str) -> None:
    if backend != "loky":
        pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    baseline, hanging = jobs

    def interrupt() -> None:
        record = read_record(baseline.run, baseline.cell.id)
        if record is not None and cell_processes(hanging):
            assert record["status"] == "done"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, parallel=2, backend=backend, retries=0, watch=interrupt)
    assert read_record(hanging.run, hanging.cell.id) is None
    assert cell_processes(hanging) == []
    assert not (hanging.run / STOP).exists()


def test_a_suspended_and_continued_run_has_not_hung(jobs: list[CellJob], monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-Z and fg an hour later, an hour has passed between two polls."""
    clock, calls = time.monotonic, itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: clock() + (3600.0 if next(calls) > 5 else 0.0))
    assert supervise(jobs[0], retries=0) == "done"


def test_a_killed_worker_is_retried_as_often_as_requested(jobs: list[CellJob], tmp_path: Path) -> None:
    _, hanging = jobs
    killed: list[int] = []

    def kill_three() -> None:
        while len(killed) < 3:
            for pid in cell_processes(hanging):
                if pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.02)
        (tmp_path / "remedy").touch()

    killer = threading.Thread(target=kill_three)
    killer.start()
    assert supervise(hanging, retries=1) == "failed"
    assert len(killed) == 2
    assert "ended by SIGKILL" in record_of(hanging)["failure"]["cause"]
    assert supervise(hanging, retries=1) == "done"
    killer.join()
    assert len(killed) == 3


def cell_processes(job: CellJob) -> list[int]:
    """Processes that print into the cell's `output.txt` and have begun to prepare the cell."""
    output = job.folder / "output.txt"
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                if (process / "fd/1").readlink() == output:
                    found.append(int(process.name))
            except OSError:
                continue
    return found


pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="processes are found in /proc")
