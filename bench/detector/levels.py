"""From the maps of the backbone to the levels of the detector: their scale, and the extra levels above them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.spec import ExtraLevel


class L2Norm(nn.Module):
    """ParseNet's normalisation (Liu et al. 2015): unit length over the channels, times a learnt scale per channel.

    The maps of a network differ in magnitude by a factor of ten or more, and without it so would the first losses and
    the gradients of the heads. SSD applies it to conv4_3 with an initial scale of 20.

    root_mean_square: over the channels of a position, at the start.
    """

    def __init__(self, channels: int, root_mean_square: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), root_mean_square * channels**0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape, in float32."""
        return F.normalize(x.float(), dim=1) * self.scale.view(1, -1, 1, 1)


def level_norm(channels: int, root_mean_square: float) -> nn.Module:
    """An L2Norm, or the identity if `root_mean_square` is 0."""
    return L2Norm(channels, root_mean_square) if root_mean_square else nn.Identity()


def group_norm(groups: int, channels: int) -> nn.Module:
    """A GroupNorm, or the identity if `groups` is 0."""
    return nn.GroupNorm(groups, channels) if groups else nn.Identity()


def extra_level(channels: int, extra: ExtraLevel) -> nn.Sequential:
    """The layers of one extra level on a map with `channels` channels."""
    return nn.Sequential(
        nn.Conv2d(channels, extra.squeeze, 1),
        group_norm(extra.norm_groups, extra.squeeze),
        nn.ReLU(inplace=True),
        nn.Conv2d(extra.squeeze, extra.channels, 3, stride=extra.stride, padding=extra.padding),
        group_norm(extra.norm_groups, extra.channels),
        nn.ReLU(inplace=True),
    )
