"""Compute AP from detections; all published figures come from pycocotools' COCOeval.

`evaluate` returns the figures of a record and the matches behind them. The additions to pycocotools only prepare its
input: VOC's `difficult` objects are ignored without becoming crowds, sizes are also measured at the network's
resolution, truncated and occluded objects are scored separately, and missing values are None instead of -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import Params

from bench.data.index import UNKNOWN, ImageIndex
from bench.data.subsets import CONDITIONS, SIZES
from bench.evaluation.coco_evaluator import MAX_DETECTIONS, CocoEvaluator, Subset
from bench.evaluation.detections import Detections, check_rows, xywh
from bench.evaluation.matches import Matches

Accuracy = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of an evaluation.

    accuracy: fractions of 1, None without ground truth:
        AP, AP50, AP75; AP_small/medium/large (by `area` in original pixels); AP_small_network/... (by box area at the
        network's resolution); AP_truncated/untruncated/occluded/unoccluded;
        AR_1/10/100; AR_small/medium/large; AR_truncated/...;
        ground_truths {all, small, ..., large_network, truncated, ...}, None for conditions that are not annotated;
        per_class {name: {AP, AP50, AP75, AR_100, ground_truths}}; images.
    matches: the matches that the figures are computed from.
    """

    accuracy: Accuracy
    matches: Matches


def evaluate(
    index: ImageIndex, detections: Detections, *, network_size: tuple[int, int] | None = (300, 300)
) -> Evaluation:
    """Score detections against the boxes of `index` as COCO does (pycocotools, 101-point AP).

    network_size: width and height of the network's input. The "_network" sizes apply the limits of 32^2 and 96^2 to
        boxes at this resolution. None: without these sizes, for detectors of unknown inputs.

    Difficult ground truths are ignored, like those outside an area range: detecting one is neither right nor wrong, and
    missing it costs nothing. In a condition (truncated, occluded and their opposites), ground truths without it or with
    an unknown state are ignored in the same way. Unmatched detections have no condition and count as wrong in all of
    them, so at equal recall a rarer condition has a lower AP. Compare the AP of a condition only between detectors;
    between conditions, compare AR, which wrong detections do not lower.

    Raises ValueError if detections have images or classes that are not in `index`.
    """
    check_rows(index, detections)
    subsets = _subsets(index, detections, network_size)
    evaluator = CocoEvaluator(index, detections, tuple(subsets.values()))
    matches = _matches(index, detections, evaluator, tuple(subsets))
    return Evaluation(accuracy=_accuracy(index, evaluator, matches), matches=matches)


def _subsets(index: ImageIndex, detections: Detections, network_size: tuple[int, int] | None) -> dict[str, Subset]:
    """The subsets to score: "all", the sizes, and the annotated conditions."""
    params = Params(iouType="bbox")
    limits = dict(zip(params.areaRngLbl, params.areaRng, strict=True))
    detected = _box_areas(detections.boxes)
    areas = index.areas, detected
    subsets = {name: Subset(*(_within(column, limits[name]) for column in areas)) for name in ("all", *SIZES)}
    if network_size is not None:
        scale = np.prod(np.asarray(network_size) / index.sizes, axis=1)
        network_areas = _box_areas(index.boxes) * scale[index.image_of_box], detected * scale[detections.image]
        subsets |= {
            f"{name}_network": Subset(*(_within(column, limits[name]) for column in network_areas)) for name in SIZES
        }
    everywhere = np.ones(len(detections.image), dtype=np.bool_)
    for flags, (name, opposite) in ((index.truncated, CONDITIONS[:2]), (index.occluded, CONDITIONS[2:])):
        if (flags != UNKNOWN).any():
            subsets |= {name: Subset(flags == 1, everywhere), opposite: Subset(flags == 0, everywhere)}
    return subsets


def _within(areas: NDArray[np.float64], limits: Sequence[float]) -> NDArray[np.bool_]:
    return (areas >= limits[0]) & (areas <= limits[1])


def _accuracy(index: ImageIndex, evaluator: CocoEvaluator, matches: Matches) -> Accuracy:
    precision, recall = evaluator.precision, evaluator.recall
    half, three_quarters = 0, 5  # of the thresholds .50, .55, ..., .95
    place = {area: number for number, area in enumerate(matches.areas)}
    absent: dict[str, int | None] = {name: None for name in CONDITIONS if name not in place}
    accuracy: Accuracy = {
        "AP": _mean(precision[..., 0]),
        "AP50": _mean(precision[half, ..., 0]),
        "AP75": _mean(precision[three_quarters, ..., 0]),
        **{f"AP_{area}": _mean(precision[..., number]) for area, number in place.items() if area != "all"},
        **{f"AR_{most}": _mean(evaluator.recall_few[..., number]) for number, most in enumerate(MAX_DETECTIONS[:-1])},
        f"AR_{MAX_DETECTIONS[-1]}": _mean(recall[..., 0]),
        **{f"AR_{area}": _mean(recall[..., place[area]]) for area in (*SIZES, *CONDITIONS) if area in place},
        **{f"{measure}_{name}": None for name in absent for measure in ("AP", "AR")},
        "ground_truths": {area: int(matches.ground_truths(area).sum()) for area in matches.areas} | absent,
    }
    counts = matches.ground_truths().tolist()
    by_id = np.argsort(index.category_ids)
    accuracy["per_class"] = {
        index.classes[label]: {
            "AP": _mean(precision[:, :, column, 0]),
            "AP50": _mean(precision[half, :, column, 0]),
            "AP75": _mean(precision[three_quarters, :, column, 0]),
            "AR_100": _mean(recall[:, column, 0]),
            "ground_truths": counts[label],
        }
        for label, column in enumerate(np.argsort(by_id).tolist())
    }
    accuracy["images"] = len(index)
    return accuracy


def _mean(values: NDArray[np.float64]) -> float | None:
    """Mean of the existing values, as in COCOeval's `summarize`."""
    existing = values[values > -1]
    return float(existing.mean()) if existing.size else None


def _matches(index: ImageIndex, detections: Detections, evaluator: CocoEvaluator, areas: tuple[str, ...]) -> Matches:
    rows = evaluator.rows
    # Ties in the order of `accumulate`: by image id, and stable within an image.
    ids = index.image_ids[detections.image[rows]]
    order = np.lexsort((ids, -detections.scores[rows], detections.labels[rows]))
    rows = rows[order]
    return Matches(
        classes=index.classes,
        image_ids=index.image_ids,
        areas=areas,
        thresholds=evaluator.params.iouThrs,
        detection=rows,
        image=detections.image[rows],
        label=detections.labels[rows],
        score=detections.scores[rows],
        matched=np.take(evaluator.matched, order, axis=-1),
        ignored=np.take(evaluator.ignored, order, axis=-1),
        truth=np.take(evaluator.truth, order, axis=-1).astype(np.int64) - 1,
        truth_image=index.image_of_box,
        truth_label=index.labels,
        truth_ignored=evaluator.truth_ignored,
    )


def _box_areas(boxes: NDArray[Any]) -> NDArray[np.float64]:
    sides = xywh(boxes)[:, 2:]
    return sides[:, 0] * sides[:, 1]
