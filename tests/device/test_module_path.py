"""Processes that the suite starts execute no file of the current folder, and the user's environment stays as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import util
from pathlib import Path

import pytest

from bench.device.module_path import home_on_path, protect_multiprocessing, safe_path
from bench.device.private_interfaces import add_interpreter_option
from bench.options import HOME
from tests.conftest import REPOSITORY
from tests.traps import executed, set_traps

# Starts what multiprocessing starts apart from the fork server: the resource tracker, by a lock, and a new process
STARTS = """
import multiprocessing, os, sys
sys.path.insert(0, sys.argv[1])
from bench.device.module_path import protect_multiprocessing
if __name__ == "__main__":
    protect_multiprocessing()
    multiprocessing.RLock()
    inherited = "import os, sys; sys.exit(7 if os.environ.get('PYTHONSAFEPATH') is None else 3)"
    process = multiprocessing.get_context("spawn").Process(target=exec, args=(inherited,))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.fixture
def undecided() -> Iterator[None]:
    """As if `add_interpreter_option` had never been called."""
    before = util.__dict__["_args_from_interpreter_flags"]
    add_interpreter_option.cache_clear()
    yield
    add_interpreter_option.cache_clear()
    util.__dict__["_args_from_interpreter_flags"] = before


def test_multiprocessing_executes_no_file_of_the_current_folder(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    traps = set_traps(tmp_path_factory.mktemp("current"))
    script = tmp_path / "script.py"
    script.write_text(STARTS)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    ended = subprocess.run([sys.executable, script, REPOSITORY], cwd=traps, env=environment, check=False)
    assert executed(traps) == []
    assert ended.returncode == 7


def options() -> list[str]:
    """What multiprocessing gives to interpreters that it starts."""
    given: list[str] = util.__dict__["_args_from_interpreter_flags"]()
    return given


@pytest.mark.usefixtures("undecided")
def test_the_option_is_given_once() -> None:
    before = options()
    protect_multiprocessing()
    protect_multiprocessing()
    assert options() == [*before, "-P"]


@pytest.mark.usefixtures("undecided")
def test_without_options_of_interpreters_the_environment_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.delattr(util, "_args_from_interpreter_flags")
    protect_multiprocessing()
    assert os.environ["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize("before", [None, "", "1"])
def test_the_users_variables_are_restored(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONSAFEPATH", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
        if before is not None:
            monkeypatch.setenv(name, before)
    with safe_path(), home_on_path():
        assert os.environ["PYTHONSAFEPATH"] == "1"
        assert os.environ["PYTHONPATH"] == os.pathsep.join([str(HOME), *([before] if before else [])])
    assert (os.environ.get("PYTHONSAFEPATH"), os.environ.get("PYTHONPATH")) == (before, before)
