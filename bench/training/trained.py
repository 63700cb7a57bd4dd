"""The trained weights of a finished cell: written with a checksum, loaded if they match it."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch

from bench.detector.ssd import SSD
from bench.errors import UserError
from bench.spec import DetectorSpec
from bench.storage.atomic import replacing

REMEDY = "Restore the file, or delete record.json beside it and resume the run: the cell is trained again"


def save_trained(model: SSD, path: Path) -> str:
    """Write the weights of a trained detector; returns the SHA-256 of the file, for the cell's record."""
    buffer = io.BytesIO()
    torch.save({"priors": model.priors_fingerprint(), "model": model.state_dict()}, buffer)
    with replacing(path) as file:
        file.write(buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def trained_detector(spec: DetectorSpec, weights: Path, checksum: str | None) -> SSD:
    """The detector of `spec` with the weights of a cell, in evaluation mode, on the CPU.

    checksum: of the file, from the cell's record; None if an earlier version wrote the record.
    Raises UserError if the file is missing, damaged or not the cell's, or its weights were trained with other priors.
    """
    if not weights.is_file():
        raise UserError(
            f"{weights} is missing: this cell's weights were deleted. Delete its record.json and resume the run"
        )
    try:
        data = weights.read_bytes()
    except OSError as error:
        raise UserError(f"{weights} cannot be read ({error.strerror}). {REMEDY}") from error
    if checksum is not None and hashlib.sha256(data).hexdigest() != checksum:
        raise UserError(f"{weights}: its {len(data)} bytes do not match the checksum in the cell's record. {REMEDY}")
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        priors, state = content["priors"], content["model"]
    except Exception as error:  # torch raises errors of many kinds for a file that is cut or of another format
        raise UserError(f"{weights} does not hold the weights of a cell. {REMEDY}") from error
    model = SSD(spec, seed=0)
    if priors != model.priors_fingerprint():
        raise UserError(f"{weights}: these weights were trained with other priors than the record states. {REMEDY}")
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{weights}: these weights do not fit the detector that the record states. {REMEDY}") from error
    return model.eval()
