"""Where all arms start: SSD-300 with the COCO or VOC priors, and the training of each profile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from bench.spec import DetectorSpec, ExtraLevel, Shape, Specification, TrainSpec

# GroupNorm: without a norm the extra levels, three untrained layers deep, learn last what large objects are.
LIGHT_EXTRAS = (
    ExtraLevel(squeeze=128, channels=256, stride=2, padding=1, norm_groups=16),
    ExtraLevel(squeeze=128, channels=256, stride=1, padding=0, norm_groups=16),
    ExtraLevel(squeeze=128, channels=256, stride=1, padding=0, norm_groups=16),
)
# Of the paper: conv8_2 to conv11_2
VGG_EXTRAS = (
    ExtraLevel(squeeze=256, channels=512, stride=2, padding=1),
    ExtraLevel(squeeze=128, channels=256, stride=2, padding=1),
    ExtraLevel(squeeze=128, channels=256, stride=1, padding=0),
    ExtraLevel(squeeze=128, channels=256, stride=1, padding=0),
)
VGG_NORMS = (20 / math.sqrt(512), 0.0)  # a scale of 20 on the 512 channels of conv4_3, fc7 as it comes
VGG_FROZEN_STRIDE = 2  # conv1 and conv2, as Fast R-CNN leaves them; conv3 has stride 4


def baseline(
    *,
    classes: int,
    backbone: str,
    weights: str,
    weights_fingerprint: str,
    class_outputs: tuple[int, ...] = (),
    priors: tuple[tuple[Shape, ...], ...],
    training: TrainSpec,
    initialisation: Literal["prior", "caffe"] = "prior",
) -> Specification:
    """The specification with every axis off: the paper's levels on VGG16, three extra ones on other backbones."""
    detector = DetectorSpec(
        classes=classes,
        backbone=backbone,
        weights=weights,
        weights_fingerprint=weights_fingerprint,
        class_outputs=class_outputs,
        extras=LIGHT_EXTRAS,
        priors=priors,
        initialisation=initialisation,
    )
    if backbone == "vgg16":
        detector = replace(detector, extras=VGG_EXTRAS, level_norms=VGG_NORMS)
        training = replace(training, frozen_stride=min(training.frozen_stride, VGG_FROZEN_STRIDE))
    if weights == "none":
        training = replace(training, backbone_rate=1.0)  # nothing is there to be kept
    return Specification(detector=detector, training=training)


def default_backbone(device: str) -> str:
    """The paper's where there is a GPU; on a CPU, where it takes seconds a batch, a light one."""
    return "vgg16" if device == "cuda" else "efficientnet_lite0"


def preset_of(profile: str) -> str:
    """The prior boxes of a profile."""
    return "voc" if profile == "paper" else "coco"


def initialisation_of(profile: str) -> Literal["prior", "caffe"]:
    """How the new layers of a profile start."""
    return "caffe" if profile == "paper" else "prior"


def training_of(profile: str, train_images: int, *, scenes: bool) -> TrainSpec:
    """The training of a profile on a training split of so many images."""
    return _PROFILES[profile](train_images, scenes)


def _smoke(train_images: int, scenes: bool) -> TrainSpec:
    """A check that everything runs: 8 steps of 4 images."""
    return _fine_tuning(steps=8, batch=4)


def _quick(train_images: int, scenes: bool) -> TrainSpec:
    """12 epochs of 16 images, held between 90 and 200 steps; 90 on the built-in scenes."""
    return _fine_tuning(steps=90 if scenes else min(200, max(90, math.ceil(12 * train_images / 16))), batch=16)


def _standard(train_images: int, scenes: bool) -> TrainSpec:
    """60 epochs of 32 images, at least 2,000 steps: figures worth arguing about."""
    return _fine_tuning(steps=max(2000, math.ceil(60 * train_images / 32)), batch=32)


def _fine_tuning(*, steps: int, batch: int) -> TrainSpec:
    """Short training of new layers on a pretrained backbone, which learns at a fifth of their rate.

    The rate is the same in all arms: it is a nuisance, not an axis. On 25 classes of groceries 1e-3 for
    everything learnt nothing in 100 steps of 16 (AP50 0.01), nor did 3e-3; with the backbone at a fifth
    AP50 was 0.15, and with half the rate for the new layers beside that 0.11. There, too, a decay from
    70% of the steps gave 0.18 where one from 40% gave 0.17.
    """
    return TrainSpec(
        steps=steps,
        batch=batch,
        optimiser="adamw",
        rate=1e-3,
        backbone_rate=0.2,
        weight_decay=1e-2,
        warmup_share=0.05,
        decay_start=0.7,
        clip_norm=10.0,
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
