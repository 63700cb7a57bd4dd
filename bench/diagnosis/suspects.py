"""Annotations that are legal and yet suspicious: what a person should look at before believing an AP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from bench.data.index import ImageIndex
from bench.diagnosis.objects import network_sides
from bench.diagnosis.overlaps import Pairs

WHOLE_IMAGE = 0.95  # share of the image: more is a picture of one thing, or a box that nobody drew
UNSEEN = 1.0  # pixels of a side at the network: less than one is not seen at all
TWICE = 0.9  # IoU: one object drawn twice agrees that well, two objects of one class hardly ever do
LONGEST = 10.0  # longer side by shorter: beyond it two corners were rather mistaken for one
SAME_CORNERS = 0.01  # pixels, what YOLO's six decimals keep of a coordinate
LISTED = 200  # of a kind that are named one by one

# Kind and what it is, in the words of the report
KINDS = {
    "annotated-twice": f"boxes that another of the same class overlaps by more than {TWICE}: one object drawn twice?",
    "two-classes": "boxes that equal another one of a different class",
    "covers-image": f"boxes of more than {WHOLE_IMAGE:.0%} of their image",
    "unseen": f"boxes with a side under {UNSEEN:g} pixel at the network",
    "very-long": f"boxes more than {LONGEST:g} times as long as wide",
}


def suspects(index: ImageIndex, size: int, pairs: Pairs) -> dict[str, Any]:
    """Suspicious annotations of an index by kind (KINDS); JSON data. Crowds are left out.

    pairs: those of `overlapping`, at least all above TWICE. Of a pair the later box is the suspect.
    boxes: how many different boxes are suspicious at all; kinds: count, and the first LISTED as file, class
    and box (xyxy, pixels). empty_images: count, and the first LISTED files; they are right where nothing is
    to be found.
    """
    sides = index.boxes[:, 2:] - index.boxes[:, :2]
    at_network = network_sides(index, size)
    same_class = index.labels[pairs.first] == index.labels[pairs.second]
    moved = np.abs(index.boxes[pairs.first] - index.boxes[pairs.second]).max(axis=1)
    rows = {
        "annotated-twice": np.unique(pairs.second[same_class & (pairs.iou > TWICE)]),
        "two-classes": np.unique(pairs.second[~same_class & (moved <= SAME_CORNERS)]),
        "covers-image": np.flatnonzero(~index.crowd & (at_network.prod(axis=1) > WHOLE_IMAGE * size**2)),
        "unseen": np.flatnonzero(~index.crowd & (at_network.min(axis=1) < UNSEEN)),
        "very-long": np.flatnonzero(~index.crowd & (sides.max(axis=1) > LONGEST * sides.min(axis=1))),
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


def alike_names(classes: Sequence[str]) -> list[list[str]]:
    """Groups of class names that differ in case, plural or punctuation alone: one class in two spellings?"""
    named = sorted((_bare(name), name) for name in classes)
    groups = [[name for _, name in group] for _, group in groupby(named, key=lambda pair: pair[0])]
    return [group for group in groups if len(group) > 1]


def _bare(name: str) -> str:
    """Without case, spaces, punctuation, and the s of a plural; a name of nothing else is left as it is."""
    bare = re.sub(r"[\W_]+", "", name.casefold()) or name
    plural = len(bare) > 3 and bare.endswith("s") and not bare.endswith("ss")
    return bare[:-1] if plural else bare
