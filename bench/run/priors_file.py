"""Files of prior shapes: written for each cell, read by ``--priors FILE``."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.detector.prior_fitting import recall, recall_by_shape
from bench.detector.prior_presets import PRESETS, RATIOS
from bench.errors import UserError, nearest
from bench.spec import DetectorSpec, Shape
from bench.storage.atomic import write_json
from bench.storage.reading import Unreadable, load_json, reason_of

NAMED_RATIOS = {"1:3": 1 / 3, "1:2": 1 / 2, "1:1": 1.0, "2:1": 2.0, "3:1": 3.0}  # width : height
DECIMALS = 6  # of pixels in a file


def write_priors(path: Path, spec: DetectorSpec, boxes: Mapping[str, NDArray[np.float64]]) -> None:
    """Write a detector's shapes as a file for `read_shapes` and ``--priors FILE``, with how many boxes they match.

    boxes: by split, (M, 4) xyxy in fractions of their images. Each split has its `recall`, and each shape its share of
    each split (`recall_by_shape`); see also `describe_shape`.
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
    """Read a file of `write_priors`, and get exactly the same floats.

    Widths and heights in pixels suffice. `fractions` are used only if they agree with the pixels, so that edited pixels
    count. Raises UserError if the file has another form.
    """
    if not os.path.lexists(path):
        hint = nearest(str(path), PRESETS)
        raise UserError(f"--priors {path}: no such file{hint}; or use one of {', '.join(PRESETS)}")
    try:
        content = load_json(path, follow=True)
        size = float(content["size"])
        levels = tuple(tuple(_shape_of(shape, size) for shape in level) for level in content["levels"])
    except (Unreadable, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"--priors {path}: not a file of priors ({reason_of(error)}). "
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
