"""Terminal output at common widths and in a pipe."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench.analysis.results import analyse
from bench.analysis.run_records import load_run
from bench.report.tables.ablation import ablation_table
from bench.report.terminal.ablation import print_ablation
from bench.report.terminal.display import CellLabel, LiveDisplay
from bench.report.terminal.timing import duration
from tests.report.made_run import write_run


class Clock:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def printed(folder: Path, width: int) -> list[str]:
    out = io.StringIO()
    run = load_run(folder)
    print_ablation(run, ablation_table(analyse(run)), Console(file=out, width=width))
    return out.getvalue().splitlines()


def cells(count: int) -> list[CellLabel]:
    return [CellLabel(id=str(number), variant=f"variant {number}", seed=0) for number in range(count)]


def piped(count: int, clock: Clock) -> tuple[LiveDisplay, io.StringIO]:
    out = io.StringIO()
    return LiveDisplay(cells(count), Console(file=out, width=80, force_terminal=False), clock=clock), out


def terminal(display_cells: list[CellLabel], clock: Clock, *, width: int = 100, height: int = 40) -> LiveDisplay:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    return LiveDisplay(display_cells, console, clock=clock)


def screen(display: LiveDisplay, *, width: int = 100) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(display.render())
    return out.getvalue().splitlines()


def test_one_table_at_100_columns(tmp_path: Path) -> None:
    lines = printed(write_run(tmp_path / "run"), 100)
    (row,) = [line for line in lines if line.startswith("fpn+anchors+unfreezing")]
    assert row.count("✓") == 3 and len(row) <= 100
    assert len(row.split()) == 1 + 3 + 7 + 5
    assert sum(line.startswith("variant") for line in lines) == 1


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_no_row_wraps_at_80_columns(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    folder = write_run(tmp_path / "run", seeds=seeds, controls=("lateral-only",))
    lines = printed(folder, 80)
    assert max(map(len, lines)) <= 80
    assert "…" not in "\n".join(lines)
    for variant in load_run(folder).variants:
        # One line with accuracy and one with cost.
        assert sum(line.split(" ")[0] == variant for line in lines) == 2
    headings = [line.split() for line in lines if line.startswith("variant")]
    assert headings[0] == ["variant", "fpn", "anchors", "unfreezing", "AP", "ΔAP", "AP50", "AP75", "S", "M", "L"]


def test_long_names_break_at_plus_signs(tmp_path: Path) -> None:
    axes = ("pyramid", "anchors", "unfreezing", "giou")
    everything = dict.fromkeys(axes, True)
    lines = printed(write_run(tmp_path / "run", factors=[dict.fromkeys(axes, False), everything], seeds=(0, 1)), 80)
    assert any(line.startswith("pyramid+ ") for line in lines) and any(line.startswith("giou ") for line in lines)
    assert max(map(len, lines)) <= 80


def test_failures_show_cause_and_folder(tmp_path: Path) -> None:
    cause = "the loss is [red]not finite[/red] in [bold]"
    folder = write_run(tmp_path / "run", failed={("fpn", 0): cause}, pending=[("anchors", 0)])
    lines = printed(folder, 100)
    text = "\n".join(lines)
    assert f"failed fpn, seed 0 at step 12: {cause}" in text
    run = load_run(folder)
    assert str(run.folder_of(next(cell.id for cell in run.cells if cell.variant == "fpn"))) in text
    assert "record.json" in text and "pending 1 of 8 cells: anchors" in text
    (row,) = [line for line in lines if line.startswith("fpn  ")]
    assert row.count("n/a") == 12
    assert "S small n=118" in text


def test_a_pipe_gets_a_line_per_change_and_progress_every_20_seconds() -> None:
    clock = Clock()
    display, out = piped(2, clock)
    with display:
        display.update("0", state="running", phase="preparing")
        display.update("0", phase="training", step=0, steps=100)
        for step in range(1, 61):  # one step a second
            clock.now += 1
            display.update("0", step=step, loss=5.0, images_per_second=16.0)
        display.update("0", state="done", ap=0.314)
        display.update("1", state="failed")
    lines = out.getvalue().splitlines()
    assert lines[0] == "[0 s] variant 0: preparing"
    assert lines[1] == "[0 s] variant 0: training"
    progress = [line for line in lines if "step" in line]
    assert [line.split("step ")[1].split("/")[0] for line in progress] == ["1", "21", "41"]
    assert "loss 5.00, 16.0 images/s" in progress[0]
    assert "[1 min 00 s] variant 0: done, AP 31.4%, after 1 min 00 s (1 of 2 finished)" in lines
    assert "[1 min 00 s] variant 1: failed (2 of 2 finished)" in lines
    assert lines[-1].endswith("2 of 2 cells finished (1 done, 1 failed), 1 min 00 s")
    assert "\x1b" not in out.getvalue()


def test_square_brackets_are_not_markup_in_a_pipe() -> None:
    display, out = piped(1, Clock())
    display.update("0", state="running", phase="fitting [bold] priors")
    assert out.getvalue() == "[0 s] variant 0: fitting [bold] priors\n"


def test_the_table_shows_phase_loss_speed_and_time_of_every_cell() -> None:
    clock = Clock()
    display = terminal(cells(4), clock)
    with display:
        display.update("0", state="kept", ap=0.25)
        display.update("1", state="running", phase="training", step=0, steps=200)
        clock.now += 65
        display.update("1", step=50, loss=3.456, images_per_second=12.34)
        display.update("2", state="running", phase="measuring speed")
        lines = screen(display)
    by_cell = {" ".join(line.split()[:2]): line for line in lines}
    assert "kept" in by_cell["variant 0"] and by_cell["variant 0"].rstrip().endswith("25.0")
    for part in ("training", "50/200", "3.46", "12.3", "1:05"):
        assert part in by_cell["variant 1"]
    assert "measuring speed" in by_cell["variant 2"] and "waiting" in by_cell["variant 3"]
    assert lines[-1].startswith("1 of 4 cells finished (1 waiting, 2 running, 1 kept), 1 min 05 s")


@pytest.mark.parametrize("width", [80, 100])
def test_a_low_terminal_shows_the_most_important_cells(width: int) -> None:
    clock = Clock()
    display = terminal(cells(40), clock, width=width, height=14)
    for number in range(20):
        display.update(str(number), state="running")
        display.update(str(number), state="done", ap=0.2)
    display.update("3", state="failed")
    display.update("30", state="running", phase="evaluating")
    lines = screen(display, width=width)
    assert len(lines) < 14 and max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "variant 30" in text and "evaluating" in text and "failed" in text
    assert "and 32 more cells" in text and "20 of 40 cells finished" in text


def test_time_left_before_the_first_cell_has_finished_uses_its_pace() -> None:
    clock = Clock()
    display, _ = piped(4, clock)
    assert display.seconds_left() is None
    display.update("0", state="running", phase="training")
    clock.now += 10  # building the network
    # Resumed from a checkpoint: step 50 after 10 seconds is not the pace.
    display.update("0", step=50, steps=100)
    assert display.seconds_left() is None
    clock.now += 20
    display.update("0", step=60)
    # Left: 40 steps of 2 s, and three cells of 10 + 20 + 80 s.
    assert display.seconds_left() == pytest.approx(80 + 3 * 110)


def test_a_slow_first_step_does_not_count_for_the_pace() -> None:
    clock = Clock()
    display, _ = piped(1, clock)
    display.update("0", state="running", phase="training", step=0, steps=90)
    clock.now += 14  # the first step compiles kernels
    display.update("0", step=1)
    assert display.seconds_left() is None
    clock.now += 2
    display.update("0", step=3)
    assert display.seconds_left() == pytest.approx(87)


def test_time_left_counts_finished_cells_and_how_many_run_at_once() -> None:
    clock = Clock()
    display, _ = piped(7, clock)
    display.update("0", state="running")
    clock.now += 100
    display.update("0", state="done")
    display.update("1", state="kept")  # takes no time now and must not shorten the estimate
    display.update("2", state="running")
    display.update("2", state="failed")  # nor must an early failure
    display.update("3", state="running")
    display.update("4", state="running")
    clock.now += 40
    assert display.seconds_left() == pytest.approx((60 + 60 + 2 * 100) / 2)
    for cell_id in ("3", "4", "5", "6"):
        display.update(cell_id, state="done")
    assert display.seconds_left() == 0


def test_repeated_updates_do_not_change_the_time_left() -> None:
    clock = Clock()
    display, _ = piped(3, clock)
    display.update("0", state="running", step=1, steps=10)
    clock.now += 100
    display.update("0", state="done", step=10)
    display.update("1", state="running")
    for _ in range(30):
        clock.now += 1
        display.update("0", state="done", step=10)
        display.update("1", state="running")
    assert display.seconds_left() == pytest.approx(70 + 100)


def test_a_retry_resets_the_progress() -> None:
    clock = Clock()
    display = terminal(cells(1), clock)
    display.update("0", state="running", step=70, steps=100, loss=9.0)
    display.update("0", state="failed")
    clock.now += 50
    display.update("0", state="running", phase="preparing")
    (line,) = [line for line in screen(display) if line.startswith("variant 0")]
    assert "70/100" not in line and "9.00" not in line and "0:00" in line


def test_an_unknown_cell_raises_key_error() -> None:
    display, _ = piped(1, Clock())
    with pytest.raises(KeyError):
        display.update("9", state="running")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (1500, "25 min"), (11230, "3 h 07 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
