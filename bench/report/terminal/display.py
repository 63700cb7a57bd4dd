"""The live display of a run: state, progress and speed of every cell, and the time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import get_args

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from bench.report.tables.formats import percent
from bench.report.terminal.tables import rich_table
from bench.report.terminal.timing import SECONDS_BETWEEN_LINES, clock_time, duration
from bench.storage.records import CellState

STATE_STYLES = {"waiting": "dim", "running": "bold", "done": "green", "failed": "bold red", "kept": "cyan"}
FINISHED = ("done", "failed", "kept")


@dataclass(frozen=True, kw_only=True)
class CellLabel:
    """Identity of a displayed cell."""

    id: str
    variant: str
    seed: int


@dataclass
class _Progress:
    """Progress of a cell; times in seconds of the display's clock."""

    state: CellState = "waiting"
    phase: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    images_per_second: float | None = None
    ap: float | None = None
    started: float | None = None
    ended: float | None = None
    first: tuple[int, float] | None = None  # first step seen and its time; a resumed cell starts midway
    latest: float = 0.0  # when `step` was reached
    printed: float | None = None


class LiveDisplay:
    """Shows all cells of a run: state, phase, progress, loss, speed, and the time left.

    A context manager. On a terminal it redraws one table four times a second. Elsewhere (pipe, CI) it prints a line for
    every change of state or phase, and a line of training progress per cell every 20 seconds. `update` is thread-safe.
    `clock` returns seconds.
    """

    def __init__(
        self, cells: Sequence[CellLabel], console: Console, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cells = {cell.id: cell for cell in cells}
        self._progress = {cell.id: _Progress() for cell in cells}
        self._several_seeds = len({cell.seed for cell in cells}) > 1
        self._console = console
        self._clock = clock
        self._started = clock()
        self._lock = threading.RLock()
        self._live: Live | None = None

    def __enter__(self) -> LiveDisplay:
        self._started = self._clock()
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self.render, refresh_per_second=4, vertical_overflow="crop"
            )
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        else:
            self._line(self._overall())

    def update(
        self,
        cell_id: str,
        *,
        state: CellState | None = None,
        step: int | None = None,
        steps: int | None = None,
        loss: float | None = None,
        images_per_second: float | None = None,
        phase: str | None = None,
        ap: float | None = None,
    ) -> None:
        """Update a cell; None leaves a value unchanged. ap: fraction of 1.

        Idempotent: callers may repeat the current state. Setting a finished cell to running (a retry) resets its
        progress. Raises KeyError for an unknown cell.
        """
        assert state is None or state in get_args(CellState), state
        with self._lock:
            now = self._clock()
            was = self._progress[cell_id]
            before = (was.state, was.phase)
            if state == "running" and was.state != "running":
                was = self._progress[cell_id] = _Progress(started=now)
            if state is not None and state != was.state:
                was.state = state
                was.ended = now if state in FINISHED else None
            was.phase = was.phase if phase is None else phase
            was.loss = was.loss if loss is None else loss
            was.images_per_second = was.images_per_second if images_per_second is None else images_per_second
            was.ap = was.ap if ap is None else ap
            was.steps = was.steps if steps is None else steps
            if step is not None and (was.first is None or step != was.step):
                was.step, was.latest = step, now
                if step:  # the first step includes one-time setup, so the pace starts after it
                    was.first = was.first or (step, now)
            if self._live is None:
                self._report(cell_id, changed=before != (was.state, was.phase), now=now)

    def seconds_left(self) -> float | None:
        """Estimated time left at the current number of parallel cells; None until an estimate is possible.

        The time per cell is the mean over cells finished in this session. Before the first has finished, it is the
        elapsed time of the running cells plus their remaining time at the current pace.
        """
        with self._lock:
            now = self._clock()
            everything = list(self._progress.values())
            running = [cell for cell in everything if cell.state == "running" and cell.started is not None]
            waiting = sum(cell.state == "waiting" for cell in everything)
            if not running and not waiting:
                return 0.0
            whole = [_seconds(cell, now) for cell in everything if cell.state == "done" and cell.started is not None]
            paces = [(cell, _training_left(cell)) for cell in running]
            if not whole:
                whole = [_seconds(cell, now) + left for cell, left in paces if left is not None]
            if not whole:
                return None
            typical = sum(whole) / len(whole)
            left = [max(typical - _seconds(cell, now), pace or 0.0) for cell, pace in paces]
            at_once = max(1, len(running))
            return max([(sum(left) + waiting * typical) / at_once, *left])

    def render(self) -> RenderableType:
        """The table of cells and a summary line, limited to the height of the console."""
        with self._lock:
            now = self._clock()
            wide = self._console.width >= 90
            table = rich_table(gap=2 if wide else 1)
            table.add_column("cell", no_wrap=True, overflow="ellipsis")
            table.add_column("state", no_wrap=True)
            table.add_column("progress", no_wrap=True, width=20 if wide else 8)
            table.add_column("step", justify="right", no_wrap=True)
            table.add_column("loss", justify="right", no_wrap=True)
            if wide:
                table.add_column("img/s", justify="right", no_wrap=True)
            table.add_column("time", justify="right", no_wrap=True)
            table.add_column("AP %", justify="right", no_wrap=True)
            shown = self._shown()
            for cell_id in shown:
                cell = self._progress[cell_id]
                total = cell.steps or 1
                fraction = total if cell.state in ("done", "kept") else min(cell.step, total)
                table.add_row(
                    Text(self._name(cell_id)),
                    Text(_activity(cell), style=STATE_STYLES[cell.state]),
                    ProgressBar(total=total, completed=fraction) if cell.state != "waiting" else "",
                    f"{cell.step}/{cell.steps}" if cell.steps else "",
                    "" if cell.loss is None else f"{cell.loss:.2f}",
                    *(["" if cell.images_per_second is None else f"{cell.images_per_second:.1f}"] if wide else []),
                    "" if cell.started is None else clock_time(_seconds(cell, now)),
                    "" if cell.ap is None else percent(cell.ap),
                )
            hidden = len(self._cells) - len(shown)
            parts: list[RenderableType] = [table]
            if hidden:
                parts.append(Text(f"and {hidden} more cells", style="dim"))
            return Group(*parts, Text(self._overall(), style="bold"))

    def _shown(self) -> list[str]:
        """The cells that fit on the console, chosen by importance of their state, in plan order."""
        room = max(1, self._console.height - 6)  # heading, rule, hidden cells, two summary lines, cursor
        if len(self._cells) <= room:
            return list(self._cells)
        importance = ("running", "failed", "done", "waiting", "kept")
        ranked = sorted(
            self._cells,
            key=lambda cell: (importance.index(self._progress[cell].state), -(self._progress[cell].ended or 0.0)),
        )
        chosen = set(ranked[:room])
        return [cell for cell in self._cells if cell in chosen]

    def _overall(self) -> str:
        now = self._clock()
        states = [cell.state for cell in self._progress.values()]
        counts = [f"{states.count(state)} {state}" for state in get_args(CellState) if state in states]
        finished = sum(state in FINISHED for state in states)
        text = f"{finished} of {len(states)} cells finished ({', '.join(counts)}), {duration(now - self._started)}"
        left = self.seconds_left()
        if finished == len(states):
            return text
        return f"{text}, time left {'unknown' if left is None else 'about ' + duration(left)}"

    def _name(self, cell_id: str) -> str:
        cell = self._cells[cell_id]
        return f"{cell.variant} #{cell.seed}" if self._several_seeds else cell.variant

    def _report(self, cell_id: str, *, changed: bool, now: float) -> None:
        """Without a terminal: print a line for a change, and a progress line at intervals."""
        cell = self._progress[cell_id]
        if changed:
            text = _activity(cell)
            if cell.ap is not None:
                text += f", AP {percent(cell.ap)}%"
            if cell.state in FINISHED:
                states = [other.state for other in self._progress.values()]
                finished = sum(state in FINISHED for state in states)
                text += f", after {duration(_seconds(cell, now))}" if cell.started is not None else ""
                text += f" ({finished} of {len(states)} finished)"
        elif cell.state == "running" and cell.steps and cell.step:
            if cell.printed is not None and now - cell.printed < SECONDS_BETWEEN_LINES:
                return
            text = f"{_activity(cell)}, step {cell.step}/{cell.steps}"
            text += "" if cell.loss is None else f", loss {cell.loss:.2f}"
            text += "" if cell.images_per_second is None else f", {cell.images_per_second:.1f} images/s"
            left = self.seconds_left()
            text += "" if left is None else f", about {duration(left)} left in total"
            cell.printed = now
        else:
            return
        self._line(f"{self._name(cell_id)}: {text}")

    def _line(self, text: str) -> None:
        self._console.print(
            f"[{duration(self._clock() - self._started)}] {text}", markup=False, highlight=False, soft_wrap=True
        )


def _seconds(cell: _Progress, now: float) -> float:
    if cell.started is None:
        return 0.0
    return (now if cell.ended is None else cell.ended) - cell.started


def _training_left(cell: _Progress) -> float | None:
    """Seconds of training left at the pace so far."""
    if cell.first is None or cell.step <= cell.first[0]:
        return None
    pace = (cell.latest - cell.first[1]) / (cell.step - cell.first[0])
    return pace * max(0, cell.steps - cell.step)


def _activity(cell: _Progress) -> str:
    return cell.phase or cell.state if cell.state == "running" else cell.state
