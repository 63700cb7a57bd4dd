"""The error type of each wrong detection, and AP50 with the errors of a type fixed.

The types are TIDE's (Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors"), tested in
the order of its code. Matching is not repeated: it comes from the `Matches` behind the published AP50, so the fixed
AP50 is comparable to it. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.matches import Matches, average_precision
from bench.storage.atomic import replacing
from bench.storage.reading import RERUN_CELL, ArrayForm, Unreadable, load_arrays

FOREGROUND = 0.5  # minimum IoU of a detection with its object
BACKGROUND = 0.1  # maximum IoU of a detection without an object

# Verdicts on detections, numbered as in `ErrorTypes.verdict`; MISSED is a verdict on ground truths.
VERDICTS = ("true", "ignored", "classification", "localisation", "both", "duplicate", "background")
TRUE, IGNORED, CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND_ERROR = range(len(VERDICTS))
MISSED = "missed"
KINDS = (*VERDICTS[CLASSIFICATION:], MISSED)
# Sums over kinds: all wrong detections, and all ground truths that were not found.
FALSE_POSITIVES, FALSE_NEGATIVES = "false positives", "false negatives"

# The arrays in a file; the letters are those of `ErrorTypes`
FORM: ArrayForm = {
    "verdict": ("i", ("D",)),
    "truth": ("i", ("D",)),
    "mends": ("b", ("D",)),
    "missed": ("b", ("M",)),
}

PAIRS_AT_ONCE = 250_000  # pairs of detections and ground truths in memory at a time: 2 MB per array


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorTypes:
    """Verdicts on the D detections and M ground truths of a `Matches`, in its order, at an IoU of 0.5.

    verdict: (D,) int8, index into `VERDICTS`:
        true: matched to a ground truth of its class.
        ignored: neither right nor wrong (crowd, difficult).
        localisation: right class, IoU of 0.1 to 0.5.
        classification: IoU of at least 0.5 with a ground truth of another class.
        duplicate: right class, IoU of more than 0.5, but another detection is matched to the ground truth.
        background: IoU of at most 0.1 with all ground truths.
        both: all others, with wrong class and wrong location.
    truth: (D,) int64, row of the ground truth that the verdict refers to, -1 for none. For `both`, the one with the
        highest IoU.
    mends: (D,) bool, becomes a true positive if fixed. Of the classification and localisation errors about a ground
        truth that was not found, this is the one with the best score; fixing the others removes them. Each ground truth
        is thus recovered at most once.
    missed: (M,) bool, not found, and without an error about it that could be fixed.
    """

    verdict: NDArray[np.int8]
    truth: NDArray[np.int64]
    mends: NDArray[np.bool_]
    missed: NDArray[np.bool_]

    def counts(self) -> dict[str, int]:
        """Number of errors of each of the `KINDS`."""
        of_detections = np.bincount(self.verdict, minlength=len(VERDICTS))[CLASSIFICATION:].tolist()
        return dict(zip(KINDS, [*of_detections, int(self.missed.sum())], strict=True))

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        with replacing(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path, *, remedy: str = RERUN_CELL) -> ErrorTypes:
        """Read a file written by `save`. Raises Unreadable if it is damaged.

        remedy: what to do about a damaged file.
        """
        types = cls(**load_arrays(path, FORM, remedy=remedy))
        for name, first, end in (("verdict", 0, len(VERDICTS)), ("truth", -1, len(types.missed))):
            values = getattr(types, name)
            if values.size and not (first <= values.min() and values.max() < end):
                reason = f"{name} has the numbers {values.min()} to {values.max()}, not {first} to {end - 1}"
                raise Unreadable(path, reason, remedy)
        return types


def error_types(matches: Matches, boxes: NDArray[np.float64], truth_boxes: NDArray[np.float64]) -> ErrorTypes:
    """Find the error type of every detection and the missed ground truths.

    boxes: (D, 4) of the detections, in the order of `matches`. truth_boxes: (M, 4). Both xywh in pixels as in COCO
        files, the numbers that the evaluator compared.
    Ignored ground truths (crowd, difficult) are treated as absent.
    """
    half = at_foreground(matches)
    scored = ~half.truth_ignored[0]
    right = half.matched[0, 0] & ~half.ignored[0, 0]
    used = np.zeros(len(scored), dtype=np.bool_)
    used[half.truth[0, right]] = True

    verdict = np.full(len(right), IGNORED, dtype=np.int8)
    verdict[right] = TRUE
    truth = np.where(right, half.truth[0], -1)
    wrong = np.flatnonzero(~right & ~half.ignored[0, 0])
    verdict[wrong], truth[wrong] = _verdicts(half, wrong, boxes, truth_boxes, used)

    fixable = np.flatnonzero((verdict == CLASSIFICATION) | (verdict == LOCALISATION))
    fixable = fixable[~used[truth[fixable]]]
    order = fixable[np.lexsort((half.detection[fixable], -half.score[fixable]))]
    targets, first = np.unique(truth[order], return_index=True)
    mends = np.zeros(len(right), dtype=np.bool_)
    mends[order[first]] = True
    missed = scored & ~used
    missed[targets] = False
    return ErrorTypes(verdict=verdict, truth=truth, mends=mends, missed=missed)


def at_foreground(matches: Matches) -> Matches:
    """The matches reduced to the IoU threshold of 0.5 and the subset "all"."""
    row, place = matches.areas.index("all"), int(np.flatnonzero(np.isclose(matches.thresholds, FOREGROUND))[0])
    return replace(
        matches,
        areas=("all",),
        thresholds=matches.thresholds[[place]],
        matched=matches.matched[[row]][:, [place]],
        ignored=matches.ignored[[row]][:, [place]],
        truth=matches.truth[[place]],
        truth_ignored=matches.truth_ignored[[row]],
    )


def fix_errors(
    matches: Matches,
    types: ErrorTypes,
    kind: str,
    *,
    detections: NDArray[np.bool_] | None = None,
    truths: NDArray[np.bool_] | None = None,
) -> Matches:
    """The matches at an IoU of 0.5 with all errors of a kind fixed, as in TIDE.

    A classification or localisation error gets the right class or location and its ground truth, or is removed
    (`ErrorTypes.mends`). Wrong detections of the other kinds are removed. Missed ground truths no longer count.

    kind: one of `KINDS`, `FALSE_POSITIVES` or `FALSE_NEGATIVES`.
    detections, truths: (D,) and (M,) bool, which errors to fix; by default all.
    """
    half = at_foreground(matches)
    label, matched, kept = half.label, half.matched, np.ones(len(half.label), dtype=np.bool_)
    ignored_truths = half.truth_ignored
    if kind in (MISSED, FALSE_NEGATIVES):
        missed = types.missed if kind == MISSED else ~_found(half, types)
        ignored_truths = ignored_truths | (missed if truths is None else missed & truths)
    else:
        false = types.verdict >= CLASSIFICATION
        chosen = false if kind == FALSE_POSITIVES else types.verdict == VERDICTS.index(kind)
        chosen = chosen if detections is None else chosen & detections
        rescued = chosen & types.mends & (kind != FALSE_POSITIVES)
        kept = ~chosen | rescued
        matched = matched | rescued
        label = label.copy()
        label[rescued] = half.truth_label[types.truth[rescued]]
    order = np.flatnonzero(kept)
    order = order[np.lexsort((half.image_ids[half.image[order]], -half.score[order], label[order]))]
    return replace(
        half,
        detection=half.detection[order],
        image=half.image[order],
        label=label[order],
        score=half.score[order],
        matched=matched[..., order],
        ignored=half.ignored[..., order],
        truth=np.where(matched[0], types.truth, -1)[:, order],
        truth_ignored=ignored_truths,
    )


def ap50(matches: Matches, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """(..., C) AP at an IoU of 0.5 of each class, NaN without ground truths; weights as in `average_precision`."""
    return average_precision(at_foreground(matches), weights)[..., 0]


def ap50_gain(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., C) gain in AP50 of each class from fixing errors; the `nanmean` over the classes is TIDE's dAP50.

    before, after: `ap50` of the matches and of the fixed ones. If nothing of a class was found and its ground truths no
    longer count, its AP50 stays 0. The discrete recall axis can cause a small loss, which TIDE reports as 0; here it
    remains a loss, so that differences between models are unbiased.
    """
    gains: NDArray[np.float64] = np.where(np.isnan(before), np.nan, np.nan_to_num(after)) - before
    return gains


def box_iou(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of boxes (..., 4) and (..., 4), xywh, elementwise with broadcasting; bit-identical to pycocotools.

    It is 0 for boxes without area.
    """
    sides = np.minimum(boxes[..., :2] + boxes[..., 2:], others[..., :2] + others[..., 2:])
    sides -= np.maximum(boxes[..., :2], others[..., :2])
    both = np.where((sides > 0).all(axis=-1), sides[..., 0] * sides[..., 1], 0.0)
    union = boxes[..., 2] * boxes[..., 3] + others[..., 2] * others[..., 3] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def _found(matches: Matches, types: ErrorTypes) -> NDArray[np.bool_]:
    """(M,) bool, the ground truths matched by a true positive."""
    found = np.zeros(len(matches.truth_label), dtype=np.bool_)
    found[types.truth[types.verdict == TRUE]] = True
    return found


def _verdicts(
    half: Matches,
    wrong: NDArray[np.int64],
    boxes: NDArray[np.float64],
    truth_boxes: NDArray[np.float64],
    used: NDArray[np.bool_],
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """(K,) verdicts on the detections `wrong`, and the rows of the ground truths that they refer to."""
    rows = np.flatnonzero(~half.truth_ignored[0])
    rows = rows[np.argsort(half.truth_image[rows], kind="stable")]
    of_image = np.bincount(half.truth_image[rows], minlength=len(half.image_ids))
    starts = np.cumsum(of_image) - of_image
    verdict = np.full(len(wrong), BACKGROUND_ERROR, dtype=np.int8)
    truth = np.full(len(wrong), -1, dtype=np.int64)
    # Sort by the number of ground truths in the image, so that tables of pairs need little padding.
    number = of_image[half.image[wrong]]
    order = np.argsort(number, kind="stable")
    order = order[np.searchsorted(number[order], 1) :]
    while len(order):
        # Take chunks from the end: the last row is the widest and sets the width.
        chunk = order[-max(1, PAIRS_AT_ONCE // int(number[order[-1]])) :]
        order = order[: -len(chunk)]
        rows_of_chunk = wrong[chunk]
        places = np.arange(number[chunk].max())
        exists = places < number[chunk][:, None]
        beside = rows[np.where(exists, starts[half.image[rows_of_chunk]][:, None] + places, 0)]
        iou = np.where(exists, box_iou(boxes[rows_of_chunk][:, None], truth_boxes[beside]), 0.0)
        own = half.truth_label[beside] == half.label[rows_of_chunk][:, None]
        verdict[chunk], best = _verdict(iou, own, used[beside])
        truth[chunk] = np.where(best >= 0, beside[np.arange(len(chunk)), best], -1)
    return verdict, truth


def _verdict(
    iou: NDArray[np.float64], own: NDArray[np.bool_], used: NDArray[np.bool_]
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """(K,) verdicts, and (K,) columns of the ground truths that they refer to or -1.

    iou: (K, G) of detections and the ground truths of their images. own: (K, G), same class. used: (K, G), matched to
    another detection.
    """
    # The order of TIDE's code (quantify.py), in which localisation includes an IoU of exactly 0.5.
    same, other, taken = iou * own, iou * ~own, iou * (own & used)
    tops = [(values.max(axis=1), values.argmax(axis=1)) for values in (same, other, taken, iou)]
    (same_top, same_at), (other_top, other_at), (taken_top, taken_at), (top, at) = tops
    conditions = [
        (same_top >= BACKGROUND) & (same_top <= FOREGROUND),
        other_top >= FOREGROUND,
        taken_top >= FOREGROUND,
        top <= BACKGROUND,
    ]
    verdict = np.select(conditions, [LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND_ERROR], BOTH)
    return verdict.astype(np.int8), np.select(conditions, [same_at, other_at, taken_at, -1], at)
