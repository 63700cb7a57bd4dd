"""Tests mirror the rooms of `bench/`, and no test module imports from another."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import REPOSITORY

MODULES = sorted(path.relative_to(REPOSITORY) for path in (REPOSITORY / "tests").rglob("*.py"))
SINGLE_FILES = {"axis", "errors", "options", "spec"}  # modules of bench/ that are rooms of their own


def imports(module: Path) -> set[str]:
    """The modules that a file imports, and the names that may be modules."""
    found = set()
    for node in ast.walk(ast.parse((REPOSITORY / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_test_module_is_imported() -> None:
    """What tests share is a module without ``test_`` in its name, or a fixture."""
    tests = {".".join(path.with_suffix("").parts) for path in MODULES if path.name.startswith("test_")}
    shared = {str(module): sorted(imports(module) & tests) for module in MODULES}
    assert not {module: names for module, names in shared.items() if names}


def test_every_room_has_tests() -> None:
    rooms = {path.name for path in (REPOSITORY / "bench").iterdir() if (path / "__init__.py").is_file()}
    untested = {room for room in rooms if not list((REPOSITORY / "tests" / room).rglob("test_*.py"))}
    assert not untested


def test_every_single_file_room_has_a_test_module() -> None:
    files = {path.stem for path in (REPOSITORY / "bench").glob("*.py")} - {"__init__"}
    assert files == SINGLE_FILES
    untested = {name for name in files if not (REPOSITORY / "tests" / f"test_{name}.py").is_file()}
    assert not untested
