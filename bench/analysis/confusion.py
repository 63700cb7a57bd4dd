"""The confusion matrix: which class is mistaken for which."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.error_types import CLASSIFICATION, IGNORED, TRUE, ErrorTypes
from bench.evaluation.matches import Matches

THRESHOLD = 0.4  # score threshold, the same as in `run_all.py predict`


def confusion_matrix(matches: Matches, types: ErrorTypes, *, threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """(C + 1, C + 1) counts of ground truths by their class (rows) and by the predicted class (columns).

    Uses detections with a score of at least `threshold`. Each ground truth counts once: under the class of the
    highest-scoring detection that overlaps it with IoU >= 0.5 (true positive or classification error), or in the
    last column if there is none. The last row counts the remaining detections: localisation errors, duplicates,
    background. Ignored detections and ground truths are not counted.
    """
    classes = len(matches.classes)
    shown = (matches.score >= threshold) & (types.verdict != IGNORED)
    used = ~matches.truth_ignored[matches.areas.index("all")]
    predictions = np.flatnonzero(shown & ((types.verdict == TRUE) | (types.verdict == CLASSIFICATION)))
    order = predictions[np.lexsort((matches.detection[predictions], -matches.score[predictions]))]
    truths, first = np.unique(types.truth[order], return_index=True)
    best = order[first]
    table = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    np.add.at(table, (matches.truth_label[truths], matches.label[best]), 1)
    unmatched = shown.copy()
    unmatched[best] = False
    table[classes, :classes] = np.bincount(matches.label[unmatched], minlength=classes)
    missed = used.copy()
    missed[truths] = False
    table[:classes, classes] = np.bincount(matches.truth_label[missed], minlength=classes)
    return table
