"""Run a detector over a whole split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bench.data.index import ImageIndex
from bench.data.pixels import PixelSource
from bench.data.warp import whole_images
from bench.detector.ssd import SSD
from bench.device.precision import autocast
from bench.evaluation.detections import Detections
from bench.spec import Numerics

BATCH = 16


def detect_all(
    model: SSD,
    index: ImageIndex,
    pixels: PixelSource,
    numerics: Numerics,
    *,
    alive: Callable[[], None] = lambda: None,
) -> Detections:
    """Detections on all images of `index`, boxes in original pixels.

    model: in evaluation mode, on `numerics.device`. alive: called before every batch.
    """
    parts: list[tuple[Any, ...]] = []
    with torch.inference_mode(), autocast(numerics):
        for start in range(0, len(index), BATCH):
            alive()
            rows = range(start, min(start + BATCH, len(index)))
            images = whole_images(pixels, rows, model.spec.size, workers=numerics.threads)
            detections = model.detect(images.to(numerics.device))
            image = detections.image.cpu().numpy() + start
            boxes = detections.boxes.cpu().numpy() * np.tile(index.sizes, 2)[image]
            parts.append((image, boxes, detections.scores.cpu().numpy(), detections.labels.cpu().numpy()))
    image, boxes, scores, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Detections(
        image=image.astype(np.int64),
        boxes=boxes.astype(np.float32),
        scores=scores.astype(np.float32),
        labels=labels.astype(np.int32),
    )
