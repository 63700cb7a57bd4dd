"""The metrics of a record beside COCO's, listed in `METRICS`."""

from __future__ import annotations

from collections.abc import Callable

from bench.data.index import ImageIndex
from bench.evaluation.coco import Accuracy
from bench.evaluation.detections import Detections
from bench.evaluation.voc import with_voc

# Each returns the accuracy with its own values added; a value is a fraction of 1, None if it does not exist.
METRICS: list[Callable[[Accuracy, ImageIndex, Detections], Accuracy]] = [with_voc]


def with_metrics(accuracy: Accuracy, index: ImageIndex, detections: Detections) -> Accuracy:
    """Add the values of all METRICS to `accuracy` from `evaluate`."""
    for add in METRICS:
        accuracy = add(accuracy, index, detections)
    return accuracy
