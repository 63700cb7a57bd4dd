"""What stands in the terminal: the live display of a running matrix, and the ablation table after it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, get_args

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench.analysis.run_records import Run
from bench.data.subsets import SIZES
from bench.report import sentences
from bench.report.tables import ablation as tables
from bench.report.tables import columns
from bench.report.tables.typeset import MISSING
from bench.report.tables.typeset import Table as Typeset
from bench.report.verdict import Cited, Sentence
from bench.storage.records import CellState
from bench.storage.run_folder import LOG, RECORD

STATE_STYLES = {"waiting": "dim", "running": "bold", "done": "green", "failed": "bold red", "kept": "cyan"}
FINISHED = ("done", "failed", "kept")
SECONDS_BETWEEN_LINES = 20.0  # of progress of one cell, where the console is no terminal

TERMINAL_COLUMNS = ("images_per_second", "latency_p50_ms", "parameters_M", "forward_GFLOP", "train_seconds")
SHORT_HEADINGS = {
    "AP_small": "S",
    "AP_medium": "M",
    "AP_large": "L",
    "images_per_second": "img/s",
    "latency_p50_ms": "p50\nms",
    "parameters_M": "params\nM",
    "forward_GFLOP": "GFLOP",
    "train_seconds": "train\ns",
}


def print_ablation(run: Run, console: Console) -> None:
    """The ablation table as in a paper, and beneath it what failed, why, and where its log lies.

    AP in per cent. Where the console is too narrow for one table, speed and cost follow in a second one;
    where even that is too narrow, the names of the variants are broken at their plus signs.
    """
    table = tables.ablation(run)
    accuracy = ["variant", *run.axes, *columns.AP_COLUMNS]
    cost = list(TERMINAL_COLUMNS)
    console.print(Text(f"\n{sentences.subject(run)}; AP in per cent"))
    # From the most comfortable to the narrowest; the last one is taken where none fits.
    layouts = (
        [_terminal_table(table, run, [*accuracy, *cost], gap=gap, broken=broken)]
        if single
        else [_terminal_table(table, run, part, gap=gap, broken=broken) for part in (accuracy, ["variant", *cost])]
        for single, gap, broken in (
            (True, 2, False),
            (True, 1, False),
            (False, 2, False),
            (False, 1, False),
            (False, 1, True),
        )
    )
    for layout in layouts:
        if all(_width(part, console) <= console.width for part in layout):
            break
    for part in layout:
        console.print(part)
        console.print()
    console.print(Text(_counts(table), style="dim"))
    for cell, failure in run.failures():
        step = "" if failure.get("step") is None else f" at step {failure['step']}"
        line = Text.assemble(("failed ", "bold red"), (f"{cell.variant}, seed {cell.seed}{step}: ", "bold"))
        console.print(line.append(sentences.one_line(failure.get("cause"), 400)))
        console.print(Text(f"       see {run.folder_of(cell.id)}", style="dim"), soft_wrap=True)
        for name, what in ((RECORD, "traceback and last lines"), (LOG, "loss of each step")):
            if (run.folder_of(cell.id) / name).is_file():
                console.print(Text(f"           {name}: {what}", style="dim"))
    pending = [cell for cell in run.cells if run.status(cell) == "pending"]
    if pending:
        names = ", ".join(dict.fromkeys(cell.variant for cell in pending))
        console.print(Text(f"pending {len(pending)} of {len(run.cells)} cells: {names}", style="yellow"))


def print_verdict(verdict: Sequence[Sentence], console: Console) -> None:
    """The sentences as a list, their figures in bold; tables/verdict.md says where each figure stands."""
    console.print(Text("\nVerdict", style="bold"))
    for sentence in verdict:
        words = Text()
        for part in sentence.parts:
            words.append(part if isinstance(part, str) else part.text, "bold" if isinstance(part, Cited) else "")
        console.print(Padding(words, (0, 0, 0, 2)))
    console.print()


@dataclass(frozen=True, kw_only=True)
class CellLine:
    """A cell as the display names it."""

    id: str
    variant: str
    seed: int


@dataclass
class _Progress:
    """What is known of a cell; times are those of the display's clock, in seconds."""

    state: CellState = "waiting"
    phase: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    images_per_second: float | None = None
    ap: float | None = None
    started: float | None = None
    ended: float | None = None
    first: tuple[int, float] | None = None  # first step seen and when: a resumed cell starts in the middle
    latest: float = 0.0  # when `step` was reached
    printed: float | None = None


class LiveDisplay:
    """All cells of a matrix while it runs: state, phase, progress, loss, speed, and the time left.

    A context manager. On a terminal it is one table, redrawn four times a second; elsewhere (a pipe, CI)
    every change of state or phase is one plain line, and training one line per cell every 20 seconds.
    `update` may be called from any thread. `clock` gives seconds.
    """

    def __init__(
        self, cells: Sequence[CellLine], console: Console, *, clock: Callable[[], float] = time.monotonic
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
        """What is new of a cell; what is left out stays as it was. `ap` is a fraction of 1.

        Said again, nothing changes: who watches may tell what stands at every look. A cell that is set to
        running again (a retry) starts afresh. KeyError for a cell that is not shown.
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
                if step:  # the pace is that of the steps after the first, which sets much up once
                    was.first = was.first or (step, now)
            if self._live is None:
                self._report(cell_id, changed=before != (was.state, was.phase), now=now)

    def seconds_left(self) -> float | None:
        """An estimate from finished and running cells, as if as many cells ran at once as now; None at first.

        A cell's whole time is the mean of those that finished in this call, or, before the first has,
        what the running ones have taken and still need at their present pace.
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
        """The table of cells and the line beneath it, at most as high as the console."""
        with self._lock:
            now = self._clock()
            wide = self._console.width >= 90
            table = _table(gap=2 if wide else 1)
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
                    Text(_doing(cell), style=STATE_STYLES[cell.state]),
                    ProgressBar(total=total, completed=fraction) if cell.state != "waiting" else "",
                    f"{cell.step}/{cell.steps}" if cell.steps else "",
                    "" if cell.loss is None else f"{cell.loss:.2f}",
                    *(["" if cell.images_per_second is None else f"{cell.images_per_second:.1f}"] if wide else []),
                    "" if cell.started is None else _clock_time(_seconds(cell, now)),
                    "" if cell.ap is None else columns.per_cent(cell.ap),
                )
            hidden = len(self._cells) - len(shown)
            parts: list[RenderableType] = [table]
            if hidden:
                parts.append(Text(f"and {hidden} more cells", style="dim"))
            return Group(*parts, Text(self._overall(), style="bold"))

    def _shown(self) -> list[str]:
        """Cells that fit the console's height, the most telling states first, in the order of the plan."""
        room = max(1, self._console.height - 6)  # heading, rule, cells not shown, two lines of overall, cursor
        if len(self._cells) <= room:
            return list(self._cells)
        telling = ("running", "failed", "done", "waiting", "kept")
        ranked = sorted(
            self._cells,
            key=lambda cell: (telling.index(self._progress[cell].state), -(self._progress[cell].ended or 0.0)),
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
        return f"{text}, time left {'not known yet' if left is None else 'about ' + duration(left)}"

    def _name(self, cell_id: str) -> str:
        cell = self._cells[cell_id]
        return f"{cell.variant} #{cell.seed}" if self._several_seeds else cell.variant

    def _report(self, cell_id: str, *, changed: bool, now: float) -> None:
        """Where there is no terminal: a line for a change, and now and then one for the progress."""
        cell = self._progress[cell_id]
        if changed:
            text = _doing(cell)
            if cell.ap is not None:
                text += f", AP {columns.per_cent(cell.ap)}%"
            if cell.state in FINISHED:
                states = [other.state for other in self._progress.values()]
                finished = sum(state in FINISHED for state in states)
                text += f", after {duration(_seconds(cell, now))}" if cell.started is not None else ""
                text += f" ({finished} of {len(states)} finished)"
        elif cell.state == "running" and cell.steps and cell.step:
            if cell.printed is not None and now - cell.printed < SECONDS_BETWEEN_LINES:
                return
            text = f"{_doing(cell)}, step {cell.step}/{cell.steps}"
            text += "" if cell.loss is None else f", loss {cell.loss:.2f}"
            text += "" if cell.images_per_second is None else f", {cell.images_per_second:.1f} images/s"
            left = self.seconds_left()
            text += "" if left is None else f", all done in about {duration(left)}"
            cell.printed = now
        else:
            return
        self._line(f"{self._name(cell_id)}: {text}")

    def _line(self, text: str) -> None:
        self._console.print(
            f"[{duration(self._clock() - self._started)}] {text}", markup=False, highlight=False, soft_wrap=True
        )


def duration(seconds: float) -> str:
    """7 s, 2 min 05 s, 12 min, 3 h 07 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _clock_time(seconds: float) -> str:
    """2:05, 3:07:12."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _seconds(cell: _Progress, now: float) -> float:
    if cell.started is None:
        return 0.0
    return (now if cell.ended is None else cell.ended) - cell.started


def _training_left(cell: _Progress) -> float | None:
    """Seconds of training left at the pace of the steps seen so far."""
    if cell.first is None or cell.step <= cell.first[0]:
        return None
    pace = (cell.latest - cell.first[1]) / (cell.step - cell.first[0])
    return pace * max(0, cell.steps - cell.step)


def _doing(cell: _Progress) -> str:
    return cell.phase or cell.state if cell.state == "running" else cell.state


def _width(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=1000), table).maximum


def _terminal_table(table: Typeset, run: Run, names: Sequence[str], *, gap: int, broken: bool) -> Table:
    """Some columns of the printed ablation table, `gap` apart; the deviation over seeds stands beneath its mean."""
    places = {heading.name: place for place, heading in enumerate(table.headings)}
    out = _table(gap=gap)
    short_axes = _short(run.axes) if len(names) > 1 + len(run.axes) + len(columns.AP_COLUMNS) else {}
    for name in names:
        text = SHORT_HEADINGS.get(name) or short_axes.get(name) or table.headings[places[name]].text
        heading = table.headings[places[name]]
        justify: Literal["left", "center", "right"] = (
            "left" if heading.left else "center" if name in run.axes else "right"
        )
        out.add_column(Text(text), justify=justify, no_wrap=not broken, vertical="top")
    for row, variant in zip(table.rows, run.variants, strict=True):
        texts = []
        for name in names:
            entry = row[places[name]]
            text = entry.text.replace(" ± ", "\n±")
            if name == "variant":
                text = text.replace("+", "+\n") if broken else text
                style = "red" if sentences.status(run, variant) == "failed" else ""
            else:
                style = "bold" if entry.best else "dim" if entry.text == MISSING else ""
            texts.append(Text(text, style=style))
        out.add_row(*texts)
    return out


def _table(*, gap: int) -> Table:
    # The box itself has one space between columns.
    padding = (0, gap - 1, 0, 0)
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=padding, show_edge=False)


def _short(axes: Sequence[str]) -> dict[str, str]:
    """Axis names cut to four letters, where they can still be told apart."""
    short = {axis: axis[:4] for axis in axes}
    return short if len(set(short.values())) == len(short) else {}


def _counts(table: Typeset) -> str:
    parts = []
    for size in SIZES:
        counts = table.frame[f"ground_truths_{size}"].dropna()
        if len(counts):
            parts.append(f"{size[0].upper()} {size} n={counts.iloc[0]}")
    return f"Ground truths by size: {', '.join(parts)}" if parts else "No cell has finished yet"
