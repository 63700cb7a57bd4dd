"""Necks, between the feature maps and the heads. They keep the number of levels and their sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.detector.earlier_neck import EarlierPyramid
from bench.errors import UserError
from bench.spec import NeckSpec

GROUPS = 16  # of GroupNorm


class FeaturePyramid(nn.Module):
    """A feature pyramid (Lin et al. 2017) beside the maps of the finest `spec.levels` levels; the heads read both.

    Lateral 1x1 convolutions, top-down sums, and a 3x3 convolution with GroupNorm and ReLU, whose `spec.channels`
    channels are appended to the level's own. The other levels stay as they are. Maps are upsampled to the explicit size
    of the next level, since 10 to 19 is not a factor of two.

    top_down: False for the control with the same convolutions but no information from coarser levels.
    channels: of the output, by level. appended: how many of them the pyramid adds; `SSD` starts the weights that read
        them at zero, so that the detector begins as the one without a pyramid.
    """

    def __init__(self, channels: Sequence[int], spec: NeckSpec, *, top_down: bool = True) -> None:
        super().__init__()
        width, own = spec.channels, channels[: spec.levels]
        self.top_down = top_down
        self.appended = [width if level < spec.levels else 0 for level in range(len(channels))]
        self.channels = [count + more for count, more in zip(channels, self.appended, strict=True)]
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in own)
        self.outputs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(GROUPS, width), nn.ReLU()) for _ in own
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps (B, C_l, H_l, W_l), finest first, to maps of the same sizes with `channels` channels."""
        levels = len(self.laterals)
        sums = [lateral(level) for lateral, level in zip(self.laterals, maps, strict=False)]
        if self.top_down:
            for level in range(levels - 2, -1, -1):
                above = F.interpolate(sums[level + 1], size=sums[level].shape[-2:], mode="nearest")
                sums[level] = sums[level] + above
        pyramid = [output(level) for output, level in zip(self.outputs, sums, strict=True)]
        beside = [torch.cat((own, added), dim=1) for own, added in zip(maps, pyramid, strict=False)]
        return [*beside, *maps[levels:]]


NECKS: dict[str, Callable[[Sequence[int], NeckSpec], nn.Module]] = {
    "pyramid": FeaturePyramid,
    "pyramid-lateral-only": lambda channels, spec: FeaturePyramid(channels, spec, top_down=False),
    # Of runs until November 2026
    "fpn": EarlierPyramid,
    "lateral-only": lambda channels, spec: EarlierPyramid(channels, spec, top_down=False),
}


def build_neck(spec: NeckSpec, channels: Sequence[int]) -> nn.Module:
    """The neck that `spec` names, for maps with these `channels`; its attribute `channels` are those of its output.

    A neck that appends channels to the maps, after their own, says how many in its attribute `appended`.
    """
    if spec.kind not in NECKS:
        raise UserError(f"unknown neck {spec.kind!r}. Choose one of {', '.join(NECKS)}")
    return NECKS[spec.kind](channels, spec)
