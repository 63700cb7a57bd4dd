"""A contender in a process of its own: as its users start it, timed there, and gone with whoever asked."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.speed.child_process import in_own_process
from bench.speed.interleaved import Budget, Contender, measure_in_turn

CPU = torch.device("cpu")


class Work:
    """What can be done there; it leaves its traces in files of `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> dict[str, Contender]:
        calls: list[Callable[[], object]] = [self.tell, self.sleep, self.fail, self.want_too_much, self.die]
        return {call.__name__: Contender(call=call, batch=2, each_round=3) for call in calls}

    def tell(self) -> None:
        set_ = [name for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ]
        (self.folder / "told").write_text(f"{os.getpid()} {torch.get_num_threads()} {set_}")

    def sleep(self) -> None:
        time.sleep(0.05)

    def fail(self) -> None:
        raise KeyError("a defect")

    def want_too_much(self) -> None:
        raise MemoryError

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_runs_as_its_users_start_it_and_ends_with_the_context(tmp_path: Path) -> None:
    with in_own_process(Work(tmp_path), threads=1) as contenders:
        assert [(each.batch, each.each_round) for each in contenders.values()] == [(2, 3)] * 5
        assert contenders["tell"].call() > 0
        told = (tmp_path / "told").read_text().split(maxsplit=2)
        assert int(told[0]) != os.getpid()
        assert told[1:] == ["1", "[]"]
        assert running(int(told[0]))
    assert not running(int(told[0]))


def test_its_seconds_are_those_of_the_work(tmp_path: Path) -> None:
    with in_own_process(Work(tmp_path), threads=1) as contenders:
        chosen = {"there": contenders["sleep"], "too large": contenders["want_too_much"]}
        timings = measure_in_turn(chosen, device=CPU, budget=Budget(seconds=0.0))
    assert list(timings) == ["there"]
    assert timings["there"].n == 9
    assert timings["there"].seconds.min() >= 0.05


def test_errors_and_an_early_end_are_told(tmp_path: Path) -> None:
    with in_own_process(Work(tmp_path), threads=1) as contenders:
        with pytest.raises(RuntimeError, match="KeyError: 'a defect'"):
            contenders["fail"].call()
        assert contenders["sleep"].call() >= 0.05
        for _ in range(2):
            with pytest.raises(MemoryError, match="ended with -9"):
                contenders["die"].call()


def test_an_error_here_ends_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), in_own_process(Work(tmp_path), threads=1) as contenders:
        contenders["tell"].call()
        raise KeyboardInterrupt
    assert not running(int((tmp_path / "told").read_text().split()[0]))
