"""How numbers are printed: in tables, in the verdict and in plots."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

MISSING = "n/a"


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def integer(value: float) -> str:
    return f"{value:.0f}"


def two_digits(number: float) -> str:
    """A number of things, rounded up to two significant digits."""
    unit = 10 ** max(0, len(integer(number)) - 2)
    return str(math.ceil(number / unit) * unit)


def three_digits(value: float) -> str:
    """Three significant digits without rounding before the decimal point: 0.123, 12.3, 12345."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def signed(value: float, show: Callable[[float], str]) -> str:
    """A difference with its sign, printed by `show`; zero after rounding has no sign."""
    if math.isnan(value):
        return MISSING
    text = show(abs(value))
    if not text.strip("0."):
        return text
    return ("−" if value < 0 else "+") + text


def points(fraction: float) -> str:
    """A difference of AP in percentage points, with its sign."""
    return signed(fraction, percent)


def p_value(p: float) -> str:
    if math.isnan(p):
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def is_missing(value: Any) -> bool:
    """Whether a value is None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def formatted(value: Any, show: Callable[[float], str]) -> str:
    """A value printed by `show`; n/a if it is missing."""
    return MISSING if is_missing(value) else show(value)
