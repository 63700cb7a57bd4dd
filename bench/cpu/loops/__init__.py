"""Arithmetic of a CPU as loops that numba compiles at their first use (`compiled.py`), in vectors of `lanes.py`.

A file of loops is imported when it is first asked for as an attribute, since importing the compiler takes a second.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    file = f"{__name__}.{name}"
    try:
        return import_module(file)
    except ModuleNotFoundError as error:
        if error.name != file:  # something that it needs
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from error
