"""L2Norm and extra levels: the heads see maps of like size, whatever the network."""

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


def test_every_position_gets_the_length_that_the_scale_says() -> None:
    maps = torch.randn(2, 40, 5, 7, generator=torch.Generator().manual_seed(0)) * 30
    lengths = L2Norm(40, 0.5)(maps).norm(dim=1)
    assert torch.allclose(lengths, torch.full_like(lengths, 0.5 * 40**0.5), rtol=1e-5)


def test_it_is_the_norm_of_torchvisions_ssd() -> None:
    """Scale 20 on the 512 channels of conv4_3, and zeros stay zeros."""
    maps = torch.randn(2, 512, 3, 3, generator=torch.Generator().manual_seed(0))
    maps[0, :, 1, 1] = 0
    theirs = torch.full((512,), 20.0).view(1, -1, 1, 1) * nn.functional.normalize(maps)  # models/detection/ssd.py
    assert float((L2Norm(512, 20 / 512**0.5)(maps) - theirs).detach().abs().max()) < 1e-5


def test_no_norm_leaves_a_map_alone() -> None:
    assert isinstance(level_norm(8, 0.0), nn.Identity)


def test_an_extra_level_without_groups_is_the_papers() -> None:
    layers = extra_level(64, ExtraLevel(squeeze=16, channels=32, stride=2, padding=1))
    assert [type(layer) for layer in layers if not isinstance(layer, nn.Identity)] == [
        nn.Conv2d,
        nn.ReLU,
        nn.Conv2d,
        nn.ReLU,
    ]


@pytest.mark.parametrize("backbone", [tiny.NAME, "resnet18", "efficientnet_lite0"])
def test_all_heads_start_on_maps_of_like_size(backbone: str) -> None:
    """Without it the maps of efficientnet_lite0 had deviations of 8 to 0.6, and 25 classes were not learnt."""
    spec = tiny.specification().detector
    weights = "pretrained" if backbone == "efficientnet_lite0" else "none"
    model = SSD(replace(spec, backbone=backbone, weights=weights), seed=0).eval()
    pictures = torch.randint(0, 256, (2, 3, 300, 300), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        sizes = [float(level.pow(2).mean().sqrt()) for level in model.feature_maps(pictures)]
    assert max(sizes) < 2 * min(sizes), sizes
    assert len(LIGHT_EXTRAS) + 3 == len(sizes)
