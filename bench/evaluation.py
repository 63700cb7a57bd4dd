"""From detections to AP: every published figure is computed by pycocotools' COCOeval.

`evaluate` gives the figures of a record and the matches behind them. What is added to pycocotools is
preparation alone: VOC's `difficult` is ignored without becoming a crowd, sizes are also measured at the
network's resolution, and what does not exist is None instead of -1.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from bench.data.index import UNKNOWN, ImageIndex
from bench.matches import Matches

SIZES = ("small", "medium", "large")
NETWORK_SIZES = tuple(f"{size}_network" for size in SIZES)
MAX_DETECTIONS = (1, 10, 100)  # of one image and class

Accuracy = dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """D final boxes of a split, in any order.

    image: (D,) int64, row in the index. boxes: (D, 4) float32, xyxy, pixels of the original image.
    scores: (D,) float32. labels: (D,) int32 in [0, C): background is not counted.

    Raises ValueError if lengths differ or a number is not finite (a network that diverged).
    """

    image: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]

    def __post_init__(self) -> None:
        count = len(self.image)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.labels.shape != (count,):
            raise ValueError(
                f"detections of unequal length: image {self.image.shape}, boxes {self.boxes.shape}, "
                f"scores {self.scores.shape}, labels {self.labels.shape}"
            )
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("detections hold boxes or scores that are not finite numbers")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation gives.

    accuracy: fractions of 1, None where there is no ground truth to ask about: AP, AP50, AP75,
        AP_small/medium/large (by `area` in original pixels), AR_1/10/100, AR_small/medium/large,
        AP_small_network and so on (by the area of the box at the network's resolution),
        ground_truths {all, small, ..., large_network}, per_class {name: {AP, AP50, AP75, AR_100,
        ground_truths}}, images.
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
    """
    _check_rows(index, detections)
    scale = np.prod(np.asarray(network_size) / index.sizes, axis=1)
    truth_areas = _box_areas(index.boxes) * scale[index.image_of_box]
    detection_areas = _box_areas(detections.boxes) * scale[detections.image]
    original = _Evaluator(index, detections, (index.areas, _box_areas(detections.boxes)), ("all", *SIZES))
    network = _Evaluator(index, detections, (truth_areas, detection_areas), SIZES)
    matches = _matches(index, detections, original, network)
    return Evaluation(accuracy=_accuracy(index, original, network, matches), matches=matches)


def ground_truth_coco(index: ImageIndex) -> dict[str, Any]:
    """The split as COCO JSON: image and category ids of the source, annotation ids from 1.

    VOC's `difficult` is carried as `difficult`, and as COCO's own `ignore`; tools that know neither
    (pycocotools overwrites `ignore`) count such objects as ordinary ones.
    """
    annotations = []
    columns = zip(
        index.image_ids[index.image_of_box].tolist(),
        index.category_ids[index.labels].tolist(),
        _xywh(index.boxes).tolist(),
        index.areas.tolist(),
        index.crowd.astype(int).tolist(),
        index.difficult.astype(int).tolist(),
        index.truncated.tolist(),
        index.occluded.tolist(),
        strict=True,
    )
    for row, (image, category, box, area, crowd, difficult, truncated, occluded) in enumerate(columns):
        annotation = {
            "id": row + 1,  # pycocotools takes id 0 for "unmatched"
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": area,
            "iscrowd": crowd,
            "ignore": difficult,
            "difficult": difficult,
        }
        known = {"truncated": truncated, "occluded": occluded}
        annotations.append(annotation | {name: flag for name, flag in known.items() if flag != UNKNOWN})
    images = [
        {"id": image, "file_name": file, "width": width, "height": height}
        for image, file, (width, height) in zip(
            index.image_ids.tolist(), index.files, index.sizes.tolist(), strict=True
        )
    ]
    categories = [
        {"id": category, "name": name, "supercategory": ""}
        for category, name in zip(index.category_ids.tolist(), index.classes, strict=True)
    ]
    return {
        "info": {},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def detections_coco(detections: Detections, index: ImageIndex) -> list[dict[str, Any]]:
    """COCO's results format, in the order of `detections`; boxes xywh in original pixels.

    Every float32 is written in full: reading the file back gives the very numbers evaluated here.
    """
    _check_rows(index, detections)
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(
            index.image_ids[detections.image].tolist(),
            index.category_ids[detections.labels].tolist(),
            _xywh(detections.boxes).tolist(),
            detections.scores.tolist(),
            strict=True,
        )
    ]


class _Evaluator(COCOeval):  # type: ignore[misc]
    """COCOeval fed from arrays, spared the searches that cannot find anything.

    Matching and accumulation are pycocotools' own. But a detection whose IoU with every ground truth of
    its image and class is below the lowest threshold stays unmatched whatever else happens, and most are
    such: they are taken out before the search, and put back after it. The same figures in half the time.
    """

    def __init__(
        self,
        index: ImageIndex,
        detections: Detections,
        areas: tuple[NDArray[np.float64], NDArray[np.float64]],
        ranges: tuple[str, ...],
    ) -> None:
        """areas: those of the ground truths (M,) and of the detections (D,), by which `ranges` divide."""
        super().__init__(iouType="bbox")
        limits = dict(zip(self.params.areaRngLbl, self.params.areaRng, strict=True))
        self.params.areaRngLbl, self.params.areaRng = list(ranges), [limits[name] for name in ranges]
        self.params.maxDets = list(MAX_DETECTIONS)
        self.params.imgIds = sorted(index.image_ids.tolist())
        self.params.catIds = sorted(index.category_ids.tolist())
        truth_areas, detection_areas = areas
        self._truths = [
            # not `ignore` as COCOeval prepares it: that would be `iscrowd` again, and difficult would count
            truth | {"area": area, "ignore": truth["iscrowd"] or truth["difficult"]}
            for truth, area in zip(ground_truth_coco(index)["annotations"], truth_areas.tolist(), strict=True)
        ]
        self.rows, starts = _best_of_pairs(detections, len(index.classes))
        self._areas = detection_areas[self.rows]
        self._scores = detections.scores[self.rows].astype(np.float64)
        self._boxes = _xywh(detections.boxes[self.rows])
        heads = self.rows[starts[:-1]]
        images = index.image_ids[detections.image[heads]].tolist()
        categories = index.category_ids[detections.labels[heads]].tolist()
        spans = [slice(*span) for span in pairwise(starts.tolist())]
        self._spans = dict(zip(zip(images, categories, strict=True), spans, strict=True))
        self._near: dict[tuple[int, int], NDArray[np.int64]] = {}
        # Start: nothing is matched, and what is outside the range is ignored.
        shape = (len(ranges), len(self.params.iouThrs), len(self.rows))
        low, high = np.asarray(self.params.areaRng).T[:, :, None]
        self.truth = np.zeros(shape, dtype=np.int32)
        self.ignored = np.empty(shape, dtype=bool)
        self.ignored[:] = ((self._areas < low) | (self._areas > high))[:, None]
        self.truth_ignored = np.zeros((len(ranges), len(self._truths)), dtype=bool)
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluate()

    def _prepare(self) -> None:
        self._gts, self._dts = defaultdict(list), defaultdict(list)
        for truth in self._truths:
            self._gts[truth["image_id"], truth["category_id"]].append(truth)
        for pair in self._gts.keys() & self._spans.keys():
            span = self._spans[pair]
            columns = (self.rows[span], self._boxes[span], self._areas[span], self._scores[span])
            self._dts[pair] = [
                {"id": row + 1, "bbox": box, "area": area, "score": score}
                for row, box, area, score in zip(*(column.tolist() for column in columns), strict=True)
            ]

    def computeIoU(self, image: int, category: int) -> Any:
        pair = image, category
        if not self._dts.get(pair):
            return []
        ious = super().computeIoU(image, category)
        self._near[pair] = near = np.flatnonzero(ious.max(axis=1) >= self.params.iouThrs[0])
        self._dts[pair] = [self._dts[pair][place] for place in near]
        return ious[near]

    def evaluateImg(self, image: int, category: int, limits: list[float], most: int) -> dict[str, Any] | None:
        pair, area = (image, category), self.params.areaRng.index(limits)
        span = self._spans.get(pair, slice(0))
        entry: dict[str, Any] = {"gtIgnore": np.zeros(0)}
        if pair in self._gts:
            entry = super().evaluateImg(image, category, limits, most)
            self.truth_ignored[area, np.asarray(entry["gtIds"]) - 1] = entry["gtIgnore"]
        elif pair not in self._spans:
            return None
        truth, ignored = self.truth[area, :, span], self.ignored[area, :, span]
        if entry.get("dtIds"):
            near = self._near[pair]
            truth[:, near], ignored[:, near] = entry["dtMatches"], entry["dtIgnore"]
        return {
            "gtIgnore": entry["gtIgnore"],
            "dtScores": self._scores[span],
            "dtMatches": truth,
            "dtIgnore": ignored,
        }

    def curves(self, areas: int, max_detections: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision (T, 101, C, A, M) and recall (T, C, A, M) of the first A area ranges.

        Classes are by category id; -1 stands where there is no ground truth.
        """
        params = copy.copy(self.params)
        params.areaRng, params.maxDets = params.areaRng[:areas], list(max_detections)
        with contextlib.redirect_stdout(io.StringIO()):
            self.accumulate(params)
        return self.eval["precision"], self.eval["recall"]


def _accuracy(index: ImageIndex, original: _Evaluator, network: _Evaluator, matches: Matches) -> Accuracy:
    precision, recall = (values[..., 0] for values in original.curves(4, MAX_DETECTIONS[-1:]))
    _, recall_few = original.curves(1, MAX_DETECTIONS[:-1])
    precision_network, _ = network.curves(len(SIZES), MAX_DETECTIONS[-1:])
    half, three_quarters = 0, 5  # of the thresholds .50, .55, ..., .95
    accuracy: Accuracy = {
        "AP": _mean(precision[..., 0]),
        "AP50": _mean(precision[half, ..., 0]),
        "AP75": _mean(precision[three_quarters, ..., 0]),
        **{f"AP_{size}": _mean(precision[..., 1 + place]) for place, size in enumerate(SIZES)},
        **{f"AR_{most}": _mean(recall_few[..., 0, place]) for place, most in enumerate(MAX_DETECTIONS[:-1])},
        f"AR_{MAX_DETECTIONS[-1]}": _mean(recall[..., 0]),
        **{f"AR_{size}": _mean(recall[..., 1 + place]) for place, size in enumerate(SIZES)},
        **{f"AP_{size}": _mean(precision_network[..., place, 0]) for place, size in enumerate(NETWORK_SIZES)},
        "ground_truths": {area: int(matches.ground_truths(area).sum()) for area in matches.areas},
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


def _matches(index: ImageIndex, detections: Detections, original: _Evaluator, network: _Evaluator) -> Matches:
    rows = original.rows
    # Ties as `accumulate` has them: by image id, and within an image as they stand.
    ids = index.image_ids[detections.image[rows]]
    order = np.lexsort((ids, -detections.scores[rows], detections.labels[rows]))
    rows = rows[order]
    return Matches(
        classes=index.classes,
        image_ids=index.image_ids,
        areas=(*original.params.areaRngLbl, *NETWORK_SIZES),
        thresholds=original.params.iouThrs,
        detection=rows,
        image=detections.image[rows],
        label=detections.labels[rows],
        score=detections.scores[rows],
        matched=np.concatenate((original.truth, network.truth))[..., order] > 0,
        ignored=np.concatenate((original.ignored, network.ignored))[..., order],
        truth=original.truth[0][:, order].astype(np.int64) - 1,
        truth_image=index.image_of_box,
        truth_label=index.labels,
        truth_ignored=np.concatenate((original.truth_ignored, network.truth_ignored)),
    )


def _best_of_pairs(detections: Detections, classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the 100 best of each image and class, best first; where each pair starts, and the end."""
    pair = detections.image * classes + detections.labels
    order = np.lexsort((-detections.scores, pair))  # stable: ties stay in the order of the file
    changes = np.diff(pair[order], prepend=-1) != 0
    starts = np.flatnonzero(changes)
    rank = np.arange(len(order)) - starts[np.cumsum(changes) - 1]
    kept = rank < MAX_DETECTIONS[-1]
    return order[kept], np.append(np.flatnonzero(changes[kept]), np.count_nonzero(kept))


def _xywh(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """(D, 4) xyxy to xywh in double precision: no +1."""
    corners = boxes.astype(np.float64)
    return np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)


def _box_areas(boxes: NDArray[Any]) -> NDArray[np.float64]:
    sides = _xywh(boxes)[:, 2:]
    return sides[:, 0] * sides[:, 1]


def _check_rows(index: ImageIndex, detections: Detections) -> None:
    """Otherwise pycocotools drops them without a word."""
    for name, values, end in (
        ("image rows", detections.image, len(index)),
        ("labels", detections.labels, len(index.classes)),
    ):
        if len(values) and not (values.min() >= 0 and values.max() < end):
            raise ValueError(f"detections name {name} {values.min()} to {values.max()}; there are {end}")
