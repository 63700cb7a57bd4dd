"""Fixtures of the fault tests: a request of one cell that takes a second, and the command in its own process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.small_runs import request_words


@pytest.fixture
def words(pictures: Path, tiny_weights: Path, tmp_path: Path) -> list[str]:
    """A request of the baseline only, which writes only into the test's folder."""
    return [*request_words(pictures, tiny_weights, tmp_path), "--axes", "none", "--no-images"]


def command(words: Sequence[str]) -> list[str]:
    """A command that runs the request without drawing plots; start it in the repository."""
    return [sys.executable, "-m", "tests.faults.undrawn", *words]


def start(words: Sequence[str]) -> subprocess.Popen[str]:
    """Start the command in its own process group."""
    return subprocess.Popen(
        command(words),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
