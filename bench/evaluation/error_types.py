"""What kind of error each wrong detection is, and what AP50 would be without the errors of a kind.

The kinds are TIDE's (Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors"),
in the order in which its code asks for them. What was matched is not asked again: it is that of `Matches`,
behind the published AP50, so the AP50 that is mended is the published one. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.matches import Matches, average_precision
from bench.storage.atomic import replacing

FOREGROUND = 0.5  # IoU from which a detection is of an object
BACKGROUND = 0.1  # IoU up to which it is of none

# Of detections, as `ErrorTypes.verdict` numbers them; MISSED is of ground truths.
VERDICTS = ("true", "ignored", "classification", "localisation", "both", "duplicate", "background")
TRUE, IGNORED, CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND_CLAIM = range(len(VERDICTS))
MISSED = "missed"
KINDS = (*VERDICTS[CLASSIFICATION:], MISSED)
# Not kinds but sums of them: every wrong detection, and every ground truth that was not found.
FALSE_POSITIVES, FALSE_NEGATIVES = "false positives", "false negatives"

PAIRS_AT_ONCE = 250_000  # of a detection and a ground truth, compared at a time: 2 MB for each of their numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorTypes:
    """What became of the D detections and M ground truths of a `Matches`, in its order, at an IoU of 0.5.

    verdict: (D,) int8, place in `VERDICTS`:
        true: matched to a ground truth of its class.
        ignored: neither right nor wrong (crowd, difficult).
        localisation: the right class, IoU of 0.1 to 0.5.
        classification: IoU of at least 0.5 with a ground truth of another class.
        duplicate: the right class, IoU of more than 0.5, but a better one was matched to the ground truth.
        background: IoU of at most 0.1 with every ground truth.
        both: what is left, neither the right class nor the right place.
    truth: (D,) int64, the ground truth that the verdict is about, row of annotations from 0; -1 for none.
        Of `both` it is the one that it overlaps most.
    mends: (D,) bool: would be true if mended. A classification or localisation error mends the ground truth
        that it is about unless that was found anyway; of several the best score mends it, and the others,
        of both kinds, would go. So no ground truth is given back twice.
    missed: (M,) bool: not found, and no error is about it that could be mended.
    """

    verdict: NDArray[np.int8]
    truth: NDArray[np.int64]
    mends: NDArray[np.bool_]
    missed: NDArray[np.bool_]

    def counts(self) -> dict[str, int]:
        """Number of errors of each of `KINDS`."""
        of_detections = np.bincount(self.verdict, minlength=len(VERDICTS))[CLASSIFICATION:].tolist()
        return dict(zip(KINDS, [*of_detections, int(self.missed.sum())], strict=True))

    def save(self, path: Path) -> None:
        """Write the file in one step: it is there whole, or not at all."""
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        with replacing(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> ErrorTypes:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{field.name: file[field.name] for field in fields(cls)})


def error_types(matches: Matches, boxes: NDArray[np.float64], truth_boxes: NDArray[np.float64]) -> ErrorTypes:
    """The error type of every detection, and the ground truths that are missed.

    boxes: (D, 4) of the detections, in the order of `matches`. truth_boxes: (M, 4). Both xywh in pixels, as in
        the files of COCO's form: the evaluator compared these very numbers.
    Ignored ground truths (crowd, difficult) are as if they were not there.
    """
    half = at_foreground(matches)
    counted = ~half.truth_ignored[0]
    right = half.matched[0, 0] & ~half.ignored[0, 0]
    used = np.zeros(len(counted), dtype=np.bool_)
    used[half.truth[0, right]] = True

    verdict = np.full(len(right), IGNORED, dtype=np.int8)
    verdict[right] = TRUE
    truth = np.where(right, half.truth[0], -1)
    wrong = np.flatnonzero(~right & ~half.ignored[0, 0])
    verdict[wrong], truth[wrong] = _verdicts(half, wrong, boxes, truth_boxes, used)

    mendable = np.flatnonzero((verdict == CLASSIFICATION) | (verdict == LOCALISATION))
    mendable = mendable[~used[truth[mendable]]]
    order = mendable[np.lexsort((half.detection[mendable], -half.score[mendable]))]
    targets, first = np.unique(truth[order], return_index=True)
    mends = np.zeros(len(right), dtype=np.bool_)
    mends[order[first]] = True
    missed = counted & ~used
    missed[targets] = False
    return ErrorTypes(verdict=verdict, truth=truth, mends=mends, missed=missed)


def at_foreground(matches: Matches) -> Matches:
    """The same matches with the IoU threshold of 0.5 and the range "all" alone."""
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


def mended(
    matches: Matches,
    types: ErrorTypes,
    kind: str,
    *,
    detections: NDArray[np.bool_] | None = None,
    truths: NDArray[np.bool_] | None = None,
) -> Matches:
    """The matches, at an IoU of 0.5, as they would be without the errors of a kind.

    kind: one of `KINDS`, `FALSE_POSITIVES` or `FALSE_NEGATIVES`.
    detections, truths: (D,) and (M,) bool, which of them are mended; all without them.

    As in TIDE: the detection of a classification or localisation error gets the right class or place, and with
    it a ground truth, or is taken out (`ErrorTypes.mends`); those of the other kinds are taken out; what is
    missed no longer counts as a ground truth.
    """
    half = at_foreground(matches)
    label, matched, kept = half.label, half.matched, np.ones(len(half.label), dtype=np.bool_)
    ignored_truths = half.truth_ignored
    if kind in (MISSED, FALSE_NEGATIVES):
        gone = types.missed if kind == MISSED else ~_found(half, types)
        ignored_truths = ignored_truths | (gone if truths is None else gone & truths)
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
    """(..., C) AP at an IoU of 0.5 of each class, NaN without ground truths; weights as of `average_precision`."""
    return average_precision(at_foreground(matches), weights)[..., 0]


def given_back(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., C) what mending adds to the AP50 of each class; its `nanmean` over the classes is TIDE's dAP50.

    before: `ap50` of the matches; after: that of the mended ones. A class of which nothing at all was found, and
    whose ground truths no longer count, keeps the 0 that it had. TIDE shows a loss, which the steps of the
    recall axis can give, as 0; here it stays a loss, so that differences between models have no bias.
    """
    gains: NDArray[np.float64] = np.where(np.isnan(before), np.nan, np.nan_to_num(after)) - before
    return gains


def box_iou(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of boxes (..., 4) and (..., 4), xywh, elementwise with broadcasting; to the bit that of pycocotools.

    Boxes without area have an IoU of 0.
    """
    sides = np.minimum(boxes[..., :2] + boxes[..., 2:], others[..., :2] + others[..., 2:])
    sides -= np.maximum(boxes[..., :2], others[..., :2])
    both = np.where((sides > 0).all(axis=-1), sides[..., 0] * sides[..., 1], 0.0)
    union = boxes[..., 2] * boxes[..., 3] + others[..., 2] * others[..., 3] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def _found(matches: Matches, types: ErrorTypes) -> NDArray[np.bool_]:
    """(M,) bool, the ground truths that a true detection is matched to."""
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
    """(K,) verdicts of wrong detections, and the ground truths that they are about, of those that count."""
    rows = np.flatnonzero(~half.truth_ignored[0])
    rows = rows[np.argsort(half.truth_image[rows], kind="stable")]
    of_image = np.bincount(half.truth_image[rows], minlength=len(half.image_ids))
    starts = np.cumsum(of_image) - of_image
    verdict = np.full(len(wrong), BACKGROUND_CLAIM, dtype=np.int8)
    truth = np.full(len(wrong), -1, dtype=np.int64)
    # Images with equally many ground truths stand together, so that a table of pairs has few empty places.
    number = of_image[half.image[wrong]]
    order = np.argsort(number, kind="stable")
    order = order[np.searchsorted(number[order], 1) :]
    while len(order):
        # The most crowded last, a chunk from the end: its widest row sets the width.
        chunk = order[-max(1, PAIRS_AT_ONCE // int(number[order[-1]])) :]
        order = order[: -len(chunk)]
        found = wrong[chunk]
        places = np.arange(number[chunk].max())
        exists = places < number[chunk][:, None]
        beside = rows[np.where(exists, starts[half.image[found]][:, None] + places, 0)]
        iou = np.where(exists, box_iou(boxes[found][:, None], truth_boxes[beside]), 0.0)
        own = half.truth_label[beside] == half.label[found][:, None]
        verdict[chunk], best = _verdict(iou, own, used[beside])
        truth[chunk] = np.where(best >= 0, beside[np.arange(len(chunk)), best], -1)
    return verdict, truth


def _verdict(
    iou: NDArray[np.float64], own: NDArray[np.bool_], used: NDArray[np.bool_]
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """From (K, G) pairs of detections and ground truths of their image: verdicts, and columns or -1.

    own: of the detection's class. used: matched to another detection.
    """
    # In the order of TIDE's code, whose localisation includes an IoU of 0.5 itself (quantify.py).
    same, other, taken = iou * own, iou * ~own, iou * (own & used)
    tops = [(values.max(axis=1), values.argmax(axis=1)) for values in (same, other, taken, iou)]
    (same_top, same_at), (other_top, other_at), (taken_top, taken_at), (top, at) = tops
    conditions = [
        (same_top >= BACKGROUND) & (same_top <= FOREGROUND),
        other_top >= FOREGROUND,
        taken_top >= FOREGROUND,
        top <= BACKGROUND,
    ]
    verdict = np.select(conditions, [LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND_CLAIM], BOTH)
    return verdict.astype(np.int8), np.select(conditions, [same_at, other_at, taken_at, -1], at)
