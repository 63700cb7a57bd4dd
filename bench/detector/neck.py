"""Necks, between the feature maps and the heads. They keep the number of levels and their sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UserError
from bench.spec import NeckSpec


class FeaturePyramid(nn.Module):
    """Top-down sums of lateral maps (Lin et al. 2017) over the finest `spec.levels` levels.

    Maps are upsampled to the explicit size of the next level, since 10 to 19 is not a factor of two. There are no norms
    and no activations, as in the paper.

    top_down: False for the control with the same convolutions but no information from coarser levels.
    """

    def __init__(self, channels: Sequence[int], spec: NeckSpec, *, top_down: bool = True) -> None:
        super().__init__()
        width = spec.channels
        self.channels = [width] * len(channels)
        self.levels = spec.levels if top_down else 1
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps (B, C_l, H_l, W_l), finest first, to maps of the same sizes with `width` channels."""
        sums = [lateral(level) for lateral, level in zip(self.laterals, maps, strict=True)]
        for level in range(self.levels - 2, -1, -1):
            above = F.interpolate(sums[level + 1], size=sums[level].shape[-2:], mode="nearest")
            sums[level] = sums[level] + above
        return [output(level) for output, level in zip(self.outputs, sums, strict=True)]


NECKS: dict[str, Callable[[Sequence[int], NeckSpec], nn.Module]] = {
    "fpn": FeaturePyramid,
    "lateral-only": lambda channels, spec: FeaturePyramid(channels, spec, top_down=False),
}


def build_neck(spec: NeckSpec, channels: Sequence[int]) -> nn.Module:
    """The neck that `spec` names, for maps with these `channels`; its attribute `channels` are those of its output."""
    if spec.kind not in NECKS:
        raise UserError(f"unknown neck {spec.kind!r}. Choose one of {', '.join(NECKS)}")
    return NECKS[spec.kind](channels, spec)
