"""The axes of the ablation, and how they are found.

An axis is a class derived from `Axis`, in a module of the `variants` package or in a file named by ``--axis-file``. It
turns one specification into another and trains nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from bench.data.index import ImageIndex
from bench.errors import UserError
from bench.spec import BASELINE, Specification

RESERVED = (BASELINE, "none", "variant", "seeds", "status")  # have another meaning in tables or in --axes
SLOTS = ("resolution", "neck", "anchors", "box_loss", "class_loss", "schedule")


class Axis(ABC):
    """A remedy that can be switched on. If it is off, the specification is exactly that of the baseline.

    The docstring of a concrete axis states the remedy, its cost, and its source.

    name: the column in the tables and the word in ``--axes``.
    slot: the part that it changes, one of `SLOTS`. Axes are applied in this order; two active axes with the same slot
        are an error.
    in_default_matrix: whether a run without ``--axes`` includes it.
    """

    name: ClassVar[str]
    slot: ClassVar[str]
    in_default_matrix: ClassVar[bool] = False

    def refusal(self, base: Specification) -> str | None:
        """Why the axis cannot be used with this baseline, and what to do; None if it can."""
        return None

    def prepare(self, train_index: ImageIndex, spec: Specification) -> dict[str, Any]:
        """Fit on the *training* split what `apply` needs. Returns JSON data, which the record keeps.

        spec: with the axes of earlier slots applied.
        """
        return {}

    @abstractmethod
    def apply(self, spec: Specification, prepared: Mapping[str, Any]) -> Specification:
        """The specification with the remedy. A pure function."""


@dataclass(frozen=True, kw_only=True)
class FoundAxis:
    """An axis and its source file. fingerprint: hash of that file."""

    axis: Axis
    file: Path
    fingerprint: str


def find_axes(package: str, files: Iterable[Path] = ()) -> dict[str, FoundAxis]:
    """All axes in the modules of a package and in the user's files, by name, in the order of their slots.

    Raises UserError if a file cannot be loaded, has no axis, or repeats a name.
    """
    found: dict[str, FoundAxis] = {}
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations is not None, f"no package {package}"
    for info in sorted(pkgutil.iter_modules(spec.submodule_search_locations), key=lambda info: info.name):
        module = importlib.import_module(f"{package}.{info.name}")
        for axis in _axes_of(module):
            assert axis.name not in found, f"two axes are called {axis.name!r}"
            found[axis.name] = _with_source(axis, module)
    for file in files:
        module = _load(file)
        axes = _axes_of(module)
        if not axes:
            raise UserError(f"{file}: no class derived from bench.axis.Axis; see variants/fpn.py for one")
        for axis in axes:
            if axis.name in found:
                raise UserError(f"{file}: the axis {axis.name!r} exists already in {found[axis.name].file}")
            found[axis.name] = _with_source(axis, module)
    return dict(sorted(found.items(), key=lambda item: (SLOTS.index(item[1].axis.slot), item[0])))


def derive(
    base: Specification, axes: Sequence[Axis], train_index: ImageIndex
) -> tuple[Specification, dict[str, dict[str, Any]]]:
    """The base specification with `axes` applied in the order of their slots, and what each of them prepared."""
    spec, prepared = base, {}
    for axis in sorted(axes, key=lambda axis: SLOTS.index(axis.slot)):
        prepared[axis.name] = axis.prepare(train_index, spec)
        spec = axis.apply(spec, prepared[axis.name])
    return spec, prepared


def clashing(axes: Sequence[Axis]) -> str | None:
    """A sentence that names two axes with the same slot, or None."""
    taken: dict[str, str] = {}
    for axis in axes:
        if axis.slot in taken:
            return f"the axes {taken[axis.slot]!r} and {axis.name!r} both change the slot {axis.slot!r}"
        taken[axis.slot] = axis.name
    return None


def _axes_of(module: ModuleType) -> list[Axis]:
    """Instances of the concrete axes that the module defines."""
    axes = []
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if not issubclass(kind, Axis) or inspect.isabstract(kind) or kind.__module__ != module.__name__:
            continue
        if getattr(kind, "slot", None) not in SLOTS or not _is_valid_name(getattr(kind, "name", "")):
            raise UserError(
                f"{module.__file__}: the axis {kind.__name__} needs a `name` (letters, digits, underscores; "
                f"not {', '.join(RESERVED)}) and a `slot`, one of {', '.join(SLOTS)}"
            )
        axes.append(kind())
    return axes


def _is_valid_name(name: str) -> bool:
    return name.isidentifier() and name not in RESERVED and not name.startswith("AP")


def _with_source(axis: Axis, module: ModuleType) -> FoundAxis:
    assert module.__file__ is not None
    file = Path(module.__file__).resolve()
    return FoundAxis(axis=axis, file=file, fingerprint=hashlib.sha256(file.read_bytes()).hexdigest()[:12])


def _load(file: Path) -> ModuleType:
    """Import a user's file. An error in it becomes a UserError, without a traceback through our code."""
    if not file.is_file():
        raise UserError(f"--axis-file {file}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"axis_file_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"--axis-file {file}: not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise UserError(
            f"--axis-file {file} cannot be loaded: {type(error).__name__}: {error}. Correct the file"
        ) from error
    return module
