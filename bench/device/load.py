"""How much of this machine's cores other processes use."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal: columns of a core's line, proc(5)


class ForeignLoad:
    """The cores that other processes use, from the creation of this object on.

    Counts the cores that this process may use only, and time that the host gave to other virtual machines.
    """

    def __init__(self) -> None:
        self._start = _snapshot()

    def cores(self) -> float | None:
        """The mean number of cores in use by others so far; None where the system does not say (Linux does)."""
        end = _snapshot()
        if self._start is None or end is None or end[0] <= self._start[0]:
            return None
        seconds, busy, own = (after - before for before, after in zip(self._start, end, strict=True))
        return max(0.0, busy - own) / seconds


def _snapshot() -> tuple[float, float, float] | None:
    """Seconds: on the clock, busy on all our cores together, and of this process on any core."""
    try:
        lines = _STAT.read_text().splitlines()
        ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    except (OSError, AttributeError):  # not Linux
        return None
    cores = [line.split() for line in lines if line.startswith("cpu")]
    ticks = sum(int(core[1 + column]) for core in cores if core[0] in ours for column in _BUSY)
    return time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time()
