"""Which sources a record names."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.storage import records as store


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit_of_a_project_around_ours_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    (tmp_path / "ours").mkdir()
    monkeypatch.setattr(store, "SOURCES", tmp_path / "ours")
    assert store.code_version().startswith("sources ")
    monkeypatch.setattr(store, "SOURCES", tmp_path)
    assert store.code_version().startswith("commit ")
