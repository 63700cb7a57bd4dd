"""Progress of reading a dataset."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

import run_all
from bench.report.terminal.progress import images_checked


def test_a_pipe_gets_a_line_at_intervals() -> None:
    printed, now = io.StringIO(), 0.0
    with images_checked(Console(file=printed, width=100), clock=lambda: now) as checked:
        for done in range(1, 4001):
            now += 0.01
            checked(done, 4000)
    assert printed.getvalue().splitlines() == [
        "checking images: 2,000 of 4,000, about 20 s left",
        "checking images: 4,000 of 4,000, about 0 s left",
    ]


def test_a_terminal_gets_a_bar() -> None:
    printed = io.StringIO()
    console = Console(file=printed, width=100, force_terminal=True, legacy_windows=False)
    with images_checked(console) as checked:
        for done in range(1, 101):
            checked(done, 100)
    assert "reading annotations" in printed.getvalue()
    assert "checking images" in printed.getvalue()
    assert "100/100" in printed.getvalue()


def test_the_command_shows_progress(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.report.terminal.progress.SECONDS_BETWEEN_LINES", 0.0)
    words = ["preflight", "--data", f"voc:{pictures}", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path)]
    assert run_all.main(words) == 0
    assert "checking images: 10 of 10, about 0 s left" in capsys.readouterr().out
