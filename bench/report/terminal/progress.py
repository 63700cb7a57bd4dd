"""Progress of reading a dataset, which can take minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from bench.report.terminal.timing import SECONDS_BETWEEN_LINES, duration


@contextmanager
def images_checked(
    console: Console, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal, or a line at intervals elsewhere (pipe, CI).

    Yields a function to call with the number of images done and in total. `clock` returns seconds.
    """
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task("reading annotations", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total, description="checking images")
        return
    started = printed = clock()

    def report(done: int, total: int) -> None:
        nonlocal printed
        now = clock()
        if now - printed >= SECONDS_BETWEEN_LINES:
            printed = now
            left = duration((now - started) / done * (total - done))
            console.print(f"checking images: {done:,} of {total:,}, about {left} left", highlight=False)

    yield report
