"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.process import wait_briefly

wait_briefly()  # before a test imports torch
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are shared out among the workers already

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs (`bccd`, `groceries`, `coco-mini`); skipped where it is not there."""
    folder = Path(os.environ.get("SSD_ABLATION_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real photographs are not at {folder} (set SSD_ABLATION_DATA)")
    return folder
