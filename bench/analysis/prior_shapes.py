"""The prior shapes of a run's detectors and the shapes that they are to match, from the run's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.run_records import Run, read_object


@dataclass(frozen=True, kw_only=True)
class PriorSet:
    """The priors of a variant.

    shapes: a row a shape, width and height in pixels of the input of `size`, and the side of its level's map.
    matched: share of the `boxes` ground truths of the validation split that a prior matches at
        `threshold`; None where that was not recorded.
    """

    variant: str
    size: int
    shapes: pd.DataFrame
    threshold: float
    matched: float | None
    boxes: int | None


def prior_sets(run: Run) -> list[PriorSet]:
    """The baseline's priors and, second, those of the first finished variant that has others.

    A baseline that is not finished has the plan's. Empty where neither says.
    """
    records = {cell.variant: record for cell, record in reversed(list(run.done())) if "detector" in record}
    sets: list[PriorSet] = []
    if run.baseline in records:
        sets.append(_prior_set(str(run.baseline), records[str(run.baseline)]))
    elif "base" in run.plan and run.baseline is not None:
        sets.append(_prior_set(run.baseline, run.plan["base"]))
    if not sets:
        return []
    others = (_prior_set(variant, records[variant]) for variant in run.variants if variant in records)
    changed = next((each for each in others if not each.shapes.equals(sets[0].shapes)), None)
    return sets if changed is None else [*sets, changed]


def ground_truth_shapes(run: Run, size: int) -> pd.DataFrame:
    """Width and height of every validation ground truth after the warp to an input of `size`, crowds apart.

    In pixels; no rows where the run has no ground_truth.json. Raises UserError where it cannot be read.
    """
    path = run.folder / "ground_truth.json"
    content = read_object(path) if path.is_file() else {"images": [], "annotations": []}
    images = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    ordinary = [entry for entry in content["annotations"] if not entry.get("iscrowd")]
    sides = np.array([entry["bbox"][2:] for entry in ordinary], dtype=np.float64).reshape(-1, 2)
    of_image = np.array([images[entry["image_id"]] for entry in ordinary], dtype=np.float64).reshape(-1, 2)
    return pd.DataFrame(sides / of_image * size, columns=["width", "height"])


def shapes_frame(priors: Sequence[Sequence[Sequence[float]]], maps: Sequence[int], size: int) -> pd.DataFrame:
    """A row a shape: width and height in pixels of an input of `size`, and the side of its level's map.

    priors: for each level the (width, height) of its shapes as fractions of the input.
    """
    return pd.DataFrame(
        [
            (width * size, height * size, side)
            for side, level in zip(maps, priors, strict=True)
            for width, height in level
        ],
        columns=["width", "height", "side"],
    )


def _prior_set(variant: str, content: Mapping[str, Any]) -> PriorSet:
    """From a record, or from the plan's base, which says nothing about matches."""
    detector = content["detector"]
    shapes = shapes_frame(detector["priors"], detector["feature_maps"], detector["size"])
    recall = content.get("prior_recall", {}).get("val", {}).get("after", {})
    return PriorSet(
        variant=variant,
        size=int(detector["size"]),
        shapes=shapes,
        threshold=float(detector["match_threshold"]),
        matched=recall.get("matched"),
        boxes=recall.get("boxes"),
    )
