"""pycocotools' COCOeval, fed from arrays."""

from __future__ import annotations

import contextlib
import copy
import io
from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from bench.data.index import ImageIndex
from bench.detections import Detections, xywh

MAX_DETECTIONS = (1, 10, 100)  # of one image and class


class CocoEvaluator(COCOeval):  # type: ignore[misc]
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
        columns = (
            np.arange(1, len(index.boxes) + 1),  # pycocotools takes id 0 for "unmatched"
            index.image_ids[index.image_of_box],
            index.category_ids[index.labels],
            xywh(index.boxes),
            truth_areas,
            index.crowd,
            # not `ignore` as COCOeval prepares it: that would be `iscrowd` again, and difficult would count
            index.crowd | index.difficult,
        )
        names = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore")
        self._truths = [
            dict(zip(names, truth, strict=True)) for truth in zip(*(column.tolist() for column in columns), strict=True)
        ]
        self.rows, starts = _best_of_pairs(detections, len(index.classes))
        self._areas = detection_areas[self.rows]
        self._scores = detections.scores[self.rows].astype(np.float64)
        self._boxes = xywh(detections.boxes[self.rows])
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


def _best_of_pairs(detections: Detections, classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the 100 best of each image and class, best first; where each pair starts, and the end."""
    pair = detections.image * classes + detections.labels
    order = np.lexsort((-detections.scores, pair))  # stable: ties stay in the order of the file
    changes = np.diff(pair[order], prepend=-1) != 0
    starts = np.flatnonzero(changes)
    rank = np.arange(len(order)) - starts[np.cumsum(changes) - 1]
    kept = rank < MAX_DETECTIONS[-1]
    return order[kept], np.append(np.flatnonzero(changes[kept]), np.count_nonzero(kept))
