"""A file is complete, or as it was before."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from bench.storage.atomic import remove_abandoned, replacing, write_json


def test_invalid_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"
    write_json(path, {"a": [1, 2.5]})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": [1, 2.5]}


def test_an_interrupted_write_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(OSError, match="disk full"), replacing(path) as file:
        file.write(b"half")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []
    with replacing(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"


def test_files_of_killed_writers_are_removed_at_once_and_others_stay(tmp_path: Path) -> None:
    killed, users = tmp_path / ".plan.json.12.ssd-ablation", tmp_path / ".notes.ssd-ablation"
    link, outside = tmp_path / ".split.json.12.ssd-ablation", tmp_path / "outside"
    for path in (killed, users, outside):
        path.write_text("half")
    link.symlink_to(outside)
    with replacing(tmp_path / "living.json") as file:
        file.write(b"{}")
        living = next(tmp_path.glob(".living.json.*"))
        remove_abandoned(tmp_path)
        assert living.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [users.name, link.name, outside.name, "living.json"]
    )


def test_a_writer_that_was_killed_holds_no_lock(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with replacing(tmp_path / "file") as file:
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("the user's")
    (tmp_path / f".file.{os.getpid()}.ssd-ablation").symlink_to(tmp_path / "outside")
    with replacing(tmp_path / "file") as file:
        file.write(b"ours")
    assert (tmp_path / "outside").read_text() == "the user's"
    assert (tmp_path / "file").read_text() == "ours"
    assert not (tmp_path / "file").is_symlink()


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("the user's")
    (tmp_path / "file").symlink_to(tmp_path / "outside")
    write_json(tmp_path / "file", {})
    assert (tmp_path / "outside").read_text() == "the user's"
