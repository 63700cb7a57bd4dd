"""Controls: additional cells that isolate a cause or show the effect of a cheap alternative.

A control is the baseline with one change; it is not crossed with the axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bench.spec import Specification
from variants.fpn import FPN


def lateral_only(base: Specification) -> Specification:
    """The feature pyramid's convolutions without the top-down sum: added capacity without top-down information."""
    neck = FPN().apply(base, {}).detector.neck
    assert neck is not None
    return replace(base, detector=replace(base.detector, neck=replace(neck, kind="pyramid-lateral-only")))


def half_data(base: Specification) -> Specification:
    """Half of the training images for the same number of steps: shows the effect of more data."""
    return replace(base, training=replace(base.training, data_share=0.5 * base.training.data_share))


def double_steps(base: Specification) -> Specification:
    """Twice the steps: shows the effect of longer training."""
    return replace(base, training=replace(base.training, steps=2 * base.training.steps))


def discriminative_rates(base: Specification) -> Specification:
    """Graded learning rates with nothing frozen, as in ULMFiT (Howard and Ruder 2018).

    The top half of the backbone's stages learns at 1/2.6 of the heads' rate, the others at 1/2.6 of that. This replaces
    the baseline's single factor for the backbone.
    """
    return replace(base, training=replace(base.training, backbone_rate=1.0, stage_rate_decay=2.6))


def plain_augmentation(base: Specification) -> Specification:
    """Mirroring and photometric distortions alone: shows what SSD's zoom-out and crops do at this length of training.

    In the paper they gain 8.9 points of mAP over 232 epochs. A zoom-out shrinks objects by up to four times.
    """
    augment = replace(base.training.augment, expand_probability=0.0, crop_trials=0)
    return replace(base, training=replace(base.training, augment=augment))


CONTROLS: dict[str, Callable[[Specification], Specification]] = {
    "lateral-only": lateral_only,
    "half-data": half_data,
    "double-steps": double_steps,
    "discriminative-rates": discriminative_rates,
    "plain-augmentation": plain_augmentation,
}
