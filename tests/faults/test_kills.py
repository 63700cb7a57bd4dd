"""`kill -9` at random times: the same command then ends with the same tables, and repeats at most a tenth of a cell.

Ordinarily three kills: of a worker, of the parent alone, of the whole group. The long form makes 150 at instants spread
over everything that a run does, and 50 while the default network trains; it prints what it counted (docs/faults.md).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

import run_all
from bench.detector.backbones import DEFAULT_LIGHT
from bench.storage.records import read_json, read_log
from tests import tiny
from tests.faults.conftest import start
from tests.small_runs import without_clocks

STEPS = 40
LONG_KILLS = {tiny.NAME: 150, DEFAULT_LIGHT: 50}  # by network
LONGEST_START = 300.0  # seconds

Victim = Literal["worker", "parent", "group"]
VICTIMS: tuple[Victim, ...] = ("worker", "parent", "group")

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="workers are found in /proc"),
    pytest.mark.usefixtures("undrawn"),
]


@dataclass
class Tally:
    """Counts over many kills. repeated: for each kill during training, the steps that were done twice."""

    kills: Counter[str] = field(default_factory=Counter)
    while_training: int = 0
    repeated: list[int] = field(default_factory=list)
    runs_finished: int = 0


@pytest.fixture
def request_of(words: list[str], request: pytest.FixtureRequest) -> Callable[[Path], list[str]]:
    """The same request for any folder, with the tiny network or that of the parameter."""
    words[words.index("--steps") + 1] = str(STEPS)
    network = getattr(request, "param", tiny.NAME)
    if network != tiny.NAME:
        words[words.index("--backbone") + 1] = network
        words[words.index("--weights") + 1] = "pretrained"

    def for_folder(run: Path) -> list[str]:
        return [*words[: words.index("--out") + 1], str(run), *words[words.index("--out") + 2 :]]

    return for_folder


@pytest.fixture
def whole(request_of: Callable[[Path], list[str]], tmp_path: Path) -> Path:
    """The uninterrupted run."""
    run = tmp_path / "whole"
    assert run_all.main(request_of(run)) == 0
    return run


def begun_like(whole: Path, run: Path) -> Path:
    """A folder with only the plan: the precision is decided once per run, by a clock."""
    run.mkdir()
    shutil.copy(whole / "plan.json", run / "plan.json")
    return run


def test_three_kills_end_in_the_same_tables(
    request_of: Callable[[Path], list[str]], whole: Path, tmp_path: Path
) -> None:
    run, tally = begun_like(whole, tmp_path / "broken"), Tally()
    generator = np.random.default_rng(0)
    for part, victim in enumerate(VICTIMS):
        step = 1 + int(generator.integers(12 * part, 12 * part + 12))
        assert kill(request_of(run), run, victim, tally, until=_at_step(run, step, float(generator.exponential(0.02))))
    assert finish(request_of(run), run, tally)
    assert_equal(run, whole)
    assert_at_most_a_tenth_repeated(tally)
    assert len(tally.repeated) == 3  # every start after a kill resumed training


@pytest.mark.slow
@pytest.mark.parametrize(("request_of", "network"), [(name, name) for name in LONG_KILLS], indirect=["request_of"])
def test_two_hundred_kills_end_in_the_same_tables(
    request_of: Callable[[Path], list[str]],
    network: str,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On the tiny network half of them after a random time from the start, which may come before or after training, and
    half at a random step; on the other all at a random step, and only those count that found it training.

    A run that ends before it is killed is compared, and the next kills are those of a new one.
    """
    generator, tally, number = np.random.default_rng(), Tally(), 0
    run = begun_like(whole, tmp_path / "broken-0")
    begun = time.monotonic()
    seconds_of_a_start = _timed_start(request_of, whole, tmp_path)
    anywhere = network == tiny.NAME
    while (tally.kills.total() if anywhere else tally.while_training) < LONG_KILLS[network]:
        victim = VICTIMS[int(generator.integers(len(VICTIMS)))]
        done = highest_step(run)
        if done == STEPS or (anywhere and generator.random() < 0.5):
            until = _after(float(generator.uniform(0, seconds_of_a_start)))
        else:
            until = _at_step(run, int(generator.integers(done, STEPS)) + 1, float(generator.exponential(0.02)))
        if not kill(request_of(run), run, victim, tally, until=until):
            assert_equal(run, whole)
            number += 1
            run = begun_like(whole, tmp_path / f"broken-{number}")
    assert finish(request_of(run), run, tally)
    assert_equal(run, whole)
    assert_at_most_a_tenth_repeated(tally)
    with capsys.disabled():
        print(
            f"\n{network}: {tally.kills.total()} kills ({dict(tally.kills)}), {tally.while_training} while training; "
            f"{tally.runs_finished} runs ended, all equal to the uninterrupted one; at most "
            f"{max(tally.repeated, default=0)} of {STEPS} steps repeated; {(time.monotonic() - begun) / 60:.0f} minutes"
        )


def kill(words: Sequence[str], run: Path, victim: Victim, tally: Tally, *, until: Callable[[], bool]) -> bool:
    """Start the command and kill it when `until` holds; False if it ended before."""
    before = highest_step(run), len(trainings_of(run))
    process = start(words)
    deadline = time.monotonic() + LONGEST_START
    while process.poll() is None and not until():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    if process.poll() is not None:
        return _ended(process, run, before, tally)
    training = bool(workers(run)) and not any(run.glob("cells/*/record.json"))
    _kill(process, run, victim)
    _count_repeated(run, before, tally)
    tally.kills[victim] += 1
    tally.while_training += training
    return True


def finish(words: Sequence[str], run: Path, tally: Tally) -> bool:
    """Start the command and wait for it; True."""
    before = highest_step(run), len(trainings_of(run))
    process = start(words)
    return not _ended(process, run, before, tally)


def _ended(process: subprocess.Popen[str], run: Path, before: tuple[int, int], tally: Tally) -> bool:
    printed, _ = process.communicate(timeout=LONGEST_START)
    assert process.returncode == 0, printed
    assert "Traceback" not in printed
    _count_repeated(run, before, tally)
    tally.runs_finished += 1
    return False


def _kill(process: subprocess.Popen[str], run: Path, victim: Victim) -> None:
    if victim == "worker" and (found := workers(run)):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # The other cells go on, and the run ends with a record of the failure
        process.communicate(timeout=LONGEST_START)
        assert process.returncode in (0, 1)  # 0: it was killed after its work was done
        return
    with contextlib.suppress(ProcessLookupError):
        (process.kill if victim == "parent" else lambda: os.killpg(process.pid, signal.SIGKILL))()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _count_repeated(run: Path, before: tuple[int, int], tally: Tally) -> None:
    """The steps that the latest start repeated, if it came to training."""
    step, trainings = before
    starts = trainings_of(run)
    if step and len(starts) > trainings:
        tally.repeated.append(max(0, step - starts[-1]))


def trainings_of(run: Path) -> list[int]:
    """The steps at which training of the one cell began, in the order of the starts."""
    lines = [line for path in run.glob("cells/*/log.jsonl") for line in read_log(path)]
    return [line["resumed_from"] for line in lines if "resumed_from" in line]


def highest_step(run: Path) -> int:
    """The last step in any log."""
    return max((line.get("step", 0) for path in run.glob("cells/*/log.jsonl") for line in read_log(path)), default=0)


def workers(run: Path) -> list[int]:
    """Processes that print into a cell's `output.txt`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):
                output = (process / "fd/1").readlink()
                if output.name == "output.txt" and run in output.parents:
                    found.append(int(process.name))
    return found


def assert_equal(run: Path, whole: Path) -> None:
    """Everything but clocks equals the uninterrupted run. Every cell has one record; kills leave no files."""
    pd.testing.assert_frame_equal(without_clocks(run), without_clocks(whole), check_exact=True)
    expected = sorted(path.relative_to(whole) for path in whole.glob("cells/*/record.json"))
    assert sorted(path.relative_to(run) for path in run.glob("cells/*/record.json")) == expected
    for path in whole.glob("cells/*/detections.json"):
        assert (run / path.relative_to(whole)).read_bytes() == path.read_bytes()
    for path in (run / expected_path for expected_path in expected):
        assert read_json(path)["accuracy"] == read_json(whole / path.relative_to(run))["accuracy"]
    steps = [[line["step"] for line in read_log(path) if "step" in line] for path in run.glob("cells/*/log.jsonl")]
    assert steps == [list(range(1, STEPS + 1))]
    left = {path.name for path in run.rglob("*") if path.is_file() and path.name.startswith((".", "checkpoint"))}
    assert left == set()
    assert not (run / "in-use.json").exists()


def assert_at_most_a_tenth_repeated(tally: Tally) -> None:
    assert max(tally.repeated, default=0) <= STEPS // 10, tally.repeated


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _at_step(run: Path, step: int, later: float) -> Callable[[], bool]:
    """A random time after a step was logged, maybe during a write."""

    def reached() -> bool:
        if highest_step(run) < step:
            return False
        time.sleep(later)
        return True

    return reached


def _timed_start(request_of: Callable[[Path], list[str]], whole: Path, folder: Path) -> float:
    """Duration of a whole run in seconds."""
    run = begun_like(whole, folder / "timed")
    begun = time.monotonic()
    assert finish(request_of(run), run, Tally())
    return time.monotonic() - begun
