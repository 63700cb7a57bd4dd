"""Matches between detections and ground truths: all that is needed to compute AP under any weights of the images.

Matching costs a hundred times more than the sums that follow, and it does not depend on the weights of the images. It
is therefore done once and stored (`matches.npz`); `average_precision` computes the evaluator's AP from cumulative sums.
NumPy and SciPy only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from bench.storage.atomic import replacing
from bench.storage.reading import RERUN_CELL, ArrayForm, Unreadable, load_arrays

RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO samples the precision curve
AP50 = 0.5  # the IoU threshold that every file of matches has
SUMS_AT_ONCE = 500_000  # cumulative sums in memory at a time: 4 MB, about a cache


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """Matches of D detections and M ground truths in N images of C classes, for A subsets and T IoU thresholds.

    Detections are the evaluated ones (the 100 best of each image and class), sorted by class, then by descending score,
    with ties in the evaluator's order: cumulative sums within a class give its curve.

    classes: C names. image_ids: (N,) int64, as in ground_truth.json.
    areas: A names of subsets: "all", the sizes, with the suffix "_network" those at the network's resolution, and the
        annotated ones of the conditions "truncated", "untruncated", "occluded", "unoccluded".
    thresholds: (T,) float64, IoU.
    detection: (D,) int64, index in detections.json, from 0.
    image: (D,) int64, row of the image. label: (D,) int32. score: (D,) float32.
    matched: (A, T, D) bool, matched to a ground truth in that subset at that threshold.
    ignored: (A, T, D) bool, neither right nor wrong: matched to an ignored ground truth, or unmatched and outside the
        size range.
    truth: (T, D) int64, in the subset "all": index of the matched ground truth in ground_truth.json's annotations, from
        0 (annotation id - 1), or -1.
    truth_image: (M,) int64. truth_label: (M,) int32.
    truth_ignored: (A, M) bool, crowd, difficult, or not in the subset.

    In the file the three (A, ...) arrays are packed by `numpy.packbits` along their last axis.
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
        """Write the file atomically."""
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in PACKED:
            arrays[name] = np.packbits(arrays[name], axis=-1)
        with replacing(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path, *, remedy: str = RERUN_CELL) -> Matches:
        """Read a file written by `save`. Raises Unreadable if it is damaged.

        remedy: what to do about a damaged file.
        """
        arrays: dict[str, Any] = load_arrays(path, FORM, remedy=remedy)
        counts = {
            "matched": len(arrays["image"]),
            "ignored": len(arrays["image"]),
            "truth_ignored": len(arrays["truth_image"]),
        }
        for name in PACKED:
            arrays[name] = np.unpackbits(arrays[name], axis=-1, count=counts[name]).astype(bool)
        for name in ("classes", "areas"):
            arrays[name] = tuple(arrays[name].tolist())
        matches = cls(**arrays)
        if fault := _fault(matches):
            raise Unreadable(path, fault, remedy)
        return matches

    def ground_truths(self, area: str = "all") -> NDArray[np.int64]:
        """(C,) number of ground truths of each class that count in a subset."""
        scored = ~self.truth_ignored[self.areas.index(area)]
        return np.bincount(self.truth_label[scored], minlength=len(self.classes)).astype(np.int64)


PACKED = ("matched", "ignored", "truth_ignored")
# The arrays in a file; the letters are those of `Matches`
FORM: ArrayForm = {
    "classes": ("U", ("C",)),
    "image_ids": ("i", ("N",)),
    "areas": ("U", ("A",)),
    "thresholds": ("f", ("T",)),
    "detection": ("i", ("D",)),
    "image": ("i", ("D",)),
    "label": ("i", ("D",)),
    "score": ("f", ("D",)),
    "matched": ("u", ("A", "T", "D/8")),
    "ignored": ("u", ("A", "T", "D/8")),
    "truth": ("i", ("T", "D")),
    "truth_image": ("i", ("M",)),
    "truth_label": ("i", ("M",)),
    "truth_ignored": ("u", ("A", "M/8")),
}


def _fault(matches: Matches) -> str | None:
    """Why matches from a file cannot be ours, as a sentence; None if they can."""
    if "all" not in matches.areas:
        return 'areas has no "all"'
    if not np.isclose(matches.thresholds, AP50).any():
        return f"thresholds has no {AP50}"
    if not np.isfinite(matches.score).all():
        return "score has numbers that are not finite"
    for name, first, end in (
        ("detection", 0, np.inf),
        ("image", 0, len(matches.image_ids)),
        ("label", 0, len(matches.classes)),
        ("truth", -1, len(matches.truth_image)),
        ("truth_image", 0, len(matches.image_ids)),
        ("truth_label", 0, len(matches.classes)),
    ):
        values = getattr(matches, name)
        if values.size and not (first <= values.min() and values.max() < end):
            return f"{name} has the numbers {values.min()} to {values.max()}, not {first} to {end - 1}"
    return None


def average_precision(
    matches: Matches, weights: NDArray[np.float64] | None = None, *, area: str = "all"
) -> NDArray[np.float64]:
    """(..., C, T) AP (101-point, at most 100 detections per image and class) per class and IoU threshold.

    weights: (N,) or (B, N), of the images, such as their counts in a bootstrap replicate. By default all images have a
        weight of 1, and the AP equals that of pycocotools up to rounding. Integer weights give the AP of the data set
        with each image repeated that often.
    area: one of `matches.areas`.

    Classes without (weighted) ground truths in the subset are NaN. COCO's AP is the `nanmean` over the last two axes,
    AP50 that of ``[..., 0]``.
    """
    unit = weights is None
    w = np.ones((1, len(matches.image_ids))) if weights is None else np.asarray(weights, dtype=np.float64)
    leading = () if unit else w.shape[:-1]
    w = w.reshape(-1, w.shape[-1])
    row = matches.areas.index(area)
    starts = np.searchsorted(matches.label, np.arange(len(matches.classes) + 1))
    scored = ~matches.truth_ignored[row]
    result = np.full((len(w), len(matches.classes), len(matches.thresholds)), np.nan)
    for label in range(len(matches.classes)):
        truths = matches.truth_image[scored & (matches.truth_label == label)]
        if not len(truths):
            continue
        images = np.bincount(truths, minlength=w.shape[1]).astype(np.float64)
        curve = slice(starts[label], starts[label + 1])
        counts = _Counts.of(
            matches.image[curve], matches.matched[row, :, curve], ~matches.ignored[row, :, curve], w.shape[1]
        )
        chunk = max(1, SUMS_AT_ONCE // max(1, counts.detections.shape[0]))
        for first in range(0, len(w), chunk):
            part = w[first : first + chunk]
            result[first : first + chunk, label] = _class_precision(counts, np.ascontiguousarray(part.T), part @ images)
    return result.reshape(*leading, *result.shape[1:])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Counts:
    """The curves of a class as counts per image, so that a replicate is a product with the image weights.

    Recall and the precision envelope change only at true positives. Detections are therefore summed over the steps
    between these: U detections are true positives at some threshold, R_t at threshold t.

    detections: (U, N) number of detections that count at all thresholds, per step and image.
    true_steps: for each threshold, (R_t,) rows of `detections` that end with a true positive.
    true_images: for each threshold, (R_t,) the images of the true positives.
    others: for each threshold, (R_t, N) number of detections that count at it but not at all; None if there are none.
    """

    detections: sparse.csr_array
    true_steps: tuple[NDArray[np.int64], ...]
    true_images: tuple[NDArray[np.int64], ...]
    others: tuple[sparse.csr_array | None, ...]

    @classmethod
    def of(cls, image: NDArray[np.int64], matched: NDArray[np.bool_], kept: NDArray[np.bool_], images: int) -> _Counts:
        """From the (D,) images and (T, D) flags of a class's detections, best first, and the number N of images."""
        true = matched & kept
        ends = np.flatnonzero(true.any(axis=0))
        everywhere = np.logical_and.reduce(kept, axis=0)
        places = [np.flatnonzero(row) for row in true]
        return cls(
            detections=_steps(ends, image, everywhere, images),
            true_steps=tuple(np.searchsorted(ends, place) for place in places),
            true_images=tuple(image[place] for place in places),
            others=tuple(
                _steps(place, image, only, images) if only.any() else None
                for place, only in zip(places, kept & ~everywhere, strict=True)
            ),
        )


def _steps(ends: NDArray[np.int64], image: NDArray[np.int64], kept: NDArray[np.bool_], images: int) -> sparse.csr_array:
    """(len(ends), N) number of kept detections of each image up to each of `ends` and after the previous one."""
    places = np.flatnonzero(kept)
    steps = np.searchsorted(ends, places)
    rows = np.searchsorted(steps, np.arange(len(ends) + 1))
    # Entries are already sorted by row; the product sums an image that occurs twice in a row.
    entries = (np.ones(rows[-1]), image[places[: rows[-1]]], rows)
    return sparse.csr_array(entries, shape=(len(ends), images))


def _class_precision(
    counts: _Counts, weights: NDArray[np.float64], positives: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(B, T) AP of one class. weights: (N, B) of the images. positives: (B,) weighted number of ground truths."""
    result = np.zeros((weights.shape[1], len(counts.true_steps)))
    everywhere = np.cumsum(counts.detections @ weights, axis=0)
    thresholds = zip(counts.true_steps, counts.true_images, counts.others, strict=True)
    for t, (steps, images, others) in enumerate(thresholds):
        if not len(steps):
            continue
        detected = everywhere[steps]
        if others is not None:
            detected += np.cumsum(others @ weights, axis=0)
        true = np.cumsum(weights[images], axis=0)
        detected += np.spacing(1)
        envelope = np.maximum.accumulate((true / detected)[::-1], axis=0)[::-1]
        recall = true / np.where(positives == 0, 1.0, positives)
        # The precision at each point of the recall axis is that of the first true positive that reaches it.
        points = np.diff(_reached(recall), axis=0, prepend=0)
        result[:, t] = np.einsum("rb,rb->b", envelope, points) / len(RECALLS)
    result[positives == 0] = np.nan
    return result


def _reached(recall: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of `RECALLS` at or below each recall (at most 1), without a search."""
    guess = (recall * (len(RECALLS) - 1)).astype(np.int64)  # rounding errors make it off by at most one
    ends = np.append(RECALLS, np.inf)
    reached: NDArray[np.int64] = guess + (ends[guess] <= recall) + (ends[guess + 1] <= recall)
    return reached
