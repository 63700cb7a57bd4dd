"""Output that cannot be written, and paths that cannot be used: one sentence and the right exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import run_all
from tests.conftest import REPOSITORY
from tests.report.made_run import matrix, write_run

LONG = "a" * 300
COMMAND = [sys.executable, str(REPOSITORY / "run_all.py")]


def printing(text: str) -> list[str]:
    """`report` of a run whose folder does not matter, printing a text."""
    code = f"import run_all, sys; run_all.report = lambda words: print({text!r}) or 0; sys.exit(run_all.main())"
    return [sys.executable, "-c", code, "report"]


def test_a_reader_that_ends_early_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(printing("a line"), cwd=REPOSITORY, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_full_disk_behind_the_output_is_named() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(printing("a line"), cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 2
    assert ended.stderr.decode().startswith("error: the standard output cannot be used: its disk is full. ")
    assert ended.stderr.count(b"\n") == 1


def test_letters_that_the_encoding_lacks_are_written_out() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ended = subprocess.run(
        printing("AP ± 猫"), cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "AP \\xb1 \\u732b\n", "")


def test_a_deleted_current_folder_is_named(tmp_path: Path) -> None:
    code = f"import os, sys; os.rmdir({str(tmp_path)!r}); os.execv(sys.executable, {[*COMMAND, 'report', 'x']!r})"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "error: the current folder was deleted; change to another one and repeat the command\n"


@pytest.mark.parametrize("command", ["preflight", "diagnose", "run"])
@pytest.mark.parametrize(
    ("option", "path"),
    [
        ("--out", "/proc/x"),
        ("--out", "/proc/self/status/x"),
        ("--out", f"/tmp/{LONG}"),
        ("--out", f"/tmp/{LONG}/x"),
        ("--out", "/dev/null"),
        ("--cache", f"/tmp/{LONG}"),
        ("--cache", "/dev/null"),
        ("--cache", "/proc/x"),
        ("--data", f"voc:{LONG}"),
        ("--data", f"voc:/tmp/{LONG}/x"),
    ],
)
def test_a_path_that_cannot_be_used_is_named(
    *,
    option: str,
    path: str,
    command: str,
    words: list[str],
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = [command, "--data", f"voc:{pictures}", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert run_all.main([*(words if command == "run" else data), option, path]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and "Traceback" not in printed
    assert path.removeprefix("voc:") in printed


@pytest.mark.parametrize(
    "code",
    ["raise RuntimeError('mine')", "import sys; sys.exit(3)", "1 / 0", "import nothing_of_this_name", "(", "\0"],
)
def test_an_axis_file_that_raises_is_named(
    code: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(code)
    assert run_all.main([*words, "--axis-file", str(path)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: --axis-file {path} cannot be loaded") and "Traceback" not in printed


def test_too_little_memory_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError("Unable to allocate 3 TiB")

    monkeypatch.setattr("bench.run.commands.report.build_report", lambda *_, **__: exhausted())
    run = write_run(tmp_path / "run", factors=matrix(("fpn",)))
    assert run_all.main(["report", str(run)]) == 2
    assert capsys.readouterr().err.startswith("error: there is not enough memory (Unable to allocate 3 TiB). ")
