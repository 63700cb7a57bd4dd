"""Overrides run only if fast paths are on, and may leave a call to the plain function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench.device import fast_paths
from bench.device.fast_paths import overridable, override


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty registry, and fast paths off before and after the test."""
    monkeypatch.setattr(fast_paths, "_overrides", {})
    fast_paths.enable(False)
    yield
    fast_paths.enable(False)


@overridable
def scale(value: int, *, factor: int = 2) -> Any:
    """Multiply by a factor."""
    return value * factor


def register_negation() -> None:
    """Override `scale` for positive values only."""

    @override(scale)
    def negate(value: int, *, factor: int = 2) -> Any:
        return -value * factor if value > 0 else NotImplemented


def test_without_an_override_the_plain_function_runs() -> None:
    fast_paths.enable(True)
    assert scale(3, factor=5) == 15


def test_an_override_runs_only_with_fast_paths() -> None:
    register_negation()
    assert scale(3) == 6
    fast_paths.enable(True)
    assert fast_paths.enabled()
    assert scale(3) == -6
    assert scale(3, factor=5) == -15
    fast_paths.enable(False)
    assert scale(3) == 6


def test_not_implemented_falls_back_to_the_plain_function() -> None:
    register_negation()
    fast_paths.enable(True)
    assert scale(-3) == -6


def test_an_override_may_return_none() -> None:
    override(scale)(lambda value, **_: None)
    fast_paths.enable(True)
    assert scale(3) is None


@pytest.mark.parametrize("before", [True, False])
def test_disabled_restores_the_switch_even_after_an_error(before: bool) -> None:
    register_negation()
    fast_paths.enable(before)
    with fast_paths.disabled():
        assert not fast_paths.enabled()
        assert scale(3) == 6
    assert fast_paths.enabled() == before
    with pytest.raises(KeyError), fast_paths.disabled():
        raise KeyError
    assert fast_paths.enabled() == before


def test_override_returns_the_fast_function_unchanged() -> None:
    def fast(value: int, *, factor: int = 2) -> int:
        return 0

    assert override(scale)(fast) is fast


def test_an_overridable_function_keeps_its_name_and_docstring() -> None:
    assert (scale.__name__, scale.__doc__) == ("scale", "Multiply by a factor.")
