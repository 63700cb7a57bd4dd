"""What the fault tests share: a request of one cell that takes a second, and the command in a process of its own."""

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
    """A request of the baseline alone that writes into the test's folder alone."""
    return [*request_words(pictures, tiny_weights, tmp_path), "--axes", "none", "--no-images"]


def command(words: Sequence[str]) -> list[str]:
    """The command line of a process that runs what is asked for and draws no plots; start it in the repository."""
    return [sys.executable, "-m", "tests.faults.undrawn", *words]


def start(words: Sequence[str]) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    return subprocess.Popen(
        command(words),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
