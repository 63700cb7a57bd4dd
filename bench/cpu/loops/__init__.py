"""Loops that numba compiles on first use (`compiled.py`), written with the vectors of `lanes.py`.

Each module is imported on first access as an attribute, because importing numba takes a second.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    file = f"{__name__}.{name}"
    try:
        return import_module(file)
    except ModuleNotFoundError as error:
        if error.name != file:  # an import inside the module failed
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from error
