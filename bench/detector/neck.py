"""Necks: what stands between the feature maps and the heads. Levels and their sides stay the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from bench.detector.levels import group_norm
from bench.errors import UserError
from bench.spec import NeckSpec


class FeaturePyramid(nn.Module):
    """Top-down sums of laterals (Lin et al. 2017), over all levels of the detector.

    Maps are upsampled to the explicit size of the next one: 10 to 19 is not a factor of two. With
    `top_down` false it is the control that has the same convolutions and no information from above.
    The paper's has neither norms nor activations; with `norm_groups` each convolution is followed by a
    GroupNorm (Wu and He 2018, section 4.2) and the outputs by a ReLU.
    """

    def __init__(self, channels: Sequence[int], spec: NeckSpec, *, top_down: bool = True) -> None:
        super().__init__()
        width, groups = spec.channels, spec.norm_groups
        self.channels = [width] * len(channels)
        self.top_down = top_down
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.lateral_norms = nn.ModuleList(group_norm(groups, width) for _ in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.output_norms = nn.ModuleList(
            nn.Sequential(group_norm(groups, width), nn.ReLU(inplace=True)) if groups else nn.Identity()
            for _ in channels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps (B, C_l, H_l, W_l), finest first, to as many of `width` channels."""
        laterals = zip(self.lateral_norms, self.laterals, maps, strict=True)
        sums = [norm(lateral(level)) for norm, lateral, level in laterals]
        if self.top_down:
            for level in range(len(sums) - 2, -1, -1):
                above = F.interpolate(sums[level + 1], size=sums[level].shape[-2:], mode="nearest")
                sums[level] = sums[level] + above
        outputs = zip(self.output_norms, self.outputs, sums, strict=True)
        return [norm(output(level)) for norm, output, level in outputs]


NECKS: dict[str, Callable[[Sequence[int], NeckSpec], nn.Module]] = {
    "fpn": FeaturePyramid,
    "lateral-only": lambda channels, spec: FeaturePyramid(channels, spec, top_down=False),
}


def build_neck(spec: NeckSpec, channels: Sequence[int]) -> nn.Module:
    """The neck that `spec` names, over maps of so many channels; it has `channels` of its own."""
    if spec.kind not in NECKS:
        raise UserError(f"neck {spec.kind!r} is not known; there are {', '.join(NECKS)}")
    return NECKS[spec.kind](channels, spec)
