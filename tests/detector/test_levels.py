"""L2Norm and extra levels: all heads read maps of similar magnitude, for any network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.detector.levels import L2Norm, extra_level, level_norm
from bench.detector.ssd import SSD
from bench.spec import ExtraLevel
from tests import tiny
from variants.baseline import LIGHT_EXTRAS


def test_every_position_has_the_length_of_the_scale() -> None:
    maps = torch.randn(2, 40, 5, 7, generator=torch.Generator().manual_seed(0)) * 30
    lengths = L2Norm(40, 0.5)(maps).norm(dim=1)
    assert torch.allclose(lengths, torch.full_like(lengths, 0.5 * 40**0.5), rtol=1e-5)


def test_l2_norm_equals_torchvision() -> None:
    """Scale 20 on the 512 channels of conv4_3, and zeros stay zeros."""
    maps = torch.randn(2, 512, 3, 3, generator=torch.Generator().manual_seed(0))
    maps[0, :, 1, 1] = 0
    theirs = torch.full((512,), 20.0).view(1, -1, 1, 1) * nn.functional.normalize(maps)  # models/detection/ssd.py
    assert float((L2Norm(512, 20 / 512**0.5)(maps) - theirs).detach().abs().max()) < 1e-5


def test_scale_zero_means_no_norm() -> None:
    assert isinstance(level_norm(8, 0.0), nn.Identity)


def test_an_extra_level_without_groups_is_that_of_the_paper() -> None:
    layers = extra_level(64, ExtraLevel(squeeze=16, channels=32, stride=2, padding=1))
    assert [type(layer) for layer in layers if not isinstance(layer, nn.Identity)] == [
        nn.Conv2d,
        nn.ReLU,
        nn.Conv2d,
        nn.ReLU,
    ]


@pytest.mark.parametrize("backbone", [tiny.NAME, "resnet18", "efficientnet_lite0"])
def test_all_heads_start_with_maps_of_similar_magnitude(backbone: str) -> None:
    """Without norms, maps of efficientnet_lite0 have deviations from 0.6 to 8, and 25 classes do not train."""
    spec = tiny.specification().detector
    weights = "pretrained" if backbone == "efficientnet_lite0" else "none"
    model = SSD(replace(spec, backbone=backbone, weights=weights), seed=0).eval()
    pictures = torch.randint(0, 256, (2, 3, 300, 300), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sizes = [float(level.pow(2).mean().sqrt()) for level in model.feature_maps(pictures)]
    assert max(sizes) < 2 * min(sizes), sizes
    assert len(LIGHT_EXTRAS) + 3 == len(sizes)
