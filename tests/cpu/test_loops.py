"""What was compiled once is used again, but never for other sources."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import pytest

import bench.cpu.loops
from bench.cpu.loops.compiled import folder_for

SOURCES = Path(bench.cpu.loops.__file__).parent
FILES = sorted(path for path in SOURCES.glob("*.py"))


def _compiled(module: ModuleType) -> list[Any]:
    dispatchers = [value for value in vars(module).values() if hasattr(value, "py_func")]
    return [each for each in dispatchers if each.py_func.__module__ == module.__name__]


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.stem))
def test_a_change_of_any_file_makes_all_be_compiled_anew(file: Path, tmp_path: Path) -> None:
    """A loop is compiled with those of other files in it, which numba itself does not look at."""
    copy = tmp_path / "copy"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = folder_for(copy, tmp_path)
    assert before == folder_for(SOURCES, tmp_path)
    (copy / file.name).write_text((copy / file.name).read_text() + "\n")
    assert folder_for(copy, tmp_path) != before


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.stem not in ("__init__", "compiled")])
def test_every_loop_is_kept_there(name: str) -> None:
    settings: Any = numba.config
    loops = _compiled(import_module(f"bench.cpu.loops.{name}"))
    assert loops
    for loop in loops:
        assert Path(loop.stats.cache_path).parent == Path(settings.CACHE_DIR)


def test_what_is_not_there_is_said_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bench.cpu.loops.nothing  # noqa: B018
