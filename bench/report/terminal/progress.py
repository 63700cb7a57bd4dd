"""How far the reading of a data set is: minutes of it before anything else can be shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from bench.report.terminal.display import SECONDS_BETWEEN_LINES, duration


@contextmanager
def images_checked(
    console: Console, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere (a pipe, CI) now and then a line.

    Gives what is to be called with the number of images done and of all. `clock` gives seconds.
    """
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task("reading annotations", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total, description="checking images")
        return
    first = said = clock()

    def say(done: int, total: int) -> None:
        nonlocal said
        now = clock()
        if now - said >= SECONDS_BETWEEN_LINES:
            said = now
            left = duration((now - first) / done * (total - done))
            console.print(f"checking images: {done:,} of {total:,}, about {left} left", highlight=False)

    yield say
