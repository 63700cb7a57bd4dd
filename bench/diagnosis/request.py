"""From opened data to the content of diagnosis.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.data.opened import OpenedData
from bench.diagnosis import diagnose
from bench.diagnosis.detections import score
from bench.diagnosis.findings import findings
from bench.diagnosis.suspects import KINDS
from bench.spec import DetectorSpec

SCHEMA = 1


def diagnose_data(
    data: OpenedData, detector: DetectorSpec, description: Mapping[str, Any], *, detections: Path | None = None
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
