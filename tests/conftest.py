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


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of timm's smallest network in a file: to the suite they are pretrained."""
    from tests.tiny import weights_file  # noqa: PLC0415

    return weights_file(tmp_path_factory.mktemp("weights") / "tiny.pth")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOC folder of ten pictures with lists of six and four."""
    from tests.pictures import voc_folder  # noqa: PLC0415

    return voc_folder(tmp_path_factory.mktemp("voc"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports in this process have no plots: drawing them takes longer than the smallest cells."""
    monkeypatch.setattr("bench.report.plots.write_plots", lambda analysis: [])
