"""What the fault tests share: a request that takes a second a cell, and the command in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import REPOSITORY
from tests.faults.pictures import voc_folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the tiny network in a file: to the suite they are pretrained."""
    return tiny.weights_file(tmp_path_factory.mktemp("weights") / "tiny.pth")


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOC folder of ten pictures with lists of six and four."""
    return voc_folder(tmp_path_factory.mktemp("voc"))


@pytest.fixture
def words(photographs: Path, tiny_weights: Path, tmp_path: Path) -> list[str]:
    """A request of one cell that writes into the test's folder alone."""
    return request_words(photographs, tiny_weights, tmp_path)


def request_words(data: Path, weights: Path, folder: Path) -> list[str]:
    """The smallest request on the ordinary path: the baseline in four steps of two images."""
    return [
        *("--data", f"voc:{data}", "--backbone", tiny.NAME, "--weights", str(weights), "--axes", "none"),
        *("--profile", "smoke", "--steps", "4", "--batch", "2", "--device", "cpu", "--no-images"),
        *("--out", str(folder / "run"), "--cache", str(folder / "cache")),
    ]


def start(words: Sequence[str]) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    command = [sys.executable, str(REPOSITORY / "run_all.py"), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
