"""The prior shapes of two presets, for inputs of 300 and 512 pixels. Nothing here needs torch.

Shapes are (width, height) as fractions of the input, level by level. The order within a cell is that of torchvision's
`DefaultBoxGenerator`: the square, the larger square, then each ratio and its inverse.
"""

from __future__ import annotations

import math
from typing import Literal

from bench.spec import Shape

RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
# Scales of Caffe's ssd_coco.py and ssd_pascal.py, and whether sides are clipped to the image, which matters on the last
# level only. torchvision, which uses COCO's scales, clips; Caffe's SSD-300 does not.
PRESETS = {
    "coco": ((0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05), True),
    "voc": ((0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05), False),
}
# The same for the seven levels of SSD-512
RATIOS_512 = ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,))
PRESETS_512 = {
    "coco": ((0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06), True),
    "voc": ((0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05), False),
}


def preset_shapes(name: str, *, size: Literal[300, 512] = 300) -> tuple[tuple[Shape, ...], ...]:
    """The shapes of preset "coco" or "voc": 4, 6, 6, 6, 4 and 4 for SSD-300, 4, 6, 6, 6, 6, 4 and 4 for SSD-512."""
    (scales, clip), all_ratios = (PRESETS[name], RATIOS) if size == 300 else (PRESETS_512[name], RATIOS_512)
    levels = []
    for scale, larger, ratios in zip(scales[:-1], scales[1:], all_ratios, strict=True):
        larger_square = math.sqrt(scale * larger)
        shapes = [(scale, scale), (larger_square, larger_square)]
        for ratio in ratios:
            wide, narrow = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            shapes += [(wide, narrow), (narrow, wide)]
        levels.append(tuple((min(w, 1.0), min(h, 1.0)) if clip else (w, h) for w, h in shapes))
    return tuple(levels)
