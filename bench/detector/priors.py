"""The places of prior boxes on the feature maps."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.spec import DetectorSpec


def prior_boxes(spec: DetectorSpec) -> Tensor:
    """(P, 4) float32 cxcywh as fractions of the input, by level, then row, column and shape.

    They are float32 in every precision: in bfloat16 they would move by up to 0.7 pixels.
    """
    levels = []
    for side, step, shapes in zip(spec.feature_maps, spec.steps, spec.priors, strict=True):
        centres = (torch.arange(side, dtype=torch.float64) + 0.5) * step / spec.size
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        places = torch.stack((x, y), dim=-1).reshape(-1, 1, 2).expand(-1, len(shapes), 2)
        sizes = torch.tensor(shapes, dtype=torch.float64).expand(side * side, -1, 2)
        levels.append(torch.cat((places, sizes), dim=-1).reshape(-1, 4))
    return torch.cat(levels).float()
