"""The detector of a finished cell, with its trained weights."""

from __future__ import annotations

from pathlib import Path

import torch

from bench.detector.ssd import SSD
from bench.errors import UserError
from bench.spec import DetectorSpec


def trained_detector(spec: DetectorSpec, weights: Path) -> SSD:
    """The detector of `spec` with the weights of a cell, in evaluation mode, on the CPU.

    Raises UserError if the file is missing or its weights were trained with other priors.
    """
    if not weights.is_file():
        raise UserError(
            f"{weights} is missing: this cell's weights were deleted. Delete its record.json and resume the run"
        )
    model = SSD(spec, seed=0)
    content = torch.load(weights, map_location="cpu", weights_only=True)
    if content["priors"] != model.priors_fingerprint():
        raise UserError(f"{weights}: these weights were trained with other priors than the record states")
    model.load_state_dict(content["model"])
    return model.eval()
