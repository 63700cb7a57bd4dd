"""Which commit and sources a record names."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.storage import provenance


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit_of_an_enclosing_repository_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    (tmp_path / "ours").mkdir()
    monkeypatch.setattr(provenance, "SOURCES", tmp_path / "ours")
    assert provenance.code_version().startswith("sources ")
    monkeypatch.setattr(provenance, "SOURCES", tmp_path)
    assert provenance.code_version().startswith("commit ")


def test_only_sources_that_affect_figures_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bench/data/index.py", "bench/speed/inference.py", "bench/report/page.py", "variants/fpn.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one = 1\n")
    monkeypatch.setattr(provenance, "SOURCES", tmp_path)
    versions = [provenance.sources_version()]
    for name in ("bench/report/page.py", "bench/data/index.py", "bench/speed/inference.py", "variants/fpn.py"):
        (tmp_path / name).write_text("two = 2\n")
        versions.append(provenance.sources_version())
    assert versions[1] == versions[0]  # reports do not affect figures
    assert len(set(versions)) == 4
