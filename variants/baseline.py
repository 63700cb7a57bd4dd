"""The baseline of all arms: SSD-300 with the COCO or VOC priors, and the training of each profile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from bench.spec import DetectorSpec, ExtraLevel, Shape, Specification, TrainSpec

# GroupNorm: the extra levels are three untrained layers deep and without a norm learn large objects slowly.
LIGHT_EXTRAS = (
    ExtraLevel(squeeze=128, channels=256, stride=2, padding=1, norm_groups=16),
    ExtraLevel(squeeze=128, channels=256, stride=1, padding=0, norm_groups=16),
    ExtraLevel(squeeze=128, channels=256, stride=1, padding=0, norm_groups=16),
)
# conv8_2 to conv11_2 of the paper.
VGG_EXTRAS = (
    ExtraLevel(squeeze=256, channels=512, stride=2, padding=1),
    ExtraLevel(squeeze=128, channels=256, stride=2, padding=1),
    ExtraLevel(squeeze=128, channels=256, stride=1, padding=0),
    ExtraLevel(squeeze=128, channels=256, stride=1, padding=0),
)
VGG_NORMS = (20 / math.sqrt(512), 0.0)  # scale 20 on the 512 channels of conv4_3, none on fc7
VGG_FROZEN_STRIDE = 2  # freezes conv1 and conv2, as in Fast R-CNN; conv3 has stride 4


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
    """The specification with all axes off: the paper's levels on VGG16, three extra levels on other backbones."""
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
        training = replace(training, backbone_rate=1.0)  # no pretrained features to preserve
    return Specification(detector=detector, training=training)


def default_backbone(device: str) -> str:
    """The paper's backbone on a GPU; a light one on a CPU, where the paper's takes seconds per batch."""
    return "vgg16" if device == "cuda" else "efficientnet_lite0"


def preset_of(profile: str) -> str:
    """The preset of prior boxes of a profile."""
    return "voc" if profile == "paper" else "coco"


def initialisation_of(profile: str) -> Literal["prior", "caffe"]:
    """The initialisation of new layers in a profile."""
    return "caffe" if profile == "paper" else "prior"


def training_of(profile: str, train_images: int, *, scenes: bool) -> TrainSpec:
    """The training of a profile on `train_images` images. scenes: the data are the built-in scenes."""
    return _PROFILES[profile](train_images, scenes)


def _smoke(train_images: int, scenes: bool) -> TrainSpec:
    """8 steps of 4 images, to check that everything runs."""
    return _fine_tuning(steps=8, batch=4)


def _quick(train_images: int, scenes: bool) -> TrainSpec:
    """12 epochs in batches of 16, but at least 90 and at most 200 steps; 90 on the built-in scenes."""
    return _fine_tuning(steps=90 if scenes else min(200, max(90, math.ceil(12 * train_images / 16))), batch=16)


def _standard(train_images: int, scenes: bool) -> TrainSpec:
    """60 epochs in batches of 32, at least 2,000 steps: for meaningful results."""
    return _fine_tuning(steps=max(2000, math.ceil(60 * train_images / 32)), batch=32)


def _fine_tuning(*, steps: int, batch: int) -> TrainSpec:
    """Short training of new layers on a pretrained backbone, which learns at a fifth of their rate.

    The rate is a nuisance parameter, not an axis, and the same in all arms. It was chosen on 25 classes of groceries
    with
    100 steps of 16 images: a rate of 1e-3 or 3e-3 for all layers learnt nothing (AP50 0.01); with the backbone at a
    fifth of 1e-3 AP50 was 0.15, and with half the rate for the new layers as well 0.11. Decay from 70% of the steps
    gave 0.18,
    from 40% 0.17.
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
    """Caffe's ssd_pascal.py: 120k steps of 32 images, SGD at 1e-3, divided by 10 at 80k and at 100k steps."""
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
