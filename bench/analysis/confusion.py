"""Which class is taken for which."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.error_types import CLASSIFICATION, IGNORED, TRUE, ErrorTypes
from bench.evaluation.matches import Matches

THRESHOLD = 0.4  # lowest score of a claim: that of `run_all.py predict`


def confusion_matrix(matches: Matches, types: ErrorTypes, *, threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """(C + 1, C + 1) ground truths by their class (rows) and the class claimed for them (columns).

    Detections of at least the score `threshold` count. Each ground truth stands in one place: that of the best
    detection that overlaps it by an IoU of at least 0.5, a true one or a classification error; in the last column
    where there is none. In the last row are the detections that no ground truth was left for: wrong places,
    duplicates, background. What is ignored counts nowhere.
    """
    classes = len(matches.classes)
    shown = (matches.score >= threshold) & (types.verdict != IGNORED)
    counted = ~matches.truth_ignored[matches.areas.index("all")]
    claims = np.flatnonzero(shown & ((types.verdict == TRUE) | (types.verdict == CLASSIFICATION)))
    order = claims[np.lexsort((matches.detection[claims], -matches.score[claims]))]
    truths, first = np.unique(types.truth[order], return_index=True)
    best = order[first]
    table = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    np.add.at(table, (matches.truth_label[truths], matches.label[best]), 1)
    stray = shown.copy()
    stray[best] = False
    table[classes, :classes] = np.bincount(matches.label[stray], minlength=classes)
    unclaimed = counted.copy()
    unclaimed[truths] = False
    table[:classes, classes] = np.bincount(matches.truth_label[unclaimed], minlength=classes)
    return table
