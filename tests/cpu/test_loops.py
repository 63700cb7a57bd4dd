"""Compiled code is cached, and invalidated by a change of any source file."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import pytest

import bench.cpu.loops
from bench.cpu.loops.compiled import cache_folder

SOURCES = Path(bench.cpu.loops.__file__).parent
FILES = sorted(path for path in SOURCES.glob("*.py"))


def _compiled(module: ModuleType) -> list[Any]:
    dispatchers = [value for value in vars(module).values() if hasattr(value, "py_func")]
    return [each for each in dispatchers if each.py_func.__module__ == module.__name__]


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.stem))
def test_a_change_of_any_file_changes_the_cache_folder(file: Path, tmp_path: Path) -> None:
    """Loops inline functions of other files, which numba's own cache key ignores."""
    copy = tmp_path / "copy"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = cache_folder(copy, tmp_path)
    assert before == cache_folder(SOURCES, tmp_path)
    (copy / file.name).write_text((copy / file.name).read_text() + "\n")
    assert cache_folder(copy, tmp_path) != before


@pytest.mark.parametrize("name", [path.stem for path in FILES if path.stem not in ("__init__", "compiled")])
def test_every_loop_uses_the_cache_folder(name: str) -> None:
    settings: Any = numba.config
    loops = _compiled(import_module(f"bench.cpu.loops.{name}"))
    assert loops
    for loop in loops:
        assert Path(loop.stats.cache_path).parent == Path(settings.CACHE_DIR)


def test_a_missing_module_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        bench.cpu.loops.missing  # noqa: B018
