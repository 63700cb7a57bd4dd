"""Prior boxes: their shapes (two presets, or free shapes from a file) and their places.

Shapes are (width, height) as fractions of the input, level by level. Order within a cell is that of
torchvision's `DefaultBoxGenerator`: the square, the larger square, then each ratio and its inverse.
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
# Scales of Caffe's ssd_coco.py and ssd_pascal.py, and whether sides are clipped to the image: torchvision,
# which has COCO's scales, clips; Caffe's SSD-300 does not. It concerns the last level alone.
PRESETS = {
    "coco": ((0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05), True),
    "voc": ((0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05), False),
}
NAMED_RATIOS = {"1:3": 1 / 3, "1:2": 1 / 2, "1:1": 1.0, "2:1": 2.0, "3:1": 3.0}  # width to height
DECIMALS = 6  # of the pixels in a file


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
    """Write shapes in the form that `read_shapes` and ``--priors FILE`` read; see `described`."""
    write_json(path, {"size": size, "levels": [[described(shape, size) for shape in level] for level in priors]})


def write_priors(path: Path, spec: DetectorSpec, boxes: Mapping[str, NDArray[np.float64]]) -> None:
    """Write a detector's shapes as `write_shapes` does, with what each level and each shape matches.

    boxes: by split, (M, 4) xyxy in fractions of their images. Above the levels stands each split's `recall`,
    beside each shape its share of each split (`recall_by_shape`).
    """
    by_shape = {split: shares for split, own in boxes.items() if (shares := recall_by_shape(own, spec))}
    levels = [
        [
            described(shape, spec.size) | {"share": {split: by_shape[split][level][place] for split in by_shape}}
            for place, shape in enumerate(shapes)
        ]
        for level, shapes in enumerate(spec.priors)
    ]
    content = {
        "size": spec.size,
        "match_threshold": spec.match_threshold,
        "recall": {split: recall(own, spec) for split, own in boxes.items()},
        "levels": levels,
    }
    write_json(path, content)


def described(shape: Shape, size: int) -> dict[str, Any]:
    """A shape as it stands in a file.

    width, height: in pixels of an input of `size`. scale, ratio: sqrt(width * height) in pixels, and width
    by height. nearest: of COCO's preset the scale (as there, a fraction of the input; by factor) and of the
    paper's ratios the one that come nearest. fractions: width and height in full, since the pixels are
    rounded, and a division by 300 would not give the very same numbers again.
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
    """Shapes from a file as `write_shapes` makes: the very same floats.

    Widths and heights in pixels are enough, and they count where somebody changed them: `fractions` only add
    the digits that the pixels leave out. Raises UserError where the file is not of that form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        size = float(content["size"])
        levels = tuple(tuple(_shape_of(shape, size) for shape in level) for level in content["levels"])
    except FileNotFoundError:
        hint = nearest(str(path), PRESETS)
        raise UserError(f"--priors {path}: there is no such file{hint}; or use one of {', '.join(PRESETS)}") from None
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


def _shape_of(entry: Mapping[str, Any], size: float) -> Shape:
    """One shape of a file, as fractions of the input."""
    sides = float(entry["width"]), float(entry["height"])
    width, height = map(float, entry.get("fractions", (math.nan, math.nan)))
    if (round(width * size, DECIMALS), round(height * size, DECIMALS)) == sides:
        return width, height
    return sides[0] / size, sides[1] / size
