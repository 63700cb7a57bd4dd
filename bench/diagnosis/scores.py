"""Score the detections of any detector, a file in COCO's results format, on the validation split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.data.index import ImageIndex
from bench.detector.prior_fitting import Coverage
from bench.diagnosis.objects import SIDE_RANGES, network_sides, side_range
from bench.evaluation.coco import evaluate
from bench.evaluation.detections import Detections, xywh
from bench.evaluation.error_types import KINDS, ap50, ap50_gain, error_types, fix_errors
from bench.evaluation.matches import Matches
from bench.evaluation.results_file import read_detections
from bench.spec import DetectorSpec


def score(
    path: Path,
    val: ImageIndex,
    detector: DetectorSpec,
    *,
    data: ImageIndex | None = None,
    skip_unknown: bool = False,
) -> dict[str, Any]:
    """Score the detections in the file `path` on `val`.

    detector: gives the network's input size and the priors. data, skip_unknown: as in `read_detections`.
    Returns JSON data. file: its name. detections: number scored. elsewhere: number skipped, on images outside
    the validation split. accuracy: as in a record (coco.Evaluation). errors: `costs_of_errors`. found:
    `found_objects`. Raises UserError as `read_detections` does.
    """
    detections, elsewhere = read_detections(path, val, data=data, skip_unknown=skip_unknown)
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
