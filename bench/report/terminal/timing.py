"""Durations in print, and how often progress is printed outside a terminal."""

from __future__ import annotations

SECONDS_BETWEEN_LINES = 20.0  # of progress, if the console is not a terminal


def duration(seconds: float) -> str:
    """7 s, 2 min 05 s, 12 min, 3 h 07 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def clock_time(seconds: float) -> str:
    """2:05, 3:07:12."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
