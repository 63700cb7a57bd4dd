"""Draw the detections of a trained cell on images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image

from bench.analysis.run_records import Run, load_run, weights_checksum
from bench.data.augment import WHOLE
from bench.data.decode import decode
from bench.data.drawing import draw_boxes
from bench.data.warp import warp
from bench.detector.ssd import SSD
from bench.errors import UserError, nearest
from bench.options import PredictOptions
from bench.spec import detector_from
from bench.storage.atomic import replacing
from bench.storage.own_files import output_folder
from bench.storage.reading import RERUN_CELL, Unreadable
from bench.storage.records import read_ground_truth
from bench.storage.run_folder import GROUND_TRUTH, PREDICTIONS, RECORD, WEIGHTS
from bench.training.trained import trained_detector


def draw_predictions(options: PredictOptions) -> list[Path]:
    """Write each image with its detections as PNG; the files.

    By default the variant with the highest AP detects; of several seeds the first.
    Raises UserError if the run has no such finished cell, if the folder for the files is not ours (`check_output`), or
    if an image cannot be read.
    """
    run = load_run(options.run)
    cell_id = finished_cell(run, options.variant)
    model = load_detector(run, cell_id)
    path = options.run / GROUND_TRUTH
    truth = read_ground_truth(path) if path.is_file() else {"categories": []}
    classes = [category["name"] for category in truth["categories"]]
    variant = next(cell.variant for cell in run.cells if cell.id == cell_id)
    folder = options.out or options.run / PREDICTIONS
    written, names = [], Counter[str]()
    with output_folder(folder):
        for path in options.images:
            names[path.stem] += 1
            number = (
                f"-{names[path.stem]}" if names[path.stem] > 1 else ""
            )  # images of the same name in several folders
            target = folder / f"{path.stem}{number}.{variant}.png"
            drawn = _drawn(path, model, classes, options.threshold)
            with replacing(target) as file:
                drawn.save(file, format="PNG")
            written.append(target)
    return written


def _drawn(path: Path, model: SSD, classes: Sequence[str], threshold: float) -> Image.Image:
    """The image in `path` with the boxes that have at least the score `threshold`."""
    pixels = decode(path)
    warped = torch.from_numpy(warp(pixels, WHOLE, model.spec.size)[0]).permute(2, 0, 1)[None]
    with torch.inference_mode():
        found = model.detect(warped)
    shown = found.scores >= threshold
    scale = np.tile(np.array(pixels.shape[1::-1]), 2)
    image = Image.fromarray(pixels)
    labels, scores = found.labels[shown].tolist(), found.scores[shown].tolist()
    # A partial copy of a run has no names
    names = [classes[label] if label < len(classes) else f"class {label}" for label in labels]
    texts = [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
    draw_boxes(image, found.boxes[shown].numpy() * scale, texts, labels)
    return image


def finished_cell(run: Run, variant: str | None) -> str:
    """The id of the first finished cell of `variant`, by default of the variant with the highest mean AP."""
    wanted = None if variant is None else variant.casefold()
    done = [(cell, record) for cell, record in run.done() if wanted in (None, cell.variant.casefold())]
    if not done:
        finished = sorted({cell.variant for cell, _ in run.done()}) or ["none"]
        hint = nearest(variant or "", finished)
        raise UserError(
            f"{run.folder} has no finished cell of {variant or 'any variant'}{hint}; finished: {', '.join(finished)}"
        )
    if variant is None:
        by_variant: dict[str, list[float]] = {}
        for cell, record in done:
            by_variant.setdefault(cell.variant, []).append((record.get("accuracy") or {}).get("AP") or 0.0)
        variant = max(by_variant, key=lambda name: fmean(by_variant[name]))
        return next(cell.id for cell, _ in done if cell.variant == variant)
    return done[0][0].id


def load_detector(run: Run, cell_id: str) -> SSD:
    """The detector of a finished cell with its trained weights, in evaluation mode, on the CPU.

    Raises UserError if the weights are missing or damaged, or were trained with other priors.
    """
    record, weights = run.records[cell_id], run.folder_of(cell_id) / WEIGHTS
    try:
        spec = detector_from(record["detector"])
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(run.folder_of(cell_id) / RECORD, f"its detector is not ours: {error}", RERUN_CELL) from error
    return trained_detector(spec, weights, weights_checksum(record))
