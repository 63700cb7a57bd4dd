"""A call in a fresh process returns its answer, its error, or None if the process died."""

from __future__ import annotations

import os
import signal
import time

import pytest

from bench.errors import UserError
from bench.speed.fresh_process import in_fresh_process


def own_process(*arguments: object) -> tuple[object, ...]:
    return os.getpid(), *arguments


def fail(error: Exception) -> None:
    raise error


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_answer_comes_from_another_process() -> None:
    answer = in_fresh_process(own_process, "a", 2, cpu_kernels=False)
    assert answer is not None
    process, *arguments = answer
    assert process != os.getpid()
    assert arguments == ["a", 2]


@pytest.mark.parametrize(
    ("error", "text"),
    [(KeyError("a defect"), "KeyError: 'a defect'"), (UserError("delete it"), "^delete it$")],
)
def test_errors_are_raised(error: Exception, text: str) -> None:
    with pytest.raises(RuntimeError, match=text):
        in_fresh_process(fail, error, cpu_kernels=False)


def test_a_process_that_died_has_no_answer() -> None:
    assert in_fresh_process(die, cpu_kernels=False) is None


def test_a_process_that_hangs_is_ended() -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.5 s"):
        in_fresh_process(time.sleep, 60, cpu_kernels=False, most_seconds=0.5)
    assert time.monotonic() - start < 30
