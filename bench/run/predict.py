"""Draw what a trained cell sees on images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image

from bench.analysis.run_records import Run, load_run
from bench.data.augment import WHOLE
from bench.data.decode import decode
from bench.data.drawing import draw_boxes
from bench.data.warp import warp
from bench.detector.ssd import SSD
from bench.errors import UserError, nearest
from bench.spec import detector_from
from bench.storage.records import read_json


def draw_predictions(
    run_folder: Path, images: Sequence[Path], *, variant: str | None, threshold: float, folder: Path
) -> list[Path]:
    """Write each image with its detections of at least `threshold` as PNG into `folder`; the files.

    variant: a row of the table; by default that of the highest AP. Of several seeds the first is taken.
    Raises UserError if the run has no such finished cell, or an image cannot be read.
    """
    run = load_run(run_folder)
    cell_id = finished_cell(run, variant)
    model = load_detector(run, cell_id)
    truth = read_json(run_folder / "ground_truth.json") or {"categories": []}
    classes = [category["name"] for category in truth["categories"]]
    folder.mkdir(parents=True, exist_ok=True)
    written, names = [], Counter[str]()
    for path in images:
        pixels = decode(path)
        warped = torch.from_numpy(warp(pixels, WHOLE, model.spec.size)[0]).permute(2, 0, 1)[None]
        with torch.inference_mode():
            found = model.detect(warped)
        shown = found.scores >= threshold
        scale = np.tile(np.array(pixels.shape[1::-1]), 2)
        picture = Image.fromarray(pixels)
        labels, scores = found.labels[shown].tolist(), found.scores[shown].tolist()
        texts = [f"{classes[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
        draw_boxes(picture, found.boxes[shown].numpy() * scale, texts, labels)
        names[path.stem] += 1
        number = f"-{names[path.stem]}" if names[path.stem] > 1 else ""  # images of one name in several folders
        target = folder / f"{path.stem}{number}.{run.records[cell_id]['variant']}.png"
        picture.save(target)
        written.append(target)
    return written


def finished_cell(run: Run, variant: str | None) -> str:
    """The id of the finished cell that was asked for, or of the best one."""
    done = [(cell, record) for cell, record in run.done() if variant in (None, cell.variant)]
    if not done:
        finished = sorted({cell.variant for cell, _ in run.done()}) or ["none"]
        hint = nearest(variant or "", finished)
        raise UserError(
            f"{run.folder} has no finished cell of {variant or 'any variant'}{hint}; finished: {', '.join(finished)}"
        )
    if variant is None:
        found: dict[str, list[float]] = {}
        for cell, record in done:
            found.setdefault(cell.variant, []).append(record["accuracy"]["AP"] or 0.0)
        variant = max(found, key=lambda name: fmean(found[name]))
    return next(cell.id for cell, _ in done if cell.variant == variant)


def load_detector(run: Run, cell_id: str) -> SSD:
    """The detector of a finished cell with its trained weights, in evaluation mode, on the CPU.

    Raises UserError where the weights are gone or belong to other priors.
    """
    path = run.folder_of(cell_id) / "weights.pt"
    if not path.is_file():
        raise UserError(f"{path} is missing: the cell's weights were removed; run it again")
    spec = detector_from(run.records[cell_id]["detector"])
    model = SSD(spec, seed=0)
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content["priors"] != model.priors_fingerprint():
        raise UserError(f"{path}: was trained with other priors than its record says")
    model.load_state_dict(content["model"])
    return model.eval()
