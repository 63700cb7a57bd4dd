"""One registry of functions that have a faster form, and one switch for all fast paths of this process.

A plain function is marked `overridable` where it is defined; a kernel room (`bench.cpu`) registers its own form with
`override`. Plain code knows nothing of kernels. Accelerated modules ask `enabled` too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
Override = Callable[..., Any]

_overrides: dict[str, Override] = {}  # by the plain function's qualified name
_enabled = False


def enable(wanted: bool) -> None:
    """Switch all fast paths of this process on or off. They are off at first."""
    global _enabled  # noqa: PLW0603
    _enabled = wanted


def enabled() -> bool:
    """Whether fast paths are on."""
    return _enabled


@contextmanager
def disabled() -> Iterator[None]:
    """Run plain code only: to count operations, or to try a network once without compiling kernels for it."""
    before = _enabled
    enable(False)
    try:
        yield
    finally:
        enable(before)


def overridable(function: Callable[P, R]) -> Callable[P, R]:
    """A function that a kernel may replace. The kernel decides by the arguments of each call."""
    name = _name_of(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        override = _overrides.get(name) if _enabled else None
        if override is not None:
            result: R = override(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return function(*args, **kwargs)

    return call


def override(plain: Callable[..., Any]) -> Callable[[Override], Override]:
    """Register a faster form of `plain`, with the same arguments; it returns NotImplemented for those it cannot do."""

    def register(fast: Override) -> Override:
        _overrides[_name_of(plain)] = fast
        return fast

    return register


def _name_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
