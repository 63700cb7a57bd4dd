"""pycocotools' COCOeval, fed from arrays."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from bench.data.index import ImageIndex
from bench.detections import Detections, xywh

MAX_DETECTIONS = (1, 10, 100)  # of one image and class


@dataclass(frozen=True, eq=False)
class Subset:
    """The ground truths that figures are asked of, as COCO asks of an area range.

    truths: (M,) bool. The others are ignored: they are not to be found, and finding one is no error.
    detections: (D,) bool. These are wrong if they are matched to nothing; the others are then ignored.
    """

    truths: NDArray[np.bool_]
    detections: NDArray[np.bool_]


class CocoEvaluator(COCOeval):  # type: ignore[misc]
    """COCOeval fed from arrays, for any subsets of the ground truths, spared the searches that cannot find anything.

    Matching and accumulation are pycocotools' own. But a detection whose IoU with every ground truth of
    its image and class is below the lowest threshold stays unmatched whatever else happens, and most are
    such: they are taken out before the search, and put back after it. And subsets that ignore the same of
    the few ground truths of an image and class share one search. The same figures in a fraction of the time.

    rows: (K,) rows of the detections that took part: the 100 best of each image and class.
    truth: (T, K) int32, id (row + 1) of the ground truth matched at each of T thresholds in the first subset, 0 for
        none. matched, ignored: (A, T, K) bool, in each of A subsets. truth_ignored: (A, M) bool.
    """

    def __init__(self, index: ImageIndex, detections: Detections, subsets: Sequence[Subset]) -> None:
        """At least one subset. Crowds and difficult ground truths are ignored in every one."""
        super().__init__(iouType="bbox")
        # COCOeval's own name for a subset is its area range. All areas are 0 here, and so in each of them.
        self.params.areaRng = [[-place, place] for place in range(len(subsets))]
        self.params.maxDets = list(MAX_DETECTIONS)
        self.params.imgIds = sorted(index.image_ids.tolist())
        self.params.catIds = sorted(index.category_ids.tolist())
        columns = (
            np.arange(1, len(index.boxes) + 1),  # pycocotools takes id 0 for "unmatched"
            index.image_ids[index.image_of_box],
            index.category_ids[index.labels],
            xywh(index.boxes),
            index.crowd,
        )
        names = ("id", "image_id", "category_id", "bbox", "iscrowd")
        self._truths = [
            dict(zip(names, truth, strict=True)) | {"area": 0}
            for truth in zip(*(column.tolist() for column in columns), strict=True)
        ]
        self.rows, starts = _best_of_pairs(detections, len(index.classes))
        self._scores = detections.scores[self.rows].astype(np.float64)
        self._boxes = xywh(detections.boxes[self.rows])
        heads = self.rows[starts[:-1]]
        images = index.image_ids[detections.image[heads]].tolist()
        categories = index.category_ids[detections.labels[heads]].tolist()
        spans = [slice(*span) for span in pairwise(starts.tolist())]
        self._spans = dict(zip(zip(images, categories, strict=True), spans, strict=True))
        self._near: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._entries: dict[tuple[tuple[int, int], tuple[bool, ...]], dict[str, Any]] = {}
        # Not `ignore` as COCOeval prepares it: that would be `iscrowd` again, and difficult would count.
        never = index.crowd | index.difficult
        self.truth_ignored = np.stack([never | ~subset.truths for subset in subsets])
        self._truth_ignored = self.truth_ignored.tolist()
        # Start: nothing is matched.
        forgiven = np.stack([~subset.detections[self.rows] for subset in subsets])
        self.ignored = np.repeat(forgiven[:, None], len(self.params.iouThrs), axis=1)
        self.matched = np.zeros(self.ignored.shape, dtype=np.bool_)
        self.truth = np.zeros(self.ignored.shape[1:], dtype=np.int32)
        with contextlib.redirect_stdout(io.StringIO()), _all_kept():
            self.evaluate()

    def _prepare(self) -> None:
        self._gts, self._dts = defaultdict(list), defaultdict(list)
        for truth in self._truths:
            self._gts[truth["image_id"], truth["category_id"]].append(truth)
        for pair in self._gts.keys() & self._spans.keys():
            span = self._spans[pair]
            columns = (self.rows[span], self._boxes[span], self._scores[span])
            self._dts[pair] = [
                {"id": row + 1, "bbox": box, "area": 0, "score": score}
                for row, box, score in zip(*(column.tolist() for column in columns), strict=True)
            ]

    def computeIoU(self, image: int, category: int) -> Any:
        pair = image, category
        if not self._dts.get(pair):
            return []
        ious = super().computeIoU(image, category)
        self._near[pair] = near = np.flatnonzero(ious.max(axis=1) >= self.params.iouThrs[0])
        self._dts[pair] = [self._dts[pair][place] for place in near]
        return ious[near]

    def evaluateImg(self, image: int, category: int, limits: list[int], most: int) -> dict[str, Any] | None:
        pair, subset = (image, category), limits[1]
        span = self._spans.get(pair, slice(0))
        entry: dict[str, Any] = {"gtIgnore": np.zeros(0)}
        if pair in self._gts:
            flags = tuple(self._truth_ignored[subset][truth["id"] - 1] for truth in self._gts[pair])
            if (pair, flags) not in self._entries:
                for truth, flag in zip(self._gts[pair], flags, strict=True):
                    truth["ignore"] = flag
                self._entries[pair, flags] = super().evaluateImg(image, category, limits, most)
            entry = self._entries[pair, flags]
        elif pair not in self._spans:
            return None
        matched, ignored = self.matched[subset, :, span], self.ignored[subset, :, span]
        if entry.get("dtIds"):
            near = self._near[pair]
            matched[:, near] = found = entry["dtMatches"] > 0
            ignored[:, near] = np.where(found, entry["dtIgnore"], ignored[:, near])
            if subset == 0:
                self.truth[:, span][:, near] = entry["dtMatches"]
        return {
            "gtIgnore": entry["gtIgnore"],
            "dtScores": self._scores[span],
            "dtMatches": matched,
            "dtIgnore": ignored,
        }

    def curves(self, subsets: int, max_detections: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision (T, 101, C, A, M) and recall (T, C, A, M) of the first A subsets.

        Classes are by category id; -1 stands where there is no ground truth.
        """
        params = copy.copy(self.params)
        params.areaRng, params.maxDets = params.areaRng[:subsets], list(max_detections)
        with contextlib.redirect_stdout(io.StringIO()), _all_kept():
            self.accumulate(params)
        return self.eval["precision"], self.eval["recall"]


@contextlib.contextmanager
def _all_kept() -> Iterator[None]:
    """No search for what can be freed among millions of entries that all stay: it takes longer the more there are."""
    searched = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searched:
            gc.enable()


def _best_of_pairs(detections: Detections, classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the 100 best of each image and class, best first; where each pair starts, and the end."""
    pair = detections.image * classes + detections.labels
    order = np.lexsort((-detections.scores, pair))  # stable: ties stay in the order of the file
    changes = np.diff(pair[order], prepend=-1) != 0
    starts = np.flatnonzero(changes)
    rank = np.arange(len(order)) - starts[np.cumsum(changes) - 1]
    kept = rank < MAX_DETECTIONS[-1]
    return order[kept], np.append(np.flatnonzero(changes[kept]), np.count_nonzero(kept))
