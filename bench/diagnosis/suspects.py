"""Valid but suspicious annotations, which a person should check before trusting an AP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from bench.data.index import ImageIndex
from bench.diagnosis.objects import network_sides
from bench.diagnosis.overlaps import Pairs

WHOLE_IMAGE = 0.95  # share of the image: a larger box is a picture of one object, or a default box
MIN_NETWORK_SIDE = 1.0  # pixels at the network's resolution: a thinner box is invisible
DRAWN_TWICE = 0.9  # IoU: two drawings of one object overlap this much, two objects of a class hardly ever
MAX_ASPECT_RATIO = 10.0  # longer side divided by shorter: a more extreme box is probably a misplaced corner
SAME_CORNERS = 0.01  # pixels: the precision of YOLO's six decimals
LISTED = 200  # suspects of a kind that are listed individually

# Each kind with its description in the report.
KINDS = {
    "annotated-twice": f"boxes with IoU above {DRAWN_TWICE} with another box of the class: drawn twice?",
    "two-classes": "boxes identical to a box of another class",
    "covers-image": f"boxes that cover more than {WHOLE_IMAGE:.0%} of their image",
    "unseen": f"boxes with a side under {MIN_NETWORK_SIDE:g} pixel at the network's resolution",
    "very-long": f"boxes with an aspect ratio above {MAX_ASPECT_RATIO:g}",
}


def suspects(index: ImageIndex, size: int, pairs: Pairs) -> dict[str, Any]:
    """Find the suspicious annotations of each kind in KINDS, crowds excluded.

    size: side of the network's input. pairs: from `overlapping`, including all with IoU above DRAWN_TWICE; the
    later box of a pair is the suspect.
    Returns JSON data. boxes: number of distinct suspicious boxes. kinds: count, and the first LISTED as file,
    class and box (xyxy, pixels). empty_images: count and the first LISTED files of images without boxes.
    """
    sides = index.boxes[:, 2:] - index.boxes[:, :2]
    at_network = network_sides(index, size)
    same_class = index.labels[pairs.first] == index.labels[pairs.second]
    offset = np.abs(index.boxes[pairs.first] - index.boxes[pairs.second]).max(axis=1)
    rows = {
        "annotated-twice": np.unique(pairs.second[same_class & (pairs.iou > DRAWN_TWICE)]),
        "two-classes": np.unique(pairs.second[~same_class & (offset <= SAME_CORNERS)]),
        "covers-image": np.flatnonzero(~index.crowd & (at_network.prod(axis=1) > WHOLE_IMAGE * size**2)),
        "unseen": np.flatnonzero(~index.crowd & (at_network.min(axis=1) < MIN_NETWORK_SIDE)),
        "very-long": np.flatnonzero(~index.crowd & (sides.max(axis=1) > MAX_ASPECT_RATIO * sides.min(axis=1))),
    }
    image_of_box = index.image_of_box
    empty = np.flatnonzero(np.diff(index.offsets) == 0)
    return {
        "boxes": len(np.unique(np.concatenate(list(rows.values())))),
        "kinds": {
            kind: {
                "count": len(own),
                "listed": [
                    {
                        "file": index.files[image_of_box[row]],
                        "class": index.classes[index.labels[row]],
                        "box": index.boxes[row].round(2).tolist(),
                    }
                    for row in own[:LISTED].tolist()
                ],
            }
            for kind, own in rows.items()
        },
        "empty_images": {"count": len(empty), "listed": [index.files[row] for row in empty[:LISTED].tolist()]},
    }


def similar_names(classes: Sequence[str]) -> list[list[str]]:
    """Groups of class names that differ only in case, plural or punctuation: perhaps one class in two spellings."""
    named = sorted((_normalised(name), name) for name in classes)
    groups = [[name for _, name in group] for _, group in groupby(named, key=lambda pair: pair[0])]
    return [group for group in groups if len(group) > 1]


def _normalised(name: str) -> str:
    """The name without case, spaces, punctuation and plural s; a name of punctuation only stays as it is."""
    bare = re.sub(r"[\W_]+", "", name.casefold()) or name
    plural = len(bare) > 3 and bare.endswith("s") and not bare.endswith("ss")
    return bare[:-1] if plural else bare
