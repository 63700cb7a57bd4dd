"""Count the objects of an index by size, shape and class, and how many are truncated or occluded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import UNKNOWN, ImageIndex
from bench.data.subsets import SIZE_SIDES, SIZES, size_of_area

Floats = NDArray[np.float64]

# Sides at the network's resolution: COCO's limits, and 16 pixels. That is two cells of the finest map, the
# smallest object that a 3x3 head sees with some context around it.
NETWORK_SIDES = (SIZE_SIDES[0] // 2, *SIZE_SIDES)
SIDE_RANGES = ("under 16", "16 to 32", "32 to 96", "96 and more")
QUANTILES = (0.05, 0.5, 0.95)
BINS_PER_OCTAVE = 4
OCTAVES = 14  # up to 16384 pixels, beyond any photograph
SAMPLED = 4000  # shapes kept for the scatter plot
AT_BORDER = 0.5  # pixels: a box this close to the border ends there


def network_sides(index: ImageIndex, size: int) -> Floats:
    """(M, 2) width and height of each box in pixels, after the image is warped to a square of side `size`."""
    fractions = index.fractions()
    return (fractions[:, 2:] - fractions[:, :2]) * size


def side_range(sides: Floats) -> NDArray[np.int64]:
    """(M,) index into SIDE_RANGES of boxes of (M, 2) width and height, by the side of a square of equal area."""
    return np.digitize(np.sqrt(sides.prod(axis=1)), NETWORK_SIDES)


def object_sizes(index: ImageIndex, size: int) -> dict[str, Any]:
    """Count objects by size and shape, in original pixels and at the network's resolution, crowds excluded.

    size: side of the network's input.
    Returns JSON data:
    coco: counts per COCO size, by the `areas` that the evaluation uses. coco_network: by box area at the network.
    network: counts per SIDE_RANGES. shrunk: objects that are medium or large in the original and small at the
        network. small_and_tiny: small in the original and under NETWORK_SIDES[0] at the network.
    side, side_network: QUANTILES of the side of a square of equal area. ratio, ratio_network: of width divided
        by height. None without objects.
    histogram: counts of sides in bins of a quarter octave, with the bin edges.
    shapes: up to SAMPLED (width, height) at the network, evenly spaced.
    """
    objects = ~index.crowd
    sides = (index.boxes[:, 2:] - index.boxes[:, :2])[objects]
    at_network = network_sides(index, size)[objects]
    areas = index.areas[objects]
    network = side_range(at_network)
    coco, coco_network = size_of_area(areas), size_of_area(at_network.prod(axis=1))
    edges = 2.0 ** np.linspace(0, OCTAVES, OCTAVES * BINS_PER_OCTAVE + 1)
    shapes = at_network[np.linspace(0, len(sides) - 1, min(len(sides), SAMPLED)).astype(np.int64)]
    return {
        "objects": len(sides),
        "coco": dict(zip(SIZES, np.bincount(coco, minlength=len(SIZES)).tolist(), strict=True)),
        "coco_network": dict(zip(SIZES, np.bincount(coco_network, minlength=len(SIZES)).tolist(), strict=True)),
        "network": dict(zip(SIDE_RANGES, np.bincount(network, minlength=len(SIDE_RANGES)).tolist(), strict=True)),
        "shrunk": int(((coco > 0) & (coco_network == 0)).sum()),
        "small_and_tiny": int(((coco == 0) & (network == 0)).sum()),
        "side": _quantiles(np.sqrt(sides.prod(axis=1))),
        "side_network": _quantiles(np.sqrt(at_network.prod(axis=1))),
        "ratio": _quantiles(sides[:, 0] / sides[:, 1]),
        "ratio_network": _quantiles(at_network[:, 0] / at_network[:, 1]),
        "histogram": {
            "edges": edges.round(3).tolist(),
            "original": _histogram(np.sqrt(sides.prod(axis=1)), edges),
            "network": _histogram(np.sqrt(at_network.prod(axis=1)), edges),
        },
        "shapes": shapes.round(2).tolist(),
    }


def class_counts(train: ImageIndex, val: ImageIndex, size: int) -> list[dict[str, Any]]:
    """For each class: objects and images in training and validation, and the median side at the network.

    Training counts exclude crowds; validation counts also exclude `difficult` objects, which are not scored.
    Returns JSON data.
    """
    sides = np.concatenate([network_sides(index, size) for index in (train, val)])
    labels = np.concatenate([train.labels, val.labels])
    ordinary = ~np.concatenate([train.crowd, val.crowd])
    side = np.sqrt(sides.prod(axis=1))
    counts = {}
    for name, index, kept in (("train", train, ~train.crowd), ("val", val, ~(val.crowd | val.difficult))):
        pairs = np.unique(np.stack((index.image_of_box[kept], index.labels[kept].astype(np.int64))), axis=1)
        counts[name] = np.bincount(index.labels[kept], minlength=len(train.classes))
        counts[f"{name}_images"] = np.bincount(pairs[1], minlength=len(train.classes))
    order = np.argsort(labels[ordinary], kind="stable")
    of_class = np.split(side[ordinary][order], np.cumsum(np.bincount(labels[ordinary], minlength=len(train.classes))))
    return [
        {
            "class": name,
            **{key: int(values[label]) for key, values in counts.items()},
            "side_network": float(np.median(of_class[label])) if len(of_class[label]) else None,
        }
        for label, name in enumerate(train.classes)
    ]


def conditions(index: ImageIndex) -> dict[str, Any]:
    """Count objects that are truncated or occluded (where annotated) or touch the border, crowds excluded."""
    objects = ~index.crowd
    limits = index.sizes[index.image_of_box][objects]
    boxes = index.boxes[objects]
    border = (boxes[:, :2] <= AT_BORDER).any(axis=1) | (boxes[:, 2:] >= limits - AT_BORDER).any(axis=1)
    counts: dict[str, Any] = {"objects": len(boxes), "at_border": int(border.sum())}
    for name in ("truncated", "occluded"):
        flags = getattr(index, name)[objects]
        counts[f"{name}_stated"] = int((flags != UNKNOWN).sum())
        counts[name] = int((flags == 1).sum())
    return counts


def _quantiles(values: Floats) -> list[float] | None:
    return np.quantile(values, QUANTILES).tolist() if len(values) else None


def _histogram(values: Floats, edges: Floats) -> list[int]:
    """Counts per bin; values outside the edges count in the first or last bin."""
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].tolist()
