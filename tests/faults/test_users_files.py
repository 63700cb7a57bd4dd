"""No command deletes or overwrites a user's files, whatever folder it is given."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import run_all
from tests.report.made_run import write_run

# Names that a run writes, deletes or takes for its own
NAMES = (
    *("plan.json", "split.json", "preflight.json", "diagnosis.json", "throughput.json", "report.html"),
    *("cells/0123456789ab/record.json", "cells/notes/notes.txt", "thumbnails/7.jpg", "tables/ablation.csv"),
    *(".notes.2026", "stopping"),
)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A folder with a user's files."""
    folder = tmp_path / "users"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the user's {name}")
    return folder


@pytest.fixture
def request_of(words: list[str], pictures: Path, tmp_path: Path) -> Callable[[str, Path], list[str]]:
    """The words of a command that writes into a folder."""

    def of(name: str, out: Path) -> list[str]:
        data = ["--data", f"voc:{pictures}", "--cache", str(tmp_path / "cache")]
        if name in ("run", "run --plan"):
            return [*words, "--out", str(out), *name.split()[1:]]
        if name == "report":
            runs = [write_run(tmp_path / str(seed), seeds=(seed,)) for seed in (0, 1)]
            return [name, *map(str, runs), "--out", str(out)]
        return [name, *data, "--out", str(out)]

    return of


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


COMMANDS = ["run", "run --plan", "preflight", "diagnose", "throughput", "report"]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("with_plan", [True, False], ids=["foreign plan", "no plan"])
def test_a_users_folder_is_refused_and_stays_as_it_is(
    name: str,
    with_plan: bool,
    users: Path,
    request_of: Callable[[str, Path], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not with_plan:
        (users / "plan.json").unlink()
    before = contents(users)
    assert run_all.main(request_of(name, users)) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {users}")
    assert ("/plan.json cannot be read" if with_plan else "holds files that this program did not write") in printed
    assert "--out" in printed and "Traceback" not in printed
    assert contents(users) == before


@pytest.mark.parametrize("name", ["run", "report"])
def test_a_damaged_plan_is_not_no_plan(
    name: str, tmp_path: Path, request_of: Callable[[str, Path], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run")
    (run / "plan.json").write_text((run / "plan.json").read_text()[:-9])
    before = contents(run)
    assert run_all.main(request_of(name, run)) == 2
    assert f"{run / 'plan.json'} cannot be read" in capsys.readouterr().err
    assert contents(run) == before


@pytest.mark.parametrize("name", ["preflight", "run"])
def test_the_cache_may_be_in_the_folder_of_the_results(
    name: str, pictures: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first start on, and the second start finds both."""
    monkeypatch.setattr("bench.run.commands.matrix.run_cells", lambda *_, **__: 0)
    rest = words if name == "run" else ["preflight", "--data", f"voc:{pictures}"]
    both = ["--out", str(tmp_path / "both"), "--cache", str(tmp_path / "both")]
    for _ in range(2):
        assert run_all.main([*rest, *both]) == 0
    assert list((tmp_path / "both").glob("pixels-*.bin"))


def test_a_users_files_in_the_cache_stay(pictures: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for name in ("pixels-old.tmp", "pixels-.1.tmp", "scenes-mine/1.jpg", "notes.txt"):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("the user's")
        os.utime(cache / name, (0, 0))  # as if its writer had been killed long ago
    before = contents(cache)
    words = ["preflight", "--data", f"voc:{pictures}", "--cache", str(cache), "--out", str(tmp_path / "out")]
    assert run_all.main(words) == 0
    assert contents(cache).items() > before.items()
    assert json.loads((tmp_path / "out/preflight.json").read_text())["images_checked"] == 10
