"""From detections to AP: every published figure is computed by pycocotools' COCOeval.

`evaluate` gives the figures of a record and the matches behind them. What is added to pycocotools is
preparation alone: VOC's `difficult` is ignored without becoming a crowd, sizes are also measured at the
network's resolution, truncated and occluded objects are asked of apart, and what does not exist is None
instead of -1.
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
    """What an evaluation gives.

    accuracy: fractions of 1, None where there is no ground truth to ask about: AP, AP50, AP75,
        AP_small/medium/large (by `area` in original pixels), AR_1/10/100, AR_small/medium/large,
        AP_small_network and so on (by the area of the box at the network's resolution),
        AP_truncated/untruncated/occluded/unoccluded and AR_ of the same,
        ground_truths {all, small, ..., large_network, truncated, ...} (of a condition that no box
        states: None), per_class {name: {AP, AP50, AP75, AR_100, ground_truths}}, images.
    matches: what the figures were counted from.
    """

    accuracy: Accuracy
    matches: Matches


def evaluate(index: ImageIndex, detections: Detections, *, network_size: tuple[int, int] = (300, 300)) -> Evaluation:
    """Score detections against the boxes of `index`, as COCO does (pycocotools; 101-point AP).

    network_size: width and height of the network's input; the "_network" ranges use the same limits of
        32^2 and 96^2, on boxes as they are there.
    Difficult ground truths are ignored as those outside an area range are: finding one is neither right
    nor wrong, and not finding it costs nothing.

    Of a condition (truncated, occluded, and their opposites) the other ground truths, and those of which
    it is unknown, are ignored in that way. A detection that matches nothing has no condition: it is wrong
    in all of them. So the rarer condition has the lower AP at equal recall. Compare the AP of a condition
    between detectors; between conditions compare AR, which no wrong detection lowers.
    """
    check_rows(index, detections)
    subsets = _subsets(index, detections, network_size)
    evaluator = CocoEvaluator(index, detections, tuple(subsets.values()))
    matches = _matches(index, detections, evaluator, tuple(subsets))
    return Evaluation(accuracy=_accuracy(index, evaluator, matches), matches=matches)


def _subsets(index: ImageIndex, detections: Detections, network_size: tuple[int, int]) -> dict[str, Subset]:
    """ "all", the sizes, and the conditions that the boxes state."""
    params = Params(iouType="bbox")
    limits = dict(zip(params.areaRngLbl, params.areaRng, strict=True))
    scale = np.prod(np.asarray(network_size) / index.sizes, axis=1)
    found = _box_areas(detections.boxes)
    areas = index.areas, found
    network_areas = _box_areas(index.boxes) * scale[index.image_of_box], found * scale[detections.image]
    subsets = {name: Subset(*(_within(column, limits[name]) for column in areas)) for name in ("all", *SIZES)}
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
    """Mean of what exists, as COCOeval's `summarize` takes it."""
    existing = values[values > -1]
    return float(existing.mean()) if existing.size else None


def _matches(index: ImageIndex, detections: Detections, evaluator: CocoEvaluator, areas: tuple[str, ...]) -> Matches:
    rows = evaluator.rows
    # Ties as `accumulate` has them: by image id, and within an image as they stand.
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
