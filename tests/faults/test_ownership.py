"""One run at a time per folder: the owner is named, and a dead owner locks nobody out."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.storage.lock import lock_run_folder
from bench.storage.run_folder import LOCK, MARKER
from tests.conftest import REPOSITORY

HOLD = """
import sys, time
from pathlib import Path
from bench.storage.lock import lock_run_folder, lock_cell_folder
folder = Path(sys.argv[2])
if sys.argv[1] == "cell":
    lock_cell_folder(folder)
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
else:
    with lock_run_folder(folder, print):
        print("held", flush=True)
        time.sleep(float(sys.argv[3]))
"""


def holder(folder: Path, *, kind: str = "run", seconds: float = 60) -> subprocess.Popen[str]:
    """Start a process that holds the lock of the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, kind, str(folder), str(seconds)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = holder(tmp_path / "run")
    yield process
    process.kill()
    process.wait()


def test_a_folder_in_use_names_its_owner(held: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised, lock_run_folder(tmp_path / "run", print):
        pytest.fail("entered a folder in use")
    assert f"process {held.pid} on " in str(raised.value)
    assert "since 2" in str(raised.value)
    assert "--out" in str(raised.value)


def test_a_killed_owner_locks_nobody_out(held: subprocess.Popen[str], tmp_path: Path) -> None:
    held.send_signal(signal.SIGKILL)
    held.wait()
    said: list[str] = []
    with lock_run_folder(tmp_path / "run", said.append):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()
    (sentence,) = said
    assert sentence.startswith(f"taking over {tmp_path / 'run'}: process {held.pid} on ")


def test_a_released_folder_is_free_without_a_warning(tmp_path: Path) -> None:
    for _ in range(2):
        said: list[str] = []
        with lock_run_folder(tmp_path / "run", said.append):
            (tmp_path / "run" / "split.json").touch()
        assert said == []
    assert {path.name for path in (tmp_path / "run").iterdir()} == {MARKER, "split.json"}


def test_an_empty_folder_is_removed_again(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wrong"), lock_run_folder(tmp_path / "results" / "run", print):
        raise UserError("something else is wrong")
    assert list(tmp_path.iterdir()) == []


def test_only_one_of_many_processes_gets_the_lock_at_a_time(tmp_path: Path) -> None:
    """Every process increments a number that only the lock protects."""
    count = tmp_path / "count"
    count.write_text("0")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom bench.errors import UserError\n"
        "from bench.storage.lock import lock_run_folder\ncount = Path(sys.argv[2])\ndone = 0\n"
        "while done < 20:\n    try:\n        with lock_run_folder(Path(sys.argv[1]), lambda text: None):\n"
        "            value = int(count.read_text())\n            time.sleep(0.001)\n"
        "            count.write_text(str(value + 1))\n            done += 1\n"
        "    except UserError:\n        time.sleep(0.001)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run"), str(count)]
    started = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(3)]
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
    assert count.read_text() == "60"
    assert list(tmp_path.glob("run/*")) == []


def test_without_locks_the_process_of_the_owner_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    process = holder(tmp_path / "run")
    monkeypatch.setattr(fcntl, "flock", refused)
    said: list[str] = []
    with pytest.raises(UserError, match=f"process {process.pid} on "), lock_run_folder(tmp_path / "run", said.append):
        pytest.fail("entered a folder in use")
    process.kill()
    process.wait()
    with lock_run_folder(tmp_path / "run", said.append):
        pass
    assert "without locks" in said[0]
    assert said[1].startswith("taking over ") and f": process {process.pid} on " in said[1]


def test_without_locks_an_owner_elsewhere_counts_as_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    owner = {"pid": 1, "host": "elsewhere.invalid", "since": "2026-01-01T00:00:00+00:00"}
    (tmp_path / LOCK).write_text(json.dumps(owner))
    with pytest.raises(UserError, match=r"delete .*in-use\.json"), lock_run_folder(tmp_path, print):
        pytest.fail("entered a folder in use")
    (tmp_path / LOCK).unlink()
    with lock_run_folder(tmp_path, lambda text: None):
        pass


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_is_not_writable_is_reported(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refused)
    sentence = "cannot be written: its .*--out"
    with pytest.raises(UserError, match=sentence), lock_run_folder(tmp_path, print):
        pytest.fail("entered a folder that cannot be written to")


def test_a_file_in_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    for run in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(UserError, match="cannot be a folder"), lock_run_folder(run, print):
            pytest.fail("entered a file")
    assert (tmp_path / "run").is_file()


def test_a_cell_waits_for_an_orphaned_process(tmp_path: Path) -> None:
    orphan = holder(tmp_path, kind="cell", seconds=1.0)
    start = time.monotonic()
    after = holder(tmp_path, kind="cell", seconds=0)
    assert orphan.wait(timeout=5) == 0
    assert time.monotonic() - start > 0.5
    assert after.wait(timeout=5) == 0
