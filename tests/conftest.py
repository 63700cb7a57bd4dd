"""Fixtures that several rooms share, the marker `fast`, and settings of the test processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.device.process_settings import limit_openmp_spin


def keep_to_own_cores() -> None:
    """Give each worker of pytest-xdist its own cores, which the processes of its tests inherit.

    Otherwise every worker starts one thread per core, and they wait for each other at each layer.
    """
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker is None:
        return
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if own := cores[int(worker.removeprefix("gw")) :: workers]:
        os.sched_setaffinity(0, own)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(own))))


def keep_bytecode() -> None:
    """Ignore PYTHONDONTWRITEBYTECODE: hundreds of processes would each compile torch again, for ten seconds."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


keep_to_own_cores()
keep_bytecode()
limit_openmp_spin()  # before a test imports torch

REPOSITORY = Path(__file__).resolve().parents[1]

# Modules and folders with the marker `fast`, chosen by measured durations: together under 60 s on two cores
FAST = (
    "analysis/test_bootstrap.py",
    "analysis/test_curves.py",
    "analysis/test_error_costs.py",
    "analysis/test_factorial.py",
    "analysis/test_run_records.py",
    "analysis/test_statistics.py",
    "data/readers",
    "data/test_decode.py",
    "data/test_drawing.py",
    "data/test_sources.py",
    "data/test_split.py",
    "data/test_views.py",
    "detector/test_boxes.py",
    "detector/test_levels.py",
    "detector/test_loss.py",
    "detector/test_matching.py",
    "detector/test_postprocess.py",
    "detector/test_priors.py",
    "device/test_clock.py",
    "device/test_fast_paths.py",
    "device/test_hardware.py",
    "device/test_memory.py",
    "device/test_private_interfaces.py",
    "device/test_process_settings.py",
    "evaluation/test_known_ap.py",
    "evaluation/test_matches.py",
    "evaluation/test_results_file.py",
    "evaluation/test_voc.py",
    "report/test_tables.py",
    "run/test_checks.py",
    "run/test_plan.py",
    "storage",
    "test_docs.py",
    "test_errors.py",
    "test_layout.py",
    "run/test_parsers.py",
    "test_options.py",
    "test_spec.py",
    "training/test_schedule.py",
    "variants",
)


def is_fast(path: Path) -> bool:
    """Whether a test module belongs to `fast`."""
    name = path.relative_to(REPOSITORY / "tests").as_posix()
    return any(name == fast or name.startswith(f"{fast}/") for fast in FAST)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m fast``, do not import the other modules: that alone takes longer than many tests."""
    only_fast = config.option.markexpr == "fast" and collection_path.match("test_*.py")
    return True if only_fast and not is_fast(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_fast(item.path) and not (item.get_closest_marker("slow") or item.get_closest_marker("gpu")):
            item.add_marker("fast")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photographs (`bccd`, `groceries`, `coco-mini`); skips if it does not exist."""
    folder = Path(os.environ.get("SSD_ABLATION_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real photographs are not at {folder} (set SSD_ABLATION_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with random weights of timm's smallest network, which the suite takes for pretrained."""
    from tests.tiny import weights_file  # noqa: PLC0415

    return weights_file(tmp_path_factory.mktemp("weights") / "tiny.pth")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOC folder of ten images with lists of six and four."""
    from tests.dataset_builders import voc_folder  # noqa: PLC0415

    return voc_folder(tmp_path_factory.mktemp("voc"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plots in reports of this process: drawing them takes longer than the smallest cells."""
    monkeypatch.setattr("bench.report.plots.write_plots", lambda analysis: [])


@pytest.fixture
def kernels_on() -> Iterator[None]:
    """CPU kernels on, with two threads."""
    import torch  # noqa: PLC0415

    from bench.device import fast_paths  # noqa: PLC0415

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    fast_paths.enable(True)
    yield
    fast_paths.enable(False)
    torch.set_num_threads(before)


@pytest.fixture(params=["plain", "kernels"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a test with plain detectors, and with every detector accelerated by CPU kernels."""
    if request.param == "plain":
        yield
        return
    from bench.cpu.accelerate import accelerate  # noqa: PLC0415
    from bench.detector.ssd import SSD  # noqa: PLC0415
    from bench.device import fast_paths  # noqa: PLC0415

    plain = SSD.__init__

    def accelerated(model: SSD, *arguments: Any, **options: Any) -> None:
        plain(model, *arguments, **options)
        accelerate(model)

    monkeypatch.setattr(SSD, "__init__", accelerated)
    fast_paths.enable(True)
    yield
    fast_paths.enable(False)
