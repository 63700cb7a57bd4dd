"""The pyramid of runs until November 2026, which `predict` and `throughput` still read."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from bench.spec import NeckSpec


class EarlierPyramid(nn.Module):
    """Replaces the maps of all levels by `spec.channels` channels without norms; see `detector.neck`."""

    def __init__(self, channels: Sequence[int], spec: NeckSpec, *, top_down: bool = True) -> None:
        super().__init__()
        width = spec.channels
        self.channels = [width] * len(channels)
        self.levels = spec.levels if top_down else 1
        self.laterals = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        sums = [lateral(level) for lateral, level in zip(self.laterals, maps, strict=True)]
        for level in range(self.levels - 2, -1, -1):
            above = F.interpolate(sums[level + 1], size=sums[level].shape[-2:], mode="nearest")
            sums[level] = sums[level] + above
        return [output(level) for output, level in zip(self.outputs, sums, strict=True)]
