"""Sentences whose numbers are cited from tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CitedValue:
    """A value from a table. row: its key ("effects": metric and contrast); "" for a count over the column."""

    text: str
    value: float
    table: str
    row: str
    column: str

    @property
    def source(self) -> str:
        return f"{self.table}: {', '.join(part for part in (self.row, self.column) if part)}"


@dataclass(frozen=True)
class Name:
    """The name of a variant or axis, or a cause of failure, which may contain digits."""

    text: str


@dataclass(frozen=True)
class Command:
    """A command line to copy."""

    text: str


Part = str | Name | CitedValue | Command


@dataclass(frozen=True)
class Sentence:
    """A result of the run as words, names and cited values."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Sentence:
        """Drop empty parts and end with a full stop."""
        return cls((*(part for part in parts if part != ""), "."))

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def citations(self) -> tuple[CitedValue, ...]:
        return tuple(part for part in self.parts if isinstance(part, CitedValue))
