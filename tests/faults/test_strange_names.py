"""Names from strangers do nothing but appear: no escapes in the terminal, no formulas in spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import run_all
from bench.errors import visible
from bench.report.tables.typeset import csv_text
from bench.report.terminal.console import PlainConsole
from tests.dataset_builders import voc_folder
from tests.report.made_run import matrix, write_run

HOSTILE = {
    "colour": "\x1b[31m",
    "clear": "\x1b[2J\x1b[H",
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;b3duZWQ=\x07",
    "hyperlink": "\x1b]8;;http://a\x1b\\",
    "C1": "\x9b31m",
    "bell": "\x07",
    "backspace": "\x08\x08",
    "return": "\r",
    "vertical": "\x0b\x0c",
    "delete": "\x7f",
    "override": "\u202egpj.exe",
    "isolate": "\u2066\u2067\u2069",
    "mark": "\u200f\u061c",
    "invisible": "\u200b\u2060\ufeff",
    "separator": "\u2028\u2029\x85",
    "half a letter": "\udcff",
}


def require_shown(printed: str) -> None:
    """Nothing but letters and line breaks."""
    assert {letter for letter in printed if not letter.isprintable()} <= {"\n"}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_text_is_made_visible(name: str) -> None:
    text = f"a{HOSTILE[name]}b\nc"
    require_shown(visible(text))
    assert visible(text).startswith("a\\") and visible(text).endswith("b\nc")
    assert visible(visible(text)) == visible(text)


def table(text: str) -> Table:
    made = Table(title=text)
    made.add_column(text)
    made.add_row(text)
    return made


PRINTED: dict[str, Callable[[str], RenderableType]] = {
    "text": str,
    "styled text": lambda text: Text(text, "bold"),
    "table": table,
    "padding": lambda text: Padding(Text(text), (0, 0, 0, 2)),
}


@pytest.mark.parametrize("kind", PRINTED)
@pytest.mark.parametrize("name", HOSTILE)
def test_the_console_prints_nothing_that_the_terminal_acts_on(name: str, kind: str) -> None:
    out = io.StringIO()
    PlainConsole(file=out, width=80).print(PRINTED[kind](f"a{HOSTILE[name]}b"))
    require_shown(out.getvalue())
    assert "a" in out.getvalue()


@pytest.mark.parametrize("text", ["[red]a[/red]", "[link=http://a]b[/link]", ":smile:", "[/]"])
def test_markup_and_emoji_codes_are_text(text: str) -> None:
    out = io.StringIO()
    PlainConsole(file=out, width=80).print(text)
    assert out.getvalue() == f"{text}\n"


NAMED = [name for name in HOSTILE if name != "half a letter"]  # file systems may refuse it


@pytest.mark.parametrize("name", NAMED)
def test_preflight_shows_the_name_of_a_bad_image(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"1{HOSTILE[name].replace('/', '_')}"
    root = voc_folder(tmp_path / "data", range(3), trained=None)
    (root / f"JPEGImages/{text}.jpg").write_text("no image")
    shutil.copy(root / "Annotations/1.xml", root / f"Annotations/{text}.xml")
    folders = ["--out", str(tmp_path / f"out{text}"), "--cache", str(tmp_path / "cache")]
    assert run_all.main(["preflight", "--data", f"voc:{root}", *folders]) == 2
    printed = capsys.readouterr()
    require_shown(printed.out)
    require_shown(printed.err)
    assert visible(f"JPEGImages/{text}.jpg") in printed.out.replace("\n", "") + printed.err


@pytest.mark.parametrize("name", NAMED)
def test_an_error_shows_a_hostile_path(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"a{HOSTILE[name]}"
    assert run_all.main(["report", str(path)]) == 2
    printed = capsys.readouterr().err
    require_shown(printed)
    assert visible(str(path)) in printed and "results/NAME" in printed


def test_report_shows_hostile_entries_of_plan_and_records(
    tmp_path: Path, undrawn: None, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "".join(HOSTILE[name] for name in NAMED)
    changes = {"data": text, "backbone": f"[link=x]{text}", "profile": text, "source": f"voc:{text}"}
    run = write_run(tmp_path / "run", factors=matrix(("fpn",)), failed={("fpn", 0): text}, changes=changes)
    record = run / "cells/000000000000/record.json"
    content = json.loads(record.read_text())
    content["environment"] = {"device": {"name": text, text: text}}
    content["speed"]["device"] = text
    record.write_text(json.dumps(content))
    assert run_all.main(["report", str(run)]) == 0
    printed = capsys.readouterr()
    require_shown(printed.out + printed.err)
    assert "\\x1b" in printed.out


# Spreadsheets


FORMULAS = (
    *("=1+1", "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x", "-", "=", "-a-class"),
    *("+49 30 1234", "@home", "-1.5.2", '=HYPERLINK("http://a")', "'-5"),
)
HARMLESS = ("car", "a=b", "'quoted'", "5 - 3", " =1", "", "-5", "+1.5", "-1e-3", "it's", "1=2")


def undone(cell: str) -> str:
    """What docs/faults.md says of reading such a cell."""
    begins = cell.lstrip("'")
    return cell[1:] if cell.startswith("'") and begins[:1] in tuple("=+-@\t\r") and begins else cell


@pytest.mark.parametrize("text", [*FORMULAS, *HARMLESS], ids=repr)
def test_a_text_is_no_formula_in_a_spreadsheet_and_can_be_read_back(text: str) -> None:
    written = csv_text(pd.DataFrame({"class": [text], "AP": [-0.5]}))
    header, (cell, number) = list(csv.reader(io.StringIO(written, newline="")))
    assert header == ["class", "AP"] and number == "-0.5"
    assert (cell != text) == (text in FORMULAS)
    assert undone(cell) == text


@pytest.mark.parametrize("name", ["=1", "-5"])
def test_a_heading_is_no_formula_either(name: str) -> None:
    assert csv_text(pd.DataFrame({name: [1]})).splitlines()[0] == ("'=1" if name == "=1" else "-5")
