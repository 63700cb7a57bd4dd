"""Prior boxes: their shapes (two presets, or free shapes from a file) and their places.

Shapes are (width, height) as fractions of the input, level by level. Order within a cell is that of
torchvision's `DefaultBoxGenerator`: the square, the larger square, then each ratio and its inverse.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bench.atomic import write_json
from bench.errors import UserError
from bench.spec import DetectorSpec, Shape

RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
# Scales of Caffe's ssd_coco.py and ssd_pascal.py, and whether sides are clipped to the image: torchvision,
# which has COCO's scales, clips; Caffe's SSD-300 does not. It concerns the last level alone.
PRESETS = {
    "coco": ((0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05), True),
    "voc": ((0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05), False),
}


def preset_shapes(name: str) -> tuple[tuple[Shape, ...], ...]:
    """The shapes of preset "coco" or "voc": 4, 6, 6, 6, 4 and 4 of them."""
    scales, clip = PRESETS[name]
    levels = []
    for scale, larger, ratios in zip(scales[:-1], scales[1:], RATIOS, strict=True):
        middle = math.sqrt(scale * larger)
        shapes = [(scale, scale), (middle, middle)]
        for ratio in ratios:
            wide, narrow = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            shapes += [(wide, narrow), (narrow, wide)]
        levels.append(tuple((min(w, 1.0), min(h, 1.0)) if clip else (w, h) for w, h in shapes))
    return tuple(levels)


def prior_boxes(spec: DetectorSpec) -> Tensor:
    """(P, 4) float32, cxcywh as fractions of the input; by level, then row, column and shape.

    Always float32, whatever the network computes in: built in bfloat16 they move by up to 0.7 pixels.
    """
    levels = []
    for side, step, shapes in zip(spec.feature_maps, spec.steps, spec.priors, strict=True):
        centres = (torch.arange(side, dtype=torch.float64) + 0.5) * step / spec.size
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        places = torch.stack((x, y), dim=-1).reshape(-1, 1, 2).expand(-1, len(shapes), 2)
        sizes = torch.tensor(shapes, dtype=torch.float64).expand(side * side, -1, 2)
        levels.append(torch.cat((places, sizes), dim=-1).reshape(-1, 4))
    return torch.cat(levels).float()


def write_shapes(path: Path, priors: Sequence[Sequence[Shape]], *, size: int) -> None:
    """Write shapes in the form that `read_shapes` and ``--priors FILE`` read; sides in pixels at `size`."""
    levels = [[{"width": w * size, "height": h * size} for w, h in shapes] for shapes in priors]
    write_json(path, {"size": size, "levels": levels})


def read_shapes(path: Path) -> tuple[tuple[Shape, ...], ...]:
    """Shapes from a file as `write_shapes` makes. Raises UserError where it is not of that form."""
    try:
        content = json.loads(path.read_text())
        size = float(content["size"])
        levels = tuple(
            tuple((float(shape["width"]) / size, float(shape["height"]) / size) for shape in level)
            for level in content["levels"]
        )
    except FileNotFoundError:
        raise UserError(f"--priors {path}: there is no such file; or use one of {', '.join(PRESETS)}") from None
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise UserError(
            f"--priors {path}: not a file of priors ({type(error).__name__}: {error}). "
            'Its form is {"size": 300, "levels": [[{"width": 21, "height": 21}, …], …]}, sides in pixels.'
        ) from error
    expected = [2 + 2 * len(ratios) for ratios in RATIOS]
    if [len(level) for level in levels] != expected:
        raise UserError(
            f"--priors {path}: has {[len(level) for level in levels]} shapes by level; SSD-300 needs {expected}"
        )
    if not all(0 < side < math.inf for level in levels for shape in level for side in shape):
        raise UserError(f"--priors {path}: widths and heights must be positive numbers of pixels")
    return levels
