"""Necks: what stands between the feature maps and the heads. Levels and their sides stay the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UserError
from bench.spec import NeckSpec


class FeaturePyramid(nn.Module):
    """Top-down sums of laterals (Lin et al. 2017) over the finest `spec.levels` levels of the detector.

    Maps are upsampled to the explicit size of the next one: 10 to 19 is not a factor of two. With
    `top_down` false it is the control that has the same convolutions and no information from above.
    As in the paper it has neither norms nor activations.
    """

    def __init__(self, channels: Sequence[int], spec: NeckSpec, *, top_down: bool = True) -> None:
        super().__init__()
        width = spec.channels
        self.channels = [width] * len(channels)
        self.levels = spec.levels if top_down else 1
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Feature maps (B, C_l, H_l, W_l), finest first, to as many of `width` channels."""
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
    """The neck that `spec` names, over maps of so many channels; it has `channels` of its own."""
    if spec.kind not in NECKS:
        raise UserError(f"neck {spec.kind!r} is not known; there are {', '.join(NECKS)}")
    return NECKS[spec.kind](channels, spec)
