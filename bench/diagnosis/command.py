"""From a data set to the content of diagnosis.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.data.dataset import Dataset
from bench.data.pixels import open_pixels
from bench.detector.ssd import SSD
from bench.detector.transfer import check_taken
from bench.device.hardware import available_cores
from bench.diagnosis.diagnose import diagnose
from bench.diagnosis.findings import findings
from bench.diagnosis.scores import score
from bench.diagnosis.suspects import KINDS
from bench.errors import UserError
from bench.evaluation.coco_format import detections_coco
from bench.evaluation.inference import detect_all
from bench.spec import DetectorSpec, Numerics
from bench.storage.atomic import write_json
from bench.training.setup import configure

SCHEMA = 1


def detect_with_checkpoint(data: Dataset, detector: DetectorSpec, path: Path) -> int:
    """Run the trained SSD `detector.weights` on the validation split and write COCO results to `path`.

    Returns the number of classes of the data that the checkpoint knows. Raises UserError if the weights are
    not an SSD's, do not fit `detector`, or know none of the classes.
    """
    known = sum(output > 0 for output in detector.class_outputs)
    if not known:
        raise UserError(
            f"--weights {detector.weights}: "
            + (
                "its classifier has none of the data's classes. Use the class names of COCO or VOC"
                if detector.class_outputs
                else "not a state dict of torchvision's ssd300_vgg16. A backbone alone cannot detect objects"
            )
        )
    numerics = Numerics(device="cpu", precision="float32", threads=available_cores())
    configure(numerics)
    model = SSD(detector, seed=0)
    check_taken(model, model.taken_over, detector.weights)
    model = model.eval().to(memory_format=torch.channels_last)
    detections = detect_all(model, data.val, open_pixels(data.pixels, data.val), numerics)
    # A class missing from the checkpoint has untrained outputs, so its detections mean nothing.
    detections = detections.take(np.array(detector.class_outputs)[detections.labels] > 0)
    write_json(path, detections_coco(detections, data.val), indent=None)
    return known


def diagnose_data(
    data: Dataset,
    detector: DetectorSpec,
    description: Mapping[str, Any],
    *,
    detections: Path | None = None,
    skip_unknown: bool = False,
) -> dict[str, Any]:
    """Return the content of diagnosis.json.

    It holds `description`, the fields of Diagnosis, the ranked findings (sentence, numbers, remedy), the
    meaning of each kind of suspect, and the scores of the file `detections` (None without one).
    skip_unknown: leave out detections on images that the data do not have.
    Raises UserError if that file cannot be scored.
    """
    scored = (
        None
        if detections is None
        else score(detections, data.val, detector, data=data.index, skip_unknown=skip_unknown)
    )
    files = data.index.files
    leaking = [(files[val], files[train]) for val, train in data.report.leaking.tolist()]
    diagnosis = diagnose(data.train, data.val, detector, leaking=leaking)
    return {
        "schema": SCHEMA,
        **description,
        **asdict(diagnosis),
        "findings": [asdict(each) | {"sentence": each.sentence} for each in findings(diagnosis)],
        "suspect_kinds": KINDS,
        "detections": scored,
    }
