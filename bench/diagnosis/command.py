"""From opened data to the content of diagnosis.json."""

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
from bench.diagnosis import diagnose
from bench.diagnosis.findings import findings
from bench.diagnosis.scores import score
from bench.diagnosis.suspects import KINDS
from bench.errors import UserError
from bench.evaluation.coco_format import detections_coco
from bench.evaluation.inference import detect_all
from bench.run.numerics import available_cores, configure
from bench.spec import DetectorSpec, Numerics
from bench.storage.atomic import write_json

SCHEMA = 1


def detect_with_checkpoint(data: Dataset, detector: DetectorSpec, path: Path) -> int:
    """Write what the trained SSD that `detector` names finds on the validation split, in COCO's results format.

    Returns how many classes it knows. Raises UserError where its weights are no SSD's, do not fit, or know none.
    """
    known = sum(output > 0 for output in detector.class_outputs)
    if not known:
        raise UserError(
            f"--weights {detector.weights}: "
            + (
                "no class of the data is an output of its classifier; names must be those of COCO or VOC"
                if detector.class_outputs
                else "not a state dict of torchvision's ssd300_vgg16; a backbone alone finds nothing"
            )
        )
    numerics = Numerics(device="cpu", precision="float32", threads=available_cores())
    configure(numerics)
    model = SSD(detector, seed=0)
    check_taken(model, model.taken_over, detector.weights)
    model = model.eval().to(memory_format=torch.channels_last)
    found = detect_all(model, data.val, open_pixels(data.pixels, data.val), numerics)
    # A class that the file does not know has an untrained row, whose detections mean nothing.
    found = found.take(np.array(detector.class_outputs)[found.labels] > 0)
    write_json(path, detections_coco(found, data.val), indent=None)
    return known


def diagnose_data(
    data: Dataset, detector: DetectorSpec, description: Mapping[str, Any], *, detections: Path | None = None
) -> dict[str, Any]:
    """The content of diagnosis.json: `description`, the fields of Diagnosis, the ranked findings with sentence,
    numbers and remedy, what the kinds of suspects mean, and the figures of a file of `detections` or None.

    Raises UserError where that file cannot be scored.
    """
    scored = None if detections is None else score(detections, data.val, detector)
    files = data.index.files
    leaking = [(files[val], files[train]) for val, train in data.report.leaking.tolist()]
    diagnosis = diagnose(data.train, data.val, detector, leaking=leaking)
    found = [asdict(each) | {"sentence": each.sentence} for each in findings(diagnosis)]
    return {
        "schema": SCHEMA,
        **description,
        **asdict(diagnosis),
        "findings": found,
        "suspect_kinds": KINDS,
        "detections": scored,
    }
