"""pycocotools' COCOeval, fed from arrays."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from bench.data.index import ImageIndex
from bench.evaluation.detections import Detections, xywh

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

    One class is evaluated after another, and in it one image after another for all subsets, so that what is
    looked at together lies together: an image takes no longer where there are many.

    rows: (K,) rows of the detections that took part: the 100 best of each class and image.
    truth: (T, K) int32, id (row + 1) of the ground truth matched at each of T thresholds in the first subset, 0 for
        none. matched, ignored: (A, T, K) bool, in each of A subsets. truth_ignored: (A, M) bool.
    precision: (T, 101, C, A), and recall: (T, C, A), of 100 detections of an image and class. recall_few: (T, C, 2),
        of 1 and 10, in the first subset. Classes are by category id; -1 stands where there is no ground truth.
    """

    def __init__(self, index: ImageIndex, detections: Detections, subsets: Sequence[Subset]) -> None:
        """At least one subset. Crowds and difficult ground truths are ignored in every one."""
        super().__init__(iouType="bbox")
        # COCOeval's own name for a subset is its area range. All areas are 0 here, and so in each of them.
        self.params.areaRng = [[-place, place] for place in range(len(subsets))]
        self.params.maxDets = list(MAX_DETECTIONS)
        self.params.imgIds = sorted(index.image_ids.tolist())
        self.rows, starts = _best_of_pairs(detections, len(index))
        heads = self.rows[starts[:-1]]
        self._spans: dict[int, dict[int, slice]] = defaultdict(dict)
        for label, image, *span in zip(
            detections.labels[heads].tolist(),
            index.image_ids[detections.image[heads]].tolist(),
            starts[:-1].tolist(),
            starts[1:].tolist(),
            strict=True,
        ):
            self._spans[label][image] = slice(*span)
        self._scores = detections.scores[self.rows].astype(np.float64)
        self._boxes = xywh(detections.boxes[self.rows])
        # Not `ignore` as COCOeval prepares it: that would be `iscrowd` again, and difficult would count.
        never = index.crowd | index.difficult
        self.truth_ignored = np.stack([never | ~subset.truths for subset in subsets])
        # Start: nothing is matched.
        forgiven = np.stack([~subset.detections[self.rows] for subset in subsets])
        self._ignored = np.repeat(forgiven[..., None], len(self.params.iouThrs), axis=-1)
        self._matched = np.zeros(self._ignored.shape, dtype=np.bool_)
        self._truth = np.zeros(self._ignored.shape[1:], dtype=np.int32)
        with contextlib.redirect_stdout(io.StringIO()), _all_kept():
            curves = [self._of_class(index, label) for label in np.argsort(index.category_ids).tolist()]
        self.precision, self.recall, self.recall_few = (
            np.concatenate(parts, axis=axis) for parts, axis in zip(zip(*curves, strict=True), (2, 1, 1), strict=True)
        )

    @property
    def truth(self) -> NDArray[np.int32]:
        return self._truth.T

    @property
    def matched(self) -> NDArray[np.bool_]:
        return self._matched.swapaxes(1, 2)

    @property
    def ignored(self) -> NDArray[np.bool_]:
        return self._ignored.swapaxes(1, 2)

    def _of_class(self, index: ImageIndex, label: int) -> tuple[NDArray[np.float64], ...]:
        """Precision (T, 101, 1, A), recall (T, 1, A) and recall of few (T, 1, 2) of a class."""
        params = self.params
        params.catIds = [category] = index.category_ids[label : label + 1].tolist()
        truths = _truths_of_class(index, label)
        evaluated = [
            self._of_pair(image, category, truths.get(image, []), self._spans[label].get(image))
            for image in params.imgIds
        ]
        self.evalImgs = [each for of_subset in zip(*evaluated, strict=True) for each in of_subset]
        self._paramsEval = params
        precision, recall = self._curves(len(params.areaRng), MAX_DETECTIONS[-1:])
        _, recall_few = self._curves(1, MAX_DETECTIONS[:-1])
        return precision[..., 0], recall[..., 0], recall_few[..., 0, :]

    def _curves(self, subsets: int, max_detections: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision (T, 101, 1, A, M) and recall (T, 1, A, M) of the class in the first A subsets."""
        params = copy.copy(self.params)
        params.areaRng, params.maxDets = params.areaRng[:subsets], list(max_detections)
        self.accumulate(params)
        return self.eval["precision"], self.eval["recall"]

    def _of_pair(
        self, image: int, category: int, truths: list[dict[str, Any]], span: slice | None
    ) -> list[dict[str, Any] | None]:
        """What `accumulate` asks of the ground truths and detections of an image and class, in each subset."""
        if span is None and not truths:
            return [None] * len(self.params.areaRng)
        span = span or slice(0)
        scores = self._scores[span]
        near = self._lay_out(image, category, truths, span) if truths else None
        truth_ignored = self.truth_ignored[:, [truth["id"] - 1 for truth in truths]].tolist()
        searches: dict[tuple[bool, ...], dict[str, Any]] = {}
        evaluated: list[dict[str, Any] | None] = []
        for subset, limits in enumerate(self.params.areaRng):
            matched, ignored = self._matched[subset, span].T, self._ignored[subset, span].T
            if near is not None:
                flags = tuple(truth_ignored[subset])
                if flags not in searches:
                    for truth, flag in zip(truths, flags, strict=True):
                        truth["ignore"] = flag
                    searches[flags] = self.evaluateImg(image, category, limits, MAX_DETECTIONS[-1])
                found = searches[flags]
                if len(near):
                    matched[:, near] = right = found["dtMatches"] > 0
                    ignored[:, near] = np.where(right, found["dtIgnore"], ignored[:, near])
                    if subset == 0:
                        self._truth[span].T[:, near] = found["dtMatches"]
            evaluated.append(
                {
                    "gtIgnore": np.array(truth_ignored[subset]),
                    "dtScores": scores,
                    "dtMatches": matched,
                    "dtIgnore": ignored,
                }
            )
        return evaluated

    def _lay_out(self, image: int, category: int, truths: list[dict[str, Any]], span: slice) -> NDArray[np.int64]:
        """Give COCOeval what it searches, and the places in `span` of the detections that it is given."""
        pair = image, category
        columns = (self.rows[span], self._boxes[span], self._scores[span])
        detections = [
            {"id": row + 1, "bbox": box, "area": 0, "score": score}
            for row, box, score in zip(*(column.tolist() for column in columns), strict=True)
        ]
        self._gts, self._dts = {pair: truths}, {pair: detections}
        ious = self.computeIoU(image, category) if detections else np.zeros((0, len(truths)))
        near = np.flatnonzero((ious >= self.params.iouThrs[0]).any(axis=1))
        self._dts[pair] = [detections[place] for place in near]
        self.ious = {pair: ious[near]}
        return near


def _truths_of_class(index: ImageIndex, label: int) -> dict[int, list[dict[str, Any]]]:
    """The ground truths of a class by image id, as COCOeval reads them."""
    rows = np.flatnonzero(index.labels == label)
    names = ("id", "bbox", "iscrowd")
    columns = (rows + 1, xywh(index.boxes[rows]), index.crowd[rows])  # pycocotools takes id 0 for "unmatched"
    truths: dict[int, list[dict[str, Any]]] = defaultdict(list)
    images = index.image_ids[index.image_of_box[rows]].tolist()
    for image, *values in zip(images, *(column.tolist() for column in columns), strict=True):
        truths[image].append(dict(zip(names, values, strict=True)) | {"area": 0})
    return truths


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


def _best_of_pairs(detections: Detections, images: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the 100 best of each class and image, best first; where each pair starts, and the end."""
    pair = detections.labels.astype(np.int64) * images + detections.image
    order = np.lexsort((-detections.scores, pair))  # stable: ties stay in the order of the file
    changes = np.diff(pair[order], prepend=-1) != 0
    starts = np.flatnonzero(changes)
    rank = np.arange(len(order)) - starts[np.cumsum(changes) - 1]
    kept = rank < MAX_DETECTIONS[-1]
    return order[kept], np.append(np.flatnonzero(changes[kept]), np.count_nonzero(kept))
