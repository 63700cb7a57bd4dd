"""The cores that others use, from a made-up /proc/stat and from a process that keeps a core busy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.device import load
from bench.device.load import ForeignLoad

TICK = 1 / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Four cores, of which this process may use the first two; nothing has run yet."""
    machine = SimpleNamespace(stat=tmp_path / "stat", now=0.0, own=0.0)
    monkeypatch.setattr(load, "_STAT", machine.stat)
    clock = SimpleNamespace(perf_counter=lambda: machine.now, process_time=lambda: machine.own)
    monkeypatch.setattr(load, "time", clock)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    write(machine, [[0] * 10] * 4)
    return machine


def write(machine: SimpleNamespace, seconds: list[list[float]]) -> None:
    """Seconds of each core in each of the ten columns of /proc/stat."""
    lines = [" ".join([f"cpu{core}", *(f"{value / TICK:.0f}" for value in row)]) for core, row in enumerate(seconds)]
    machine.stat.write_text("\n".join(["cpu  0 0 0 0 0 0 0 0 0 0", *lines, "intr 5"]))


def test_what_is_not_ours_on_our_cores_is_foreign(machine: SimpleNamespace) -> None:
    foreign = ForeignLoad()
    machine.now, machine.own = 10.0, 12.0
    #       user nice system idle iowait irq softirq steal guest guest_nice
    first = [6.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    second = [4.0, 0.0, 0.0, 3.0, 0.0, 0.5, 0.5, 2.0, 4.0, 0.0]
    others = [10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    write(machine, [first, second, others, others])
    assert foreign.cores() == pytest.approx((8 + 7 - 12) / 10)


def test_our_own_work_is_not_foreign(machine: SimpleNamespace) -> None:
    foreign = ForeignLoad()
    machine.now, machine.own = 5.0, 10.0
    write(machine, [[4.99, *[0.0] * 9]] * 4)  # ticks lag behind the clock
    assert foreign.cores() == 0.0


def test_a_system_without_proc_says_nothing(machine: SimpleNamespace) -> None:
    machine.stat.unlink()
    foreign = ForeignLoad()
    machine.now = 1.0
    assert foreign.cores() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_beside_us_is_seen() -> None:
    spinning = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", spinning]) as process:
        foreign = ForeignLoad()
        time.sleep(0.6)
        cores = foreign.cores()
        process.kill()
    assert cores is not None
    assert cores > 0.3
