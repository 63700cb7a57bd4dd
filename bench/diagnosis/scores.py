"""Score the detections of any detector, a file in COCO's results format, on the validation split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.data.index import ImageIndex
from bench.detector.prior_fitting import Coverage
from bench.diagnosis.objects import SIDE_RANGES, network_sides, side_range
from bench.errors import UserError
from bench.evaluation.coco import evaluate
from bench.evaluation.detections import Detections, xywh
from bench.evaluation.error_types import KINDS, ap50, ap50_gain, error_types, fix_errors
from bench.evaluation.matches import Matches
from bench.spec import DetectorSpec
from bench.storage.reading import Unreadable, load_json, reason_of

MAX_COORDINATE = np.finfo(np.float32).max / 2  # adding a side cannot overflow
NAMED = 5  # unknown ids named in an error
FORMAT = '[{"image_id": 1, "category_id": 1, "bbox": [left, top, width, height], "score": 0.9}, …]'


def score(path: Path, val: ImageIndex, detector: DetectorSpec) -> dict[str, Any]:
    """Score the detections in the file `path` on `val`.

    detector: gives the network's input size and the priors.
    Returns JSON data. file: its name. detections: number scored. elsewhere: number skipped, on images outside
    the validation split. accuracy: as in a record (coco.Evaluation). errors: `costs_of_errors`. found:
    `found_objects`. Raises UserError as `read_detections` does.
    """
    detections, elsewhere = read_detections(path, val)
    evaluation = evaluate(val, detections, network_size=(detector.size, detector.size))
    return {
        "file": path.name,
        "detections": len(detections.image),
        "elsewhere": elsewhere,
        "accuracy": evaluation.accuracy,
        "errors": costs_of_errors(evaluation.matches, detections, val),
        "found": found_objects(evaluation.matches, val, detector),
    }


def costs_of_errors(matches: Matches, detections: Detections, val: ImageIndex) -> dict[str, dict[str, float | None]]:
    """For each error type (error_types.KINDS): the count, and dAP50, the gain in AP50 if all of them were fixed.

    dAP50: fraction of 1; None without ground truth.
    """
    types = error_types(matches, xywh(detections.boxes[matches.detection]), xywh(val.boxes))
    before, counts = ap50(matches), types.counts()
    gains = {kind: ap50_gain(before, ap50(fix_errors(matches, types, kind))) for kind in KINDS}
    exist = ~np.isnan(before)
    return {
        kind: {"count": counts[kind], "dAP50": float(gain[exist].mean()) if exist.any() else None}
        for kind, gain in gains.items()
    }


def found_objects(matches: Matches, val: ImageIndex, detector: DetectorSpec) -> dict[str, dict[str, int]]:
    """Count the scored objects that a detection of any score finds at an IoU of 0.5.

    For all objects and per side range at the network (SIDE_RANGES): objects and found; with_prior and
    with_prior_found count only objects that a prior of the detector matches at its threshold. If an SSD finds
    those but not the others, its priors are the problem.
    """
    scored = ~(val.crowd | val.difficult)
    found = np.zeros(len(val.boxes), dtype=np.bool_)
    truths = matches.truth[0]  # thresholds start at 0.5
    found[truths[truths >= 0]] = True
    with_prior = Coverage.of(val.fractions(), detector).best >= detector.match_threshold
    ranges = side_range(network_sides(val, detector.size))
    groups = {"all": scored, **{name: scored & (ranges == row) for row, name in enumerate(SIDE_RANGES)}}
    return {
        name: {
            "objects": int(group.sum()),
            "found": int((group & found).sum()),
            "with_prior": int((group & with_prior).sum()),
            "with_prior_found": int((group & with_prior & found).sum()),
        }
        for name, group in groups.items()
    }


def read_detections(path: Path, val: ImageIndex) -> tuple[Detections, int]:
    """Return the detections on images of `val`, and the number on other images.

    An image_id may be the id in ground_truth.json or a file name, with or without its folder.
    Raises UserError if the file is not in COCO's results format, has an unknown class or a number that is not
    finite, or if none of its images is in `val`.
    """
    try:
        content = load_json(path, follow=True)
        images = [entry["image_id"] for entry in content]
        categories = np.array([int(entry["category_id"]) for entry in content], dtype=np.int64)
        boxes = np.array([entry["bbox"] for entry in content], dtype=np.float64).reshape(-1, 4)
        scores = np.array([entry["score"] for entry in content], dtype=np.float32)
    except (Unreadable, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"--detections {path}: not a file of detections ({reason_of(error)}). Expected: {FORMAT}"
        ) from error
    if len(boxes) != len(images) or not ((np.abs(boxes) < MAX_COORDINATE).all() and np.isfinite(scores).all()):
        raise UserError(
            f"--detections {path}: each bbox must be four finite numbers and each score one. Expected: {FORMAT}"
        )
    label_of = {category: label for label, category in enumerate(val.category_ids.tolist())}
    unknown = sorted(set(categories.tolist()) - label_of.keys())
    if unknown:
        known = ", ".join(f"{category} {val.classes[label]}" for category, label in list(label_of.items())[:NAMED])
        raise UserError(
            f"--detections {path}: unknown category_id {', '.join(map(str, unknown[:NAMED]))}. The data have "
            f"{len(label_of)} ({known}, …). Use the category ids of the annotations; without ids, count from 1."
        )
    row_of: dict[int | str, int] = {Path(name).name: row for row, name in enumerate(val.files)}
    row_of |= {name: row for row, name in enumerate(val.files)}
    row_of |= {identity: row for row, identity in enumerate(val.image_ids.tolist())}
    rows = np.array([row_of.get(image, -1) if isinstance(image, (int, str)) else -1 for image in images], np.int64)
    kept = rows >= 0
    if len(rows) and not kept.any():
        raise UserError(
            f"--detections {path}: none of its images ({', '.join(map(str, images[:NAMED]))}, …) is in the validation "
            f"split. Set image_id to the id or file name of an image, for example {val.image_ids[0]} or "
            f"{val.files[0]}."
        )
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
    labels = np.array([label_of[category] for category in categories.tolist()], dtype=np.int32)
    detections = Detections(
        image=rows[kept], boxes=corners[kept].astype(np.float32), scores=scores[kept], labels=labels[kept]
    )
    return detections, int(np.count_nonzero(~kept))
