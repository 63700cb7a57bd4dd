"""Where all arms start: SSD-300 with the COCO or VOC priors, and the training of each profile."""

from __future__ import annotations

import math
from collections.abc import Callable

from bench.spec import DetectorSpec, ExtraLevel, Shape, Specification, TrainSpec

PROFILES = ("smoke", "quick", "standard", "paper")
# GroupNorm: without a norm the extra levels, three untrained layers deep, learn last what large objects are.
LIGHT_EXTRAS = (
    ExtraLevel(squeeze=128, channels=256, stride=2, padding=1, norm_groups=16),
    ExtraLevel(squeeze=128, channels=256, stride=1, padding=0, norm_groups=16),
    ExtraLevel(squeeze=128, channels=256, stride=1, padding=0, norm_groups=16),
)


def baseline(
    *,
    classes: int,
    backbone: str,
    weights: str,
    weights_fingerprint: str,
    priors: tuple[tuple[Shape, ...], ...],
    training: TrainSpec,
) -> Specification:
    """The specification with every axis off."""
    detector = DetectorSpec(
        classes=classes,
        backbone=backbone,
        weights=weights,
        weights_fingerprint=weights_fingerprint,
        extras=LIGHT_EXTRAS,
        priors=priors,
    )
    return Specification(detector=detector, training=training)


def training_of(profile: str, train_images: int, *, scenes: bool) -> TrainSpec:
    """The training of a profile on a training split of so many images."""
    return _PROFILES[profile](train_images, scenes)


def _smoke(train_images: int, scenes: bool) -> TrainSpec:
    """A check that everything runs: 8 steps of 4 images."""
    return _fine_tuning(steps=8, batch=4, checkpoints=2)


def _quick(train_images: int, scenes: bool) -> TrainSpec:
    """12 epochs of 16 images, held between 90 and 200 steps; 90 on the built-in scenes."""
    return _fine_tuning(steps=90 if scenes else min(200, max(90, math.ceil(12 * train_images / 16))), batch=16)


def _standard(train_images: int, scenes: bool) -> TrainSpec:
    """60 epochs of 32 images, at least 2,000 steps: figures worth arguing about."""
    return _fine_tuning(steps=max(2000, math.ceil(60 * train_images / 32)), batch=32)


def _fine_tuning(*, steps: int, batch: int, checkpoints: int = 10) -> TrainSpec:
    """Short training of new layers on a pretrained backbone, which learns at a fifth of their rate.

    The rate is the same in all arms: it is a nuisance, not an axis. On 25 classes of groceries 1e-3 for
    everything learnt nothing in 100 steps of 16 (AP50 0.01), nor did 3e-3; with the backbone at a fifth
    AP50 was 0.15, at half of both 0.11.
    """
    return TrainSpec(
        steps=steps,
        batch=batch,
        optimiser="adamw",
        rate=1e-3,
        backbone_rate=0.2,
        weight_decay=1e-2,
        clip_norm=10.0,
        checkpoints=checkpoints,
    )


def _paper(train_images: int, scenes: bool) -> TrainSpec:
    """Caffe's ssd_pascal.py: 120k steps of 32 images, SGD at 1e-3, a tenth at 80k and at 100k."""
    return TrainSpec(
        steps=120_000,
        batch=32,
        optimiser="sgd",
        rate=1e-3,
        momentum=0.9,
        weight_decay=5e-4,
        warmup_share=0.0,
        decay="steps",
        drops=(80_000 / 120_000, 100_000 / 120_000),
        bias_rate=2.0,
        frozen_stride=0,
    )


_PROFILES: dict[str, Callable[[int, bool], TrainSpec]] = {
    "smoke": _smoke,
    "quick": _quick,
    "standard": _standard,
    "paper": _paper,
}
