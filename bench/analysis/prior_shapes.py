"""Prior shapes of a run's detectors and ground-truth shapes, from the files of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.run_records import Run
from bench.errors import UserError
from bench.storage.records import read_ground_truth
from bench.storage.run_folder import GROUND_TRUTH


@dataclass(frozen=True, kw_only=True)
class PriorSet:
    """The priors of a variant.

    shapes: one row per shape: width and height in pixels at the network input of side `size`, and the side of the
        feature map.
    matched: share of the `boxes` validation ground truths matched by a prior at `threshold`; None if not recorded.
    """

    variant: str
    size: int
    shapes: pd.DataFrame
    threshold: float
    matched: float | None
    boxes: int | None


def prior_sets(run: Run) -> list[PriorSet]:
    """The priors of the baseline, then those of the first finished variant with different ones, if any.

    An unfinished baseline takes its priors from the plan. Empty if neither has them.
    """
    records = {cell.variant: record for cell, record in reversed(list(run.done())) if _has_priors(record)}
    sets: list[PriorSet] = []
    if run.baseline in records:
        sets.append(_prior_set(str(run.baseline), records[str(run.baseline)]))
    elif _has_priors(run.plan.get("base") or {}) and run.baseline is not None:
        sets.append(_prior_set(run.baseline, run.plan["base"]))
    if not sets:
        return []
    others = (_prior_set(variant, records[variant]) for variant in run.variants if variant in records)
    changed = next((each for each in others if not each.shapes.equals(sets[0].shapes)), None)
    return sets if changed is None else [*sets, changed]


def ground_truth_shapes(run: Run, size: int) -> pd.DataFrame:
    """Width and height in pixels of every validation ground truth after resizing to `size`, without crowds.

    Empty if the run has no ground_truth.json. Raises UserError if it cannot be read.
    """
    path = run.folder / GROUND_TRUTH
    content = read_ground_truth(path) if path.is_file() else {"images": [], "annotations": []}
    images = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    ordinary = [entry for entry in content["annotations"] if not entry.get("iscrowd")]
    sides = np.array([entry["bbox"][2:] for entry in ordinary], dtype=np.float64).reshape(-1, 2)
    of_image = np.array([images[entry["image_id"]] for entry in ordinary], dtype=np.float64).reshape(-1, 2)
    return pd.DataFrame(sides / of_image * size, columns=["width", "height"])


def shapes_frame(priors: Sequence[Sequence[Sequence[float]]], maps: Sequence[int], size: int) -> pd.DataFrame:
    """One row per shape: width and height in pixels at an input of side `size`, and the side of the feature map.

    priors: (width, height) of the shapes of each level, as fractions of the input.
    """
    return pd.DataFrame(
        [
            (width * size, height * size, side)
            for side, level in zip(maps, priors, strict=True)
            for width, height in level
        ],
        columns=["width", "height", "side"],
    )


def _has_priors(content: Mapping[str, Any]) -> bool:
    """Whether a record or base specification has all that describes its priors."""
    return {"size", "priors", "feature_maps", "match_threshold"} <= (content.get("detector") or {}).keys()


def _prior_set(variant: str, content: Mapping[str, Any]) -> PriorSet:
    """From a record, or from the base specification in the plan, which has no matching statistics."""
    detector = content["detector"]
    if len(detector["priors"]) != len(detector["feature_maps"]) or any(
        len(shape) != 2 for level in detector["priors"] for shape in level
    ):
        raise UserError(
            f"the priors of {variant} in plan.json or record.json are not a list of shapes for each feature map; "
            "restore the file, or delete the cell's folder and repeat the command to rerun the cell"
        )
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
