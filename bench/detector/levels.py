"""What makes the backbone's maps into the levels of a detector: their scale, and the extra levels above them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.spec import ExtraLevel


class L2Norm(nn.Module):
    """ParseNet's normalisation (Liu et al. 2015): unit length over the channels, times a learnt scale for each.

    Maps of a network differ in size by a factor of ten or more, and so would the first losses and the
    steps of the heads. SSD has it on conv4_3, with a scale of 20.

    root_mean_square: of the channels of one position at the start.
    """

    def __init__(self, channels: int, root_mean_square: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), root_mean_square * channels**0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape, in float32."""
        return F.normalize(x.float(), dim=1) * self.scale.view(1, -1, 1, 1)


def level_norm(channels: int, root_mean_square: float) -> nn.Module:
    """An L2Norm, or nothing where `root_mean_square` is 0."""
    return L2Norm(channels, root_mean_square) if root_mean_square else nn.Identity()


def group_norm(groups: int, channels: int) -> nn.Module:
    """A GroupNorm, or nothing where `groups` is 0."""
    return nn.GroupNorm(groups, channels) if groups else nn.Identity()


def extra_level(channels: int, extra: ExtraLevel) -> nn.Sequential:
    """The layers of one extra level over a map of so many channels."""
    return nn.Sequential(
        nn.Conv2d(channels, extra.squeeze, 1),
        group_norm(extra.norm_groups, extra.squeeze),
        nn.ReLU(inplace=True),
        nn.Conv2d(extra.squeeze, extra.channels, 3, stride=extra.stride, padding=extra.padding),
        group_norm(extra.norm_groups, extra.channels),
        nn.ReLU(inplace=True),
    )
