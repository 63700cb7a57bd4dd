"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path


def expanded(text: str) -> Path:
    """A path with ~ replaced by the home folder, or unchanged if there is no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)
