"""The command line answers a wrong request without importing anything heavy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.fast

HEAVY = ("torch", "torchvision", "timm", "numba", "scipy", "pandas", "pycocotools", "joblib", "rich", "matplotlib")
# Runs the command line, then prints the heavy modules that it has imported, whether it started the fork server, and the
# last option of processes that multiprocessing would start
PROBE = f"""
import sys
import run_all
try:
    status = run_all.main(sys.argv[1:])
except SystemExit as ended:  # --help
    status = ended.code
print("imported:", [name for name in {HEAVY} if name in sys.modules])
print("server:", getattr(getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None),
                         "_forkserver_pid", None))
print("option:", sys.modules["multiprocessing.util"]._args_from_interpreter_flags()[-1])
sys.exit(status)
"""


def answer(words: list[str], folder: Path) -> tuple[int, str, float]:
    """Exit status, output, and CPU seconds of the command line in a process of its own."""
    output = folder / "output.txt"
    with output.open("wb") as file:
        process = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", PROBE, *words],
            {**os.environ, "PYTHONPATH": str(REPOSITORY)},
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 1), (os.POSIX_SPAWN_DUP2, file.fileno(), 2)],
        )
        _, status, usage = os.wait4(process, 0)
    return os.waitstatus_to_exitcode(status), output.read_text(), usage.ru_utime + usage.ru_stime


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="CPU time of a child is not known there")
@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--help"], 0, "--cpu-kernels {auto,on,off}"),
        (["throughput", "--help"], 0, "--cpu-kernels {auto,on,off}"),
        (["--data", "voc:/nowhere"], 2, "/nowhere"),
        (["--data", "scene"], 2, "Did you mean scenes?"),
        (["preflight", "--data", "coco:/nowhere"], 2, "/nowhere"),
        (["diagnose", "--data", "voc:/nowhere"], 2, "/nowhere"),
        (["throughput", "--data", "voc:/nowhere"], 2, "/nowhere"),
        (["compare", "--help"], 0, "3 clearly worse (--fail-below)"),
        (["compare", "a.json"], 2, "a.json: no such file"),
        (["compare", "a.json", "b.json", "--data", "coco:/nowhere"], 2, "/nowhere"),
        (["compare", "a.json", "b.json", "--fail-below", "-1"], 2, "-1 is not 0 or above"),
        (["--axes", "fpm"], 2, "did you mean fpn?"),
        (["--variants", "fpn+anchor"], 2, "did you mean anchors?"),
        (["--worth", "-1"], 2, "--worth"),
        (["--like", "/nowhere"], 2, "only --plan uses it"),
        (["--plan", "--like", "/nowhere"], 2, "it has no plan.json"),
        (["--controls", "half"], 2, "did you mean half-data?"),
        (["--profile", "quik"], 2, "did you mean quick?"),
        (["--stesp", "3"], 2, "did you mean --steps?"),
        (["--backend", "dusk"], 2, "did you mean dask?"),
        (["--weights", "/nowhere.pth"], 2, "--weights /nowhere.pth: no such file"),
        (["--priors", "cocoo"], 2, "did you mean coco?"),
        (["--axis-file", "/nowhere.py"], 2, "/nowhere.py"),
        (["--cpu-kernels", "on", "--device", "cuda"], 2, "--cpu-kernels auto, or --device cpu"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_answered_before_heavy_imports(
    words: list[str], status: int, text: str, tmp_path: Path
) -> None:
    found, output, seconds = answer(words, tmp_path)
    print(f"{' '.join(words)}: {seconds:.2f} s of CPU")
    assert (found, "Traceback" in output) == (status, False), output
    assert text in output
    assert "imported: []" in output
    assert "server: None" in output
    assert "option: -P" in output
