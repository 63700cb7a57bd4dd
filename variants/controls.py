"""Rows beside the matrix that isolate a cause, or show what the cheap alternative gives.

A control is the baseline with one thing changed; it is crossed with no axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bench.spec import Specification
from variants.fpn import FPN


def lateral_only(base: Specification) -> Specification:
    """The feature pyramid's convolutions without its top-down sum: capacity apart from information."""
    neck = FPN().apply(base, {}).detector.neck
    assert neck is not None
    return replace(base, detector=replace(base.detector, neck=replace(neck, kind="lateral-only")))


def half_data(base: Specification) -> Specification:
    """Half of the training images for the same number of steps: what the other half gave."""
    return replace(base, training=replace(base.training, data_share=0.5 * base.training.data_share))


def double_steps(base: Specification) -> Specification:
    """Twice the steps."""
    return replace(base, training=replace(base.training, steps=2 * base.training.steps))


CONTROLS: dict[str, Callable[[Specification], Specification]] = {
    "lateral-only": lateral_only,
    "half-data": half_data,
    "double-steps": double_steps,
}
