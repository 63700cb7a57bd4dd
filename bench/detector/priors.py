"""Prior boxes: their shapes, from a preset or a file, and their places on the feature maps.

Shapes are (width, height) as fractions of the input, level by level. The order within a cell is that of torchvision's
`DefaultBoxGenerator`: the square, the larger square, then each ratio and its inverse.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.detector.prior_fitting import recall, recall_by_shape
from bench.errors import UserError, nearest
from bench.spec import DetectorSpec, Shape
from bench.storage.atomic import write_json

RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
# Scales of Caffe's ssd_coco.py and ssd_pascal.py, and whether sides are clipped to the image, which matters on the last
# level only. torchvision, which uses COCO's scales, clips; Caffe's SSD-300 does not.
PRESETS = {
    "coco": ((0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05), True),
    "voc": ((0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05), False),
}
NAMED_RATIOS = {"1:3": 1 / 3, "1:2": 1 / 2, "1:1": 1.0, "2:1": 2.0, "3:1": 3.0}  # width : height
DECIMALS = 6  # of pixels in a file


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


def write_shapes(path: Path, priors: Sequence[Sequence[Shape]], *, size: int) -> None:
    """Write shapes as a file for `read_shapes` and ``--priors FILE``; see `describe_shape`."""
    write_json(path, {"size": size, "levels": [[describe_shape(shape, size) for shape in level] for level in priors]})


def write_priors(path: Path, spec: DetectorSpec, boxes: Mapping[str, NDArray[np.float64]]) -> None:
    """Write a detector's shapes as `write_shapes` does, and how many boxes they match.

    boxes: by split, (M, 4) xyxy in fractions of their images. The file also has each split's `recall`, and for each
    shape its share of each split (`recall_by_shape`).
    """
    by_shape = {split: shares for split, split_boxes in boxes.items() if (shares := recall_by_shape(split_boxes, spec))}
    levels = [
        [
            describe_shape(shape, spec.size) | {"share": {split: by_shape[split][level][index] for split in by_shape}}
            for index, shape in enumerate(shapes)
        ]
        for level, shapes in enumerate(spec.priors)
    ]
    content = {
        "size": spec.size,
        "match_threshold": spec.match_threshold,
        "recall": {split: recall(split_boxes, spec) for split, split_boxes in boxes.items()},
        "levels": levels,
    }
    write_json(path, content)


def describe_shape(shape: Shape, size: int) -> dict[str, Any]:
    """The entry of a shape in a file.

    width, height: in pixels of an input of `size`, rounded. scale: sqrt(width * height) in pixels.
    ratio: width / height.
    nearest: the nearest scale of COCO's preset, as a fraction of the input, and the nearest ratio of the paper.
    fractions: exact width and height, which cannot be recovered from rounded pixels.
    """
    width, height = shape
    scale, ratio = math.sqrt(width * height), width / height
    return {
        "width": round(width * size, DECIMALS),
        "height": round(height * size, DECIMALS),
        "scale": round(scale * size, 2),
        "ratio": round(ratio, 3),
        "nearest": {
            "scale": min(PRESETS["coco"][0], key=lambda preset: abs(math.log(preset / scale))),
            "ratio": min(NAMED_RATIOS, key=lambda name: abs(math.log(NAMED_RATIOS[name] / ratio))),
        },
        "fractions": [width, height],
    }


def read_shapes(path: Path) -> tuple[tuple[Shape, ...], ...]:
    """Read a file of `write_shapes`, and get exactly the same floats.

    Widths and heights in pixels suffice. `fractions` are used only if they agree with the pixels, so that edited pixels
    count. Raises UserError if the file has another form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        size = float(content["size"])
        levels = tuple(tuple(_shape_of(shape, size) for shape in level) for level in content["levels"])
    except FileNotFoundError:
        hint = nearest(str(path), PRESETS)
        raise UserError(f"--priors {path}: no such file{hint}; or use one of {', '.join(PRESETS)}") from None
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise UserError(
            f"--priors {path}: not a file of priors ({type(error).__name__}: {error}). "
            'Expected {"size": 300, "levels": [[{"width": 21, "height": 21}, …], …]}, with sides in pixels.'
        ) from error
    expected = [2 + 2 * len(ratios) for ratios in RATIOS]
    if [len(level) for level in levels] != expected:
        raise UserError(
            f"--priors {path}: {[len(level) for level in levels]} shapes by level; SSD-300 needs {expected}"
        )
    if not all(0 < side < math.inf for level in levels for shape in level for side in shape):
        raise UserError(f"--priors {path}: widths and heights must be positive numbers of pixels")
    return levels


def _shape_of(entry: Mapping[str, Any], size: float) -> Shape:
    """The shape of one entry of a file, as fractions of the input."""
    sides = float(entry["width"]), float(entry["height"])
    width, height = map(float, entry.get("fractions", (math.nan, math.nan)))
    if (round(width * size, DECIMALS), round(height * size, DECIMALS)) == sides:
        return width, height
    return sides[0] / size, sides[1] / size
