"""How large the objects are, of which shape and class, and how many are cut off: counts over an index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.index import UNKNOWN, ImageIndex

Floats = NDArray[np.float64]

# COCO's limits of small and large, 32 and 96, and half of the former: a side of 16 pixels is two cells of the
# finest map, the least that a 3 x 3 head sees with anything around it.
SIDES = (16, 32, 96)
SIZE_NAMES = ("under 16", "16 to 32", "32 to 96", "96 and more")
COCO_SIZES = ("small", "medium", "large")
QUANTILES = (0.05, 0.5, 0.95)
BINS_AN_OCTAVE = 4
LARGEST_OCTAVE = 14  # 16384 pixels, beyond any photograph
SAMPLED = 4000  # shapes that are kept to be drawn: more are a black cloud
AT_BORDER = 0.5  # pixels from the border within which a box ends there


def network_sides(index: ImageIndex, size: int) -> Floats:
    """(M, 2) width and height of each box in pixels of an input of `size`, after the warp to a square."""
    fractions = index.fractions()
    return (fractions[:, 2:] - fractions[:, :2]) * size


def size_bucket(sides: Floats) -> NDArray[np.int64]:
    """(M,) place in SIZE_NAMES of boxes of (M, 2) width and height, by the side of a square of equal area."""
    return np.digitize(np.sqrt(sides.prod(axis=1)), SIDES)


def object_sizes(index: ImageIndex, size: int) -> dict[str, Any]:
    """Sizes and shapes of the objects (crowds apart) in the photographs' pixels and at the network; JSON data.

    coco: counts by COCO's sizes, of `areas` as the evaluation takes them; coco_network: the same limits on
    boxes at the network. network: counts by SIZE_NAMES. shrunk: objects that are medium or large in the
    photographs and small at the network. small_and_tiny: small in the photographs, and under SIDES[0] at the
    network. side, side_network: quantiles (QUANTILES) of the side of a square
    of equal area; ratio, ratio_network: of width by height. None where there are no objects.
    histogram: counts in bins of a quarter of an octave, and their edges. shapes: up to SAMPLED (width, height)
    at the network, evenly taken.
    """
    objects = ~index.crowd
    sides = (index.boxes[:, 2:] - index.boxes[:, :2])[objects]
    at_network = network_sides(index, size)[objects]
    areas = index.areas[objects]
    network = size_bucket(at_network)
    coco, coco_network = _coco_size(areas), _coco_size(at_network.prod(axis=1))
    edges = 2.0 ** np.linspace(0, LARGEST_OCTAVE, LARGEST_OCTAVE * BINS_AN_OCTAVE + 1)
    drawn = at_network[np.linspace(0, len(sides) - 1, min(len(sides), SAMPLED)).astype(np.int64)]
    return {
        "objects": len(sides),
        "coco": dict(zip(COCO_SIZES, np.bincount(coco, minlength=3).tolist(), strict=True)),
        "coco_network": dict(zip(COCO_SIZES, np.bincount(coco_network, minlength=3).tolist(), strict=True)),
        "network": dict(zip(SIZE_NAMES, np.bincount(network, minlength=len(SIZE_NAMES)).tolist(), strict=True)),
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
        "shapes": drawn.round(2).tolist(),
    }


def class_counts(train: ImageIndex, val: ImageIndex, size: int) -> list[dict[str, Any]]:
    """For each class its objects and images on both sides, and its median side at the network; JSON data.

    Trained on are all but crowds; scored are those that are not `difficult` either.
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
    """How many objects (crowds apart) are truncated and occluded where that is stated, and end at the border."""
    objects = ~index.crowd
    limits = index.sizes[index.image_of_box][objects]
    boxes = index.boxes[objects]
    border = (boxes[:, :2] <= AT_BORDER).any(axis=1) | (boxes[:, 2:] >= limits - AT_BORDER).any(axis=1)
    found: dict[str, Any] = {"objects": len(boxes), "at_border": int(border.sum())}
    for name in ("truncated", "occluded"):
        flags = getattr(index, name)[objects]
        found[f"{name}_stated"] = int((flags != UNKNOWN).sum())
        found[name] = int((flags == 1).sum())
    return found


def _coco_size(areas: Floats) -> NDArray[np.int64]:
    """(M,) place in COCO_SIZES."""
    return np.digitize(areas, (32**2, 96**2))


def _quantiles(values: Floats) -> list[float] | None:
    return np.quantile(values, QUANTILES).tolist() if len(values) else None


def _histogram(values: Floats, edges: Floats) -> list[int]:
    """Counts; what is below the first edge counts there."""
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].tolist()
