"""The examples of docs/extending.md, taken from the document itself."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.conftest import REPOSITORY

DOCUMENT = REPOSITORY / "docs/extending.md"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One diff block: a file of the repository, the lines that must be in it, and those to add."""

    file: str
    present: list[str]
    added: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Example:
    """One section: the source of its module, of an axis that selects it ("" if none), and the registering changes."""

    title: str
    source: str
    axis: str
    changes: list[Change]

    def load(self, folder: Path, name: str) -> ModuleType:
        """The example as a module in `folder`, imported under `name`."""
        path = folder / f"{name}.py"
        path.write_text(self.source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    def registered(self, registry: ModuleType, example: ModuleType, change: int = 0) -> Any:
        """The value of a change's added line, import apart, as an entry or an assignment in the file of `registry`."""
        (line,) = (line for line in self.changes[change].added if not line.startswith("from "))
        names = {**vars(registry), **vars(example)}
        if re.match(r"[A-Z_]+\b.* = ", line):
            exec(line, names)
            return names[re.match(r"[A-Z_]+", line)[0]]  # type: ignore[index]
        keyed = re.match(r'"\w+": ', line)
        return eval(f"{{{line}}}" if keyed else f"[{line}]", names)


def examples() -> dict[str, Example]:
    """By heading, as "a neck"."""
    sections = re.split(r"^## ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        title, _, text = section.partition("\n")
        source, axis, *_ = [*re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL), ""]
        found[title.lower()] = Example(title=title.lower(), source=source, axis=axis, changes=list(_changes(text)))
    return found


def _changes(text: str) -> Iterator[Change]:
    for block in re.findall(r"^```diff\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        first, *lines = block.splitlines()
        yield Change(
            file=first.removeprefix(" # "),
            present=[line[1:] for line in lines if line[0] in " -"],
            added=[line[1:].strip() for line in lines if line[0] == "+"],
        )
