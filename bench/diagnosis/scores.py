"""The detections of any detector, from a file in COCO's results format, scored against the validation split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.index import ImageIndex
from bench.detector.prior_fitting import Coverage
from bench.diagnosis.objects import SIZE_NAMES, network_sides, size_bucket
from bench.errors import UserError
from bench.evaluation.coco import evaluate
from bench.evaluation.detections import Detections, xywh
from bench.evaluation.error_types import KINDS, ap50, error_types, given_back, mended
from bench.evaluation.matches import Matches
from bench.spec import DetectorSpec

LARGEST = np.finfo(np.float32).max / 2  # of a coordinate: with a side it is still a number
NAMED = 5  # unknown ids that an error names
FORM = '[{"image_id": 1, "category_id": 1, "bbox": [left, top, width, height], "score": 0.9}, …]'


def score(path: Path, val: ImageIndex, detector: DetectorSpec) -> dict[str, Any]:
    """The figures of the detections in `path` on `val`; JSON data. detector: of the input's size and the priors.

    file, detections; elsewhere: detections on images that are not of the validation split, left out;
    accuracy: as in a record (evaluation.Evaluation); errors: `costs_of_errors`; found: `found_objects`.
    Raises UserError as `read_detections` does.
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
    """By type of error (error_types.KINDS): count, and dAP50, what AP50 would gain if all of them were mended.

    dAP50: fraction of 1, None where there is no ground truth to ask about.
    """
    types = error_types(matches, xywh(detections.boxes[matches.detection]), xywh(val.boxes))
    before, counts = ap50(matches), types.counts()
    gains = {kind: given_back(before, ap50(mended(matches, types, kind))) for kind in KINDS}
    exist = ~np.isnan(before)
    return {
        kind: {"count": counts[kind], "dAP50": float(gain[exist].mean()) if exist.any() else None}
        for kind, gain in gains.items()
    }


def found_objects(matches: Matches, val: ImageIndex, detector: DetectorSpec) -> dict[str, dict[str, int]]:
    """Of the objects that are scored, how many some detection of whatever score finds with an IoU of 0.5.

    For all and by side at the network (SIZE_NAMES): objects and found; with_prior and with_prior_found, of
    those that a prior of the detector matches at its threshold. Where an SSD finds those and not the others,
    priors are what it lacks.
    """
    scored = ~(val.crowd | val.difficult)
    found = np.zeros(len(val.boxes), dtype=np.bool_)
    answers = matches.truth[0]  # thresholds start at 0.5
    found[answers[answers >= 0]] = True
    with_prior = Coverage.of(val.fractions(), detector).best >= detector.match_threshold
    bucket = size_bucket(network_sides(val, detector.size))
    groups = {"all": scored, **{name: scored & (bucket == row) for row, name in enumerate(SIZE_NAMES)}}
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
    """Detections on the images of `val`, and how many were on other images.

    image_id may be the id that ground_truth.json has, or a file's name, with or without its folder.
    Raises UserError where the file is not of COCO's results format, names a class that the data do not have
    or holds numbers that are not finite, and where not one image is of `val`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = [entry["image_id"] for entry in content]
        categories = np.array([int(entry["category_id"]) for entry in content], dtype=np.int64)
        boxes = np.array([entry["bbox"] for entry in content], dtype=np.float64).reshape(-1, 4)
        scores = np.array([entry["score"] for entry in content], dtype=np.float32)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"--detections {path}: not a file of detections ({type(error).__name__}: {error}). Its form is {FORM}"
        ) from error
    if len(boxes) != len(images) or not ((np.abs(boxes) < LARGEST).all() and np.isfinite(scores).all()):
        raise UserError(f"--detections {path}: each bbox must be four finite numbers, each score one. Form: {FORM}")
    label_of = {category: label for label, category in enumerate(val.category_ids.tolist())}
    unknown = sorted(set(categories.tolist()) - label_of.keys())
    if unknown:
        there = ", ".join(f"{category} {val.classes[label]}" for category, label in list(label_of.items())[:NAMED])
        raise UserError(
            f"--detections {path}: category_id {', '.join(map(str, unknown[:NAMED]))} is not of these data, "
            f"which have {len(label_of)} ({there}, …). Ids are those of the annotations, or count from 1."
        )
    row_of: dict[int | str, int] = {Path(name).name: row for row, name in enumerate(val.files)}
    row_of |= {name: row for row, name in enumerate(val.files)}
    row_of |= {identity: row for row, identity in enumerate(val.image_ids.tolist())}
    rows = np.array([row_of.get(image, -1) if isinstance(image, (int, str)) else -1 for image in images], np.int64)
    kept = rows >= 0
    if len(rows) and not kept.any():
        raise UserError(
            f"--detections {path}: none of its images ({', '.join(map(str, images[:NAMED]))}, …) is of the validation "
            f"split, whose first is {val.image_ids[0]} or {val.files[0]}. Give image_id as one of these."
        )
    corners = np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1)
    labels = np.array([label_of[category] for category in categories.tolist()], dtype=np.int32)
    detections = Detections(
        image=rows[kept], boxes=corners[kept].astype(np.float32), scores=scores[kept], labels=labels[kept]
    )
    return detections, int(np.count_nonzero(~kept))
