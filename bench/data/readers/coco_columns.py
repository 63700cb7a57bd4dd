"""Typed columns from the lists of JSON objects in a COCO file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import UNKNOWN
from bench.data.problems import printable
from bench.data.readers.raw import LEFT_OUT
from bench.errors import UserError

Entry = dict[str, Any]
MAX_ID = 2**63 - 1


def column(entries: list[Entry], key: str, where: str) -> list[Any]:
    """The value of `key` in every entry. Raises UserError naming `where` if one has none."""
    try:
        return [entry[key] for entry in entries]
    except KeyError:
        number = next(number for number, entry in enumerate(entries, start=1) if key not in entry)
        raise UserError(f"{where}, number {number}: '{key}' is missing. Export it in COCO's format.") from None


def integers(entries: list[Entry], key: str, where: str) -> NDArray[np.int64]:
    """`column` as int64. Raises UserError also for a value that is not a 64-bit integer."""
    values = column(entries, key, where)
    if not set(map(type, values)) <= {int} or max(map(abs, values), default=0) > MAX_ID:
        number, value = next(
            (number, value)
            for number, value in enumerate(values, start=1)
            if type(value) is not int or abs(value) > MAX_ID
        )
        raise UserError(f"{where}, number {number}: '{key}' is {printable(repr(value))}. It must be a 64-bit integer.")
    return np.array(values, dtype=np.int64)


def numbers(values: list[Any], width: int) -> NDArray[np.float64]:
    """(len, width) float64; NaN where a value is not `width` numbers, or not one number if `width` is 1.

    Numbers may be written as text. Fast if all values are valid.
    """
    shape = () if width == 1 else (width,)
    try:
        return _floats(values, (len(values), *shape)).reshape(len(values), width)
    except (TypeError, ValueError, OverflowError):
        pass
    result = np.full((len(values), width), np.nan)
    for row, value in enumerate(values):
        # The same conversion as above, so that one bad value changes nothing for the others
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            result[row] = _floats(value, shape)
    return result


def _floats(value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Raises TypeError, ValueError or OverflowError if `value` is not an array of numbers of this shape."""
    array = np.array(value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"shape {array.shape} instead of {shape}")
    return array


def flags(annotations: list[Entry], key: str) -> NDArray[np.int8]:
    """(len,) 0 or 1; UNKNOWN for a missing or other value."""
    column = numbers([entry.get(key) for entry in annotations], 1)[:, 0]
    return np.where((column == 0) | (column == 1), column, UNKNOWN).astype(np.int8)


def rows_of_ids(
    ids: NDArray[np.int64],
) -> tuple[Callable[[NDArray[np.int64]], NDArray[np.int64]], NDArray[np.int64]]:
    """A function from ids to their rows (LEFT_OUT for unknown ids), and the rows of all ids that occur repeatedly."""
    order = np.argsort(ids, kind="stable")
    ascending = ids[order]

    def rows(wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(ascending):
            return np.full(len(wanted), LEFT_OUT, dtype=np.int64)
        at = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
        return np.where(ascending[at] == wanted, order[at], LEFT_OUT)

    occurring = np.unique(ids, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(occurring[2][occurring[1]] > 1)
    return rows, repeated


def repeated_pairs(ids: NDArray[np.int64], rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(first row, later row) for each repetition of an id."""
    first_of: dict[int, int] = {}
    pairs = []
    for identity, row in zip(ids.tolist(), rows.tolist(), strict=True):
        if identity in first_of:
            pairs.append((first_of[identity], row))
        first_of.setdefault(identity, row)
    return pairs
