"""The profile `paper` has all constants of SSD-300 on VOC (Liu et al. 2016; Caffe's ssd_pascal.py)."""

from __future__ import annotations

import math

import pytest

from bench.detector.prior_presets import preset_shapes
from bench.spec import Specification
from bench.training.schedule import rate_factor
from variants.baseline import baseline, default_backbone, initialisation_of, preset_of, training_of


def of_profile(profile: str, *, backbone: str = "vgg16", weights: str = "pretrained") -> Specification:
    return baseline(
        classes=20,
        backbone=backbone,
        weights=weights,
        weights_fingerprint="",
        priors=preset_shapes(preset_of(profile)),
        training=training_of(profile, 16_551, scenes=False),
        initialisation=initialisation_of(profile),
    )


def test_the_detector_of_the_paper() -> None:
    spec = of_profile("paper").detector
    assert spec.size == 300
    assert spec.feature_maps == (38, 19, 10, 5, 3, 1)
    assert spec.steps == (8, 16, 32, 64, 100, 300)
    assert [len(level) for level in spec.priors] == [4, 6, 6, 6, 4, 4]
    assert sum(len(level) * side**2 for level, side in zip(spec.priors, spec.feature_maps, strict=True)) == 8732
    assert [level[0] for level in spec.priors] == [(s, s) for s in (0.1, 0.2, 0.37, 0.54, 0.71, 0.88)]
    assert spec.priors[-1][1][0] == pytest.approx(math.sqrt(0.88 * 1.05))
    assert spec.priors[1][2:] == tuple(
        shape
        for ratio in (2, 3)
        for wide, narrow in [(0.2 * math.sqrt(ratio), 0.2 / math.sqrt(ratio))]
        for shape in [(wide, narrow), (narrow, wide)]
    )
    assert max(side for level in spec.priors for shape in level for side in shape) > 1  # not clipped
    assert spec.variances == (0.1, 0.2)
    assert (spec.match_threshold, spec.negatives_per_positive) == (0.5, 3)
    assert (spec.box_loss, spec.class_loss, spec.initialisation) == ("smooth_l1", "cross_entropy", "caffe")
    assert (spec.score_threshold, spec.candidates_per_class) == (0.01, 400)
    assert (spec.nms_threshold, spec.detections_per_image) == (0.45, 200)
    assert spec.level_norms[0] * math.sqrt(512) == pytest.approx(20)
    assert spec.level_norms[1] == 0
    assert [(e.squeeze, e.channels, e.stride, e.padding, e.norm_groups) for e in spec.extras] == [
        (256, 512, 2, 1, 0),
        (128, 256, 2, 1, 0),
        (128, 256, 1, 0, 0),
        (128, 256, 1, 0, 0),
    ]


def test_the_training_of_the_paper() -> None:
    training = of_profile("paper").training
    assert (training.optimiser, training.rate, training.momentum) == ("sgd", 1e-3, 0.9)
    assert (training.weight_decay, training.bias_rate) == (5e-4, 2.0)
    assert (training.steps, training.batch) == (120_000, 32)
    rates = [rate_factor(training, step) for step in (0, 79_999, 80_000, 99_999, 100_000, 119_999)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert (training.backbone_rate, training.frozen_stride, training.clip_norm) == (1.0, 0, 0.0)
    assert training.data_share == 1


def test_the_augmentation_of_the_paper() -> None:
    augment = of_profile("paper").training.augment
    assert augment.photometric_probability == 0.5
    assert (augment.brightness, augment.contrast, augment.saturation) == (32, (0.5, 1.5), (0.5, 1.5))
    assert augment.hue_degrees == 36  # 18 on OpenCV's scale of 180
    assert (augment.expand_probability, augment.expand_largest) == (0.5, 4)
    assert augment.crop_overlaps == (0.1, 0.3, 0.5, 0.7, 0.9)
    assert (augment.crop_scale, augment.crop_ratio, augment.crop_trials) == ((0.3, 1), (0.5, 2), 50)
    assert augment.mirror_probability == 0.5


def test_short_profiles_freeze_the_lowest_pretrained_stages() -> None:
    """conv1 and conv2 of VGG16 as in Fast R-CNN; without pretrained weights the backbone has the full rate."""
    assert of_profile("quick").training.frozen_stride == 2
    assert of_profile("quick", backbone="efficientnet_lite0").training.frozen_stride == 4
    assert of_profile("quick").training.backbone_rate == 0.2
    assert of_profile("quick", weights="none").training.backbone_rate == 1


def test_the_default_backbone_is_the_papers_on_a_gpu() -> None:
    assert default_backbone("cuda") == "vgg16"
    assert default_backbone("cpu") == "efficientnet_lite0"
