"""Prior boxes: the shapes of two presets, and the places of priors on the feature maps.

Shapes are (width, height) as fractions of the input, level by level. The order within a cell is that of torchvision's
`DefaultBoxGenerator`: the square, the larger square, then each ratio and its inverse.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.spec import DetectorSpec, Shape

RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
# Scales of Caffe's ssd_coco.py and ssd_pascal.py, and whether sides are clipped to the image, which matters on the last
# level only. torchvision, which uses COCO's scales, clips; Caffe's SSD-300 does not.
PRESETS = {
    "coco": ((0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05), True),
    "voc": ((0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05), False),
}


def preset_shapes(name: str) -> tuple[tuple[Shape, ...], ...]:
    """The shapes of preset "coco" or "voc": 4, 6, 6, 6, 4 and 4."""
    scales, clip = PRESETS[name]
    levels = []
    for scale, larger, ratios in zip(scales[:-1], scales[1:], RATIOS, strict=True):
        larger_square = math.sqrt(scale * larger)
        shapes = [(scale, scale), (larger_square, larger_square)]
        for ratio in ratios:
            wide, narrow = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            shapes += [(wide, narrow), (narrow, wide)]
        levels.append(tuple((min(w, 1.0), min(h, 1.0)) if clip else (w, h) for w, h in shapes))
    return tuple(levels)


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
