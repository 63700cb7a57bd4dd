"""A full or read-only disk: one sentence, no half-written file, and the run can be resumed."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.data.pixels import PixelWriter, clean_cache
from bench.errors import StorageError
from bench.storage.atomic import replacing, write_json
from bench.storage.records import read_json
from bench.storage.run_folder import MARKER
from bench.training.checkpoints import latest_checkpoint, write_checkpoint
from tests.conftest import REPOSITORY
from tests.faults.conftest import command
from tests.index_builders import index_of
from tests.small_runs import without_clocks

# Imported by every process of a run: the disk is full as soon as a cell has a checkpoint.
FILLED_BY_A_CHECKPOINT = """
import errno, glob, os
synced = os.fsync
def fsync(descriptor):
    if glob.glob(os.environ["RUN"] + "/cells/*/checkpoint.pt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    synced(descriptor)
os.fsync = fsync
"""


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT, errno.EROFS], ids=["full", "quota", "read-only"])
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every write to the disk fail."""

    def fsync(descriptor: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.usefixtures("failing")
def test_the_old_file_stays_and_no_other_file_appears(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"a": 1}')
    with pytest.raises(
        StorageError, match=r"record\.json cannot be written: .*\. (Free some space|Change its permissions)"
    ):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["record.json"]


def test_a_checkpoint_that_does_not_fit_leaves_both_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    for step in (1, 2):
        write_checkpoint(path, {"step": step})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="its disk is full"):
        write_checkpoint(path, {"step": 3})
    assert latest_checkpoint(path, "cpu") == ({"step": 2}, [])
    assert len(list(tmp_path.iterdir())) == 2


def test_errors_that_are_not_of_the_disk_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="else") as raised, replacing(tmp_path / "file"):
        raise OSError(errno.EBADF, "something else")
    assert not isinstance(raised.value, StorageError)


def test_decoded_images_that_do_not_fit_are_reported_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="its disk is full"):
        PixelWriter(tmp_path / "pixels-0.bin", index_of([[], []]))
    assert list(tmp_path.glob("*.bin")) == []


def test_files_of_killed_decoders_are_removed_and_those_of_running_ones_stay(tmp_path: Path) -> None:
    living = PixelWriter(tmp_path / "pixels-00000000000000aa.bin", index_of([[]]))
    killed, users = tmp_path / "pixels-00000000000000bb.1.tmp", tmp_path / "pixels-of-mine.tmp"
    for path in (killed, users):
        path.write_bytes(b"gigabytes")
    other = PixelWriter(tmp_path / "pixels-00000000000000cc.bin", index_of([[]]))
    clean_cache(tmp_path)
    assert living.temporary.exists()
    assert not killed.exists()
    for writer in (living, other):
        writer.put(0, np.zeros((80, 100, 3), dtype=np.uint8))
        assert writer.close().exists()
    assert list(tmp_path.glob("*.tmp")) == [users]


def test_a_run_on_a_full_disk_reports_it_and_resumes_later(words: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "sitecustomize.py").write_text(FILLED_BY_A_CHECKPOINT)
    full = {**os.environ, "RUN": str(run), "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        command(words), cwd=REPOSITORY, env=full, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 2
    assert "cannot be written: its disk is full. Free some space" in ended.stderr.replace("\n", " ")
    assert "Traceback" not in ended.stderr
    assert not list(run.glob("cells/*/record.json"))
    assert {path.name for path in run.rglob(".*")} == {MARKER}

    again = subprocess.run(command(words), cwd=REPOSITORY, capture_output=True, timeout=120, check=False)
    assert again.returncode == 0
    (log,) = run.glob("cells/*/log.jsonl")
    assert '"resumed_from": 1' in log.read_text()
    assert list(without_clocks(run)["status"]) == ["done"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB, if we may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_disk_that_is_really_full(words: list[str], tmp_path: Path, small_disk: Path) -> None:
    """Every start ends with a sentence until there is enough space; the final table is the usual one."""

    def ended() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(words), cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert ended().returncode == 0
    words[words.index("--out") + 1] = str(small_disk / "run")
    filling = small_disk / "filling"
    statuses = []
    for left in (0, 50_000, 400_000, 1_200_000):
        filling.unlink(missing_ok=True)
        state = os.statvfs(small_disk)
        filling.write_bytes(bytes(max(0, state.f_bavail * state.f_frsize - left)))
        failed = ended()
        statuses.append(failed.returncode)
        assert "Traceback" not in failed.stderr, failed.stderr
        assert failed.returncode in (1, 2)
        assert "its disk is full" in (failed.stderr + failed.stdout).replace("\n", " ")
    assert statuses[0] == 2
    filling.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert ended().returncode == 0
    pd.testing.assert_frame_equal(
        without_clocks(small_disk / "run"), without_clocks(tmp_path / "run"), check_exact=True
    )
