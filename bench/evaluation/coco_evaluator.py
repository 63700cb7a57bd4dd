"""pycocotools' COCOeval, with arrays as input."""

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

MAX_DETECTIONS = (1, 10, 100)  # per image and class


@dataclass(frozen=True, eq=False)
class Subset:
    """A subset of the ground truths to score, like COCO's area ranges.

    truths: (M,) bool. The others are ignored: missing one costs nothing, and detecting one is not an error.
    detections: (D,) bool. If unmatched, these are wrong and the others are ignored.
    """

    truths: NDArray[np.bool_]
    detections: NDArray[np.bool_]


class CocoEvaluator(COCOeval):  # type: ignore[misc]
    """COCOeval with arrays as input and arbitrary subsets of the ground truths, without futile searches.

    Matching and accumulation are pycocotools' own. Two shortcuts give the same figures in a fraction of the time. A
    detection whose IoU with all ground truths of its image and class is below the lowest threshold stays unmatched, so
    it is removed before the search and restored after it; most detections are of this kind. And subsets that ignore the
    same ground truths of an image and class share one search. Classes are evaluated one after another, each image by
    image for all subsets, which is cache-friendly: the time per image does not grow with the number of images.

    rows: (K,) rows of the evaluated detections, the 100 best of each class and image.
    truth: (T, K) int32, id (row + 1) of the ground truth matched at each of T thresholds in the first subset, 0 for
        none. matched, ignored: (A, T, K) bool, in each of A subsets. truth_ignored: (A, M) bool.
    precision: (T, 101, C, A) and recall: (T, C, A), with 100 detections per image and class. recall_few: (T, C, 2),
        with 1 and 10, in the first subset. Classes are in the order of category ids; -1 means no ground truth.
    """

    def __init__(self, index: ImageIndex, detections: Detections, subsets: Sequence[Subset]) -> None:
        """subsets: at least one. Crowds and difficult ground truths are ignored in all of them."""
        super().__init__(iouType="bbox")
        # COCOeval identifies a subset by its area range. All areas are set to 0, which is in every range.
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
        # COCOeval would set `ignore` to `iscrowd`, and difficult objects would count.
        always_ignored = index.crowd | index.difficult
        self.truth_ignored = np.stack([always_ignored | ~subset.truths for subset in subsets])
        # Initially nothing is matched.
        outside = np.stack([~subset.detections[self.rows] for subset in subsets])
        self._ignored = np.repeat(outside[..., None], len(self.params.iouThrs), axis=-1)
        self._matched = np.zeros(self._ignored.shape, dtype=np.bool_)
        self._truth = np.zeros(self._ignored.shape[1:], dtype=np.int32)
        with contextlib.redirect_stdout(io.StringIO()), _no_garbage_collection():
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
        """Precision (T, 101, 1, A), recall (T, 1, A) and recall_few (T, 1, 2) of a class."""
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
        """The input of `accumulate` for an image and class, in each subset."""
        if span is None and not truths:
            return [None] * len(self.params.areaRng)
        span = span or slice(0)
        scores = self._scores[span]
        near = self._prepare(image, category, truths, span) if truths else None
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
                result = searches[flags]
                if len(near):
                    matched[:, near] = right = result["dtMatches"] > 0
                    ignored[:, near] = np.where(right, result["dtIgnore"], ignored[:, near])
                    if subset == 0:
                        self._truth[span].T[:, near] = result["dtMatches"]
            evaluated.append(
                {
                    "gtIgnore": np.array(truth_ignored[subset]),
                    "dtScores": scores,
                    "dtMatches": matched,
                    "dtIgnore": ignored,
                }
            )
        return evaluated

    def _prepare(self, image: int, category: int, truths: list[dict[str, Any]], span: slice) -> NDArray[np.int64]:
        """Set COCOeval's input for an image and class; returns the positions in `span` of its detections."""
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
    """The ground truths of a class by image id, in COCOeval's form."""
    rows = np.flatnonzero(index.labels == label)
    names = ("id", "bbox", "iscrowd")
    columns = (rows + 1, xywh(index.boxes[rows]), index.crowd[rows])  # pycocotools treats id 0 as "unmatched"
    truths: dict[int, list[dict[str, Any]]] = defaultdict(list)
    images = index.image_ids[index.image_of_box[rows]].tolist()
    for image, *values in zip(images, *(column.tolist() for column in columns), strict=True):
        truths[image].append(dict(zip(names, values, strict=True)) | {"area": 0})
    return truths


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, which would scan millions of live entries repeatedly."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _best_of_pairs(detections: Detections, images: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the 100 best detections of each class and image, best first; the start of each pair, and the end."""
    pair = detections.labels.astype(np.int64) * images + detections.image
    order = np.lexsort((-detections.scores, pair))  # stable: ties keep their order
    changes = np.diff(pair[order], prepend=-1) != 0
    starts = np.flatnonzero(changes)
    rank = np.arange(len(order)) - starts[np.cumsum(changes) - 1]
    kept = rank < MAX_DETECTIONS[-1]
    return order[kept], np.append(np.flatnonzero(changes[kept]), np.count_nonzero(kept))
