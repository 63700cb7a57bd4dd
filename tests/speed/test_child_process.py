"""A contender in a child process runs with its users' settings, is timed there, and ends with its parent's context."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.speed.child_process import in_child_process
from bench.speed.interleaved import Budget, Contender, measure_interleaved
from tests.traps import executed, set_traps

CPU = torch.device("cpu")


class Work:
    """The contenders of the child process; `describe` writes into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> dict[str, Contender]:
        calls: list[Callable[[], object]] = [self.describe, self.sleep, self.fail, self.run_out_of_memory, self.die]
        return {call.__name__: Contender(call=call, batch=2, calls_per_round=3) for call in calls}

    def describe(self) -> None:
        ours = [name for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ]
        (self.folder / "described").write_text(f"{os.getpid()} {torch.get_num_threads()} {ours}")

    def sleep(self) -> None:
        time.sleep(0.05)

    def fail(self) -> None:
        raise KeyError("a defect")

    def run_out_of_memory(self) -> None:
        raise MemoryError

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_has_its_users_settings_and_ends_with_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(set_traps(tmp_path))
    with in_child_process(Work(tmp_path), threads=1) as contenders:
        assert [(each.batch, each.calls_per_round) for each in contenders.values()] == [(2, 3)] * 5
        assert contenders["describe"].call() > 0
        process, *settings = (tmp_path / "described").read_text().split(maxsplit=2)
        assert int(process) != os.getpid()
        assert settings == ["1", "[]"]
        assert running(int(process))
    assert not running(int(process))
    assert executed(tmp_path) == []


def test_the_seconds_are_those_of_the_call(tmp_path: Path) -> None:
    with in_child_process(Work(tmp_path), threads=1) as contenders:
        chosen = {"sleep": contenders["sleep"], "too large": contenders["run_out_of_memory"]}
        timings = measure_interleaved(chosen, device=CPU, budget=Budget(seconds=0.0))
    assert list(timings) == ["sleep"]
    assert timings["sleep"].n == 5 * 3
    assert timings["sleep"].seconds.min() >= 0.05


def test_errors_and_the_death_of_the_process_are_raised(tmp_path: Path) -> None:
    with in_child_process(Work(tmp_path), threads=1) as contenders:
        with pytest.raises(RuntimeError, match="KeyError: 'a defect'"):
            contenders["fail"].call()
        assert contenders["sleep"].call() >= 0.05
        for _ in range(2):
            with pytest.raises(MemoryError, match="ended with exit code -9"):
                contenders["die"].call()


def test_an_error_in_the_parent_ends_the_child(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), in_child_process(Work(tmp_path), threads=1) as contenders:
        contenders["describe"].call()
        raise KeyboardInterrupt
    assert not running(int((tmp_path / "described").read_text().split()[0]))
