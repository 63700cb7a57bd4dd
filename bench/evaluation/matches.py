"""Which detection was matched to which ground truth: all that AP, and any question about it, needs.

The evaluator's matching costs a hundred times more than the sums that follow it, and does not depend on
how images are weighted. So it is done once and kept (`matches.npz`); `average_precision` gives the
evaluator's own AP again, under any weights of the images, from cumulative sums alone. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bench.storage.atomic import replacing

RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads precision off the curve
SUMS_AT_ONCE = 500_000  # cumulative sums held in memory at a time: 4 MB, a cache full


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """D detections and M ground truths of N images, of C classes, over A area ranges and T IoU thresholds.

    Detections are those left after the evaluator's cut (the 100 best of each image and class), by class,
    then by falling score, ties as the evaluator orders them: cumulative sums over a class are its curve.

    classes: C names. image_ids: (N,) int64, as in ground_truth.json.
    areas: A names of area ranges; those that end in "_network" are measured at the network's resolution.
        After them, where the data state it: "truncated", "untruncated", "occluded", "unoccluded".
    thresholds: (T,) float64, IoU.
    detection: (D,) int64, place in detections.json, from 0.
    image: (D,) int64, row of the image. label: (D,) int32. score: (D,) float32.
    matched: (A, T, D) bool: matched to a ground truth, in that area range, at that threshold.
    ignored: (A, T, D) bool: neither right nor wrong (matched to an ignored ground truth, or unmatched
        and outside the area range).
    truth: (T, D) int64, range "all": place in ground_truth.json's annotations, from 0 (annotation id - 1),
        of the ground truth that was matched, or -1.
    truth_image: (M,) int64. truth_label: (M,) int32.
    truth_ignored: (A, M) bool: crowd, difficult, or outside the area range (without the condition).

    In the file the three (A, ...) arrays of flags are `numpy.packbits` along their last axis; all else is
    stored as it is here.
    """

    classes: tuple[str, ...]
    image_ids: NDArray[np.int64]
    areas: tuple[str, ...]
    thresholds: NDArray[np.float64]
    detection: NDArray[np.int64]
    image: NDArray[np.int64]
    label: NDArray[np.int32]
    score: NDArray[np.float32]
    matched: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    truth: NDArray[np.int64]
    truth_image: NDArray[np.int64]
    truth_label: NDArray[np.int32]
    truth_ignored: NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write the file in one step: it is there whole, or not at all."""
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in PACKED:
            arrays[name] = np.packbits(arrays[name], axis=-1)
        with replacing(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> Matches:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {field.name: file[field.name] for field in fields(cls)}
        counts = {
            "matched": len(arrays["image"]),
            "ignored": len(arrays["image"]),
            "truth_ignored": len(arrays["truth_image"]),
        }
        for name in PACKED:
            arrays[name] = np.unpackbits(arrays[name], axis=-1, count=counts[name]).astype(bool)
        for name in ("classes", "areas"):
            arrays[name] = tuple(arrays[name].tolist())
        return cls(**arrays)

    def ground_truths(self, area: str = "all") -> NDArray[np.int64]:
        """(C,) number of ground truths of each class that count in an area range."""
        counted = ~self.truth_ignored[self.areas.index(area)]
        return np.bincount(self.truth_label[counted], minlength=len(self.classes)).astype(np.int64)


PACKED = ("matched", "ignored", "truth_ignored")


def average_precision(
    matches: Matches, weights: NDArray[np.float64] | None = None, *, area: str = "all"
) -> NDArray[np.float64]:
    """(..., C, T) AP (101-point, at most 100 detections an image and class) per class and IoU threshold.

    weights: (N,) or (B, N), of the images: how often each was drawn, in a bootstrap replicate; without
        them every image counts once, and the AP is that of pycocotools (to rounding).
    A class without (weighted) ground truths in the area range is NaN. COCO's AP is the `nanmean` over
    the last two axes, AP50 that of ``[..., 0]``.

    With whole-numbered weights it is the AP of the data set in which each image is repeated so often.
    """
    unit = weights is None
    w = np.ones((1, len(matches.image_ids))) if weights is None else np.asarray(weights, dtype=np.float64)
    leading = () if unit else w.shape[:-1]
    w = w.reshape(-1, w.shape[-1])
    row = matches.areas.index(area)
    starts = np.searchsorted(matches.label, np.arange(len(matches.classes) + 1))
    counted = ~matches.truth_ignored[row]
    result = np.full((len(w), len(matches.classes), len(matches.thresholds)), np.nan)
    for label in range(len(matches.classes)):
        truths = matches.truth_image[counted & (matches.truth_label == label)]
        if not len(truths):
            continue
        images = np.bincount(truths, minlength=w.shape[1]).astype(np.float64)
        curve = slice(starts[label], starts[label + 1])
        counts = _Counts.of(
            matches.image[curve], matches.matched[row, :, curve], ~matches.ignored[row, :, curve], w.shape[1]
        )
        chunk = max(1, SUMS_AT_ONCE // max(1, counts.claims.shape[0]))
        for first in range(0, len(w), chunk):
            part = w[first : first + chunk]
            result[first : first + chunk, label] = _class_precision(counts, np.ascontiguousarray(part.T), part @ images)
    return result.reshape(*leading, *result.shape[1:])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Counts:
    """A class's curves as counts by image, so that a replicate is a product with the weights of the images.

    Precision rises, and recall moves, at true positives alone. So the detections are summed up into the
    steps between them: U of them that are true at any threshold, R_t at threshold t.

    claims: (U, N) of the detections that count at every threshold, by the step that they fall into.
    rights: for each threshold (R_t,) rows of `claims` that are true positives.
    images: for each threshold (R_t,) their images.
    further: for each threshold (R_t, N) of the detections that count there but not everywhere; None for none.
    """

    claims: sparse.csr_array
    rights: tuple[NDArray[np.int64], ...]
    images: tuple[NDArray[np.int64], ...]
    further: tuple[sparse.csr_array | None, ...]

    @classmethod
    def of(cls, image: NDArray[np.int64], matched: NDArray[np.bool_], kept: NDArray[np.bool_], images: int) -> _Counts:
        """From the (D,) images and (T, D) flags of a class's detections, best first, and the number N of images."""
        right = matched & kept
        ends = np.flatnonzero(right.any(axis=0))
        everywhere = np.logical_and.reduce(kept, axis=0)
        places = [np.flatnonzero(row) for row in right]
        return cls(
            claims=_steps(ends, image, everywhere, images),
            rights=tuple(np.searchsorted(ends, place) for place in places),
            images=tuple(image[place] for place in places),
            further=tuple(
                _steps(place, image, only, images) if only.any() else None
                for place, only in zip(places, kept & ~everywhere, strict=True)
            ),
        )


def _steps(ends: NDArray[np.int64], image: NDArray[np.int64], kept: NDArray[np.bool_], images: int) -> sparse.csr_array:
    """(len(ends), N) number of kept detections of each image after the end before and up to each end."""
    places = np.flatnonzero(kept)
    steps = np.searchsorted(ends, places)
    rows = np.searchsorted(steps, np.arange(len(ends) + 1))
    # Places rise, so the entries stand by rows already; one image twice in a row is added up by the product
    entries = (np.ones(rows[-1]), image[places[: rows[-1]]], rows)
    return sparse.csr_array(entries, shape=(len(ends), images))


def _class_precision(
    counts: _Counts, weights: NDArray[np.float64], positives: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(B, T) AP of one class: weights (N, B) of the images, (B,) of its ground truths."""
    result = np.zeros((weights.shape[1], len(counts.rights)))
    claims = np.cumsum(counts.claims @ weights, axis=0)
    for t, (rights, images, further) in enumerate(zip(counts.rights, counts.images, counts.further, strict=True)):
        if not len(rights):
            continue
        claimed = claims[rights]
        if further is not None:
            claimed += np.cumsum(further @ weights, axis=0)
        true = np.cumsum(weights[images], axis=0)
        claimed += np.spacing(1)
        envelope = np.maximum.accumulate((true / claimed)[::-1], axis=0)[::-1]
        recall = true / np.where(positives == 0, 1.0, positives)
        # Each point on the recall axis is read at the first true positive that reaches it.
        points = np.diff(_reached(recall), axis=0, prepend=0)
        result[:, t] = np.einsum("rb,rb->b", envelope, points) / len(RECALLS)
    result[positives == 0] = np.nan
    return result


def _reached(recall: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of `RECALLS` lie at or below each recall (at most 1), without a search for each."""
    guess = (recall * (len(RECALLS) - 1)).astype(np.int64)  # rounding may leave it one too high or one too low
    ends = np.append(RECALLS, np.inf)
    reached: NDArray[np.int64] = guess + (ends[guess] <= recall) + (ends[guess + 1] <= recall)
    return reached
