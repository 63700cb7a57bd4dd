"""The tables of throughput.json show every ratio with its interval, and read older files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.report.tables.speed import speed_tables
from bench.report.tables.typeset import Table, latex_text, markdown_text
from bench.report.terminal.speed import print_speed
from tests.conftest import REPOSITORY

COMMITTED = sorted(REPOSITORY.glob("results/reference/speed/*/throughput.json"))


@pytest.fixture
def content() -> dict[str, Any]:
    """A committed file in which one ratio of `cells` has a narrow interval and one a wide interval."""
    content: dict[str, Any] = json.loads(COMMITTED[-1].read_text())
    reference, narrow, wide = content["comparison"]["cells"][:3]
    reference |= {"rounds": 12, "times_as_fast": 1.0, "times_as_fast_low": 1.0, "times_as_fast_high": 1.0}
    narrow |= {"rounds": 12, "times_as_fast": 5.3, "times_as_fast_low": 5.1, "times_as_fast_high": 5.5}
    wide |= {"rounds": 12, "times_as_fast": 17.1, "times_as_fast_low": 12.0, "times_as_fast_high": 22.0}
    return content | {"ratio_precision": 0.05}


def table(content: dict[str, Any], name: str) -> Table:
    (found,) = [each for each in speed_tables(content) if each.name == name]
    return found


def ratios(cells: Table) -> list[str]:
    (place,) = [place for place, heading in enumerate(cells.headings) if heading.name == "times_as_fast"]
    return [row[place].text for row in cells.rows]


def test_a_ratio_has_its_interval_and_number_of_rounds(content: dict[str, Any]) -> None:
    cells = table(content, "cells")
    expected = ["1.00", "5.30 (5.10 to 5.50, n = 12)", "17.1 (12.0 to 22.0, n = 12)"]
    assert ratios(cells)[:3] == expected
    assert list(cells.frame["times_as_fast_low"])[:3] == [1.0, 5.1, 12.0]
    for text in (markdown_text(cells), latex_text(cells)):
        assert "5.30 (5.10 to 5.50, n = 12)" in text


def test_a_note_counts_the_intervals_that_are_not_narrow(content: dict[str, Any]) -> None:
    assert table(content, "cells").notes == ("1 of 2 intervals did not reach ±5% in the time given (--seconds).",)


def test_the_terminal_shows_all_intervals_at_100_columns(content: dict[str, Any]) -> None:
    out = io.StringIO()
    print_speed(content, Console(file=out, width=100))
    assert "17.1 (12.0 to 22.0, n = 12)" in out.getvalue()
    assert "…" not in out.getvalue()


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_files_without_intervals_are_read(path: Path) -> None:
    content = json.loads(path.read_text())
    for each in speed_tables(content):
        assert each.rows
        assert " to " not in "".join(ratios(each) if each.name in ("comparison", "cells") else [])


def test_there_are_committed_files() -> None:
    assert len(COMMITTED) >= 4
