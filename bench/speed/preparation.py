"""From files to augmented training batches on one core: torchvision's transforms and ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.batches import TrainingBatches, rows_of_step
from bench.data.index import ImageIndex
from bench.data.pixels import DecodedFile, DecodedOnDemand, PixelSource
from bench.spec import AugmentSpec
from bench.speed.interleaved import Budget, Contender, measure_interleaved, paired_ratios, ratio_columns
from bench.speed.torchvision_peer import torchvision_preparation

TORCHVISION = "torchvision.transforms.v2"
DECODING, DECODED = "ours, decoding", "ours, decoded once"
IMAGES = 64  # few enough that all of them come from the page cache
BATCH = 16


def measure_preparation(
    train: ImageIndex,
    pixels: Path | None,
    augment: AugmentSpec,
    *,
    size: int,
    fill: tuple[float, float, float],
    budget: Budget,
) -> list[dict[str, Any]]:
    """A row for each contender: milliseconds that one core takes for a batch (B, 3, S, S) with its boxes.

    pixels: the file of decoded images; without it there is no row for images decoded once. Both sides augment as SSD
    does. torchvision decodes an image whenever it is requested, as its data sets do.
    """
    train = train.take(np.arange(min(IMAGES, len(train))))

    def ours(source: PixelSource) -> Callable[[], object]:
        batches = TrainingBatches(train, source, augment, seed=0, batch=BATCH, size=size, fill=fill, workers=1)
        steps = count()

        def call() -> object:
            rows, epochs = rows_of_step(next(steps), batch=BATCH, images=len(train), seed=0)
            pairs = zip(rows.tolist(), epochs.tolist(), strict=True)
            return batches.collate([batches.sample(row, epoch) for row, epoch in pairs])

        return call

    def theirs() -> Callable[[], object]:
        prepare = torchvision_preparation(size, fill)
        steps = count()

        def call() -> object:
            rows, _ = rows_of_step(next(steps), batch=BATCH, images=len(train), seed=0)
            pairs = [prepare(train.root / train.files[row], _boxes(train, row)) for row in rows.tolist()]
            return torch.stack([image for image, _ in pairs]), [boxes for _, boxes in pairs]

        return call

    def torchvision(_: str) -> str:
        return TORCHVISION

    calls = {TORCHVISION: theirs(), DECODING: ours(DecodedOnDemand(train))}
    if pixels is not None:
        calls[DECODED] = ours(DecodedFile(pixels, train))
    with _one_thread():
        timings = measure_interleaved(
            {name: Contender(call=call, batch=BATCH) for name, call in calls.items()},
            device=torch.device("cpu"),
            budget=budget,
            reference=torchvision,
        )
    ratios = paired_ratios(timings, torchvision)
    return [
        {
            "contender": name,
            "batch": BATCH,
            "samples": timing.n,
            "p50_ms": 1000 * timing.p50,
            "iqr_ms": 1000 * (timing.percentile(75) - timing.percentile(25)),
            "images_per_second": timing.images_per_second,
            **ratio_columns(ratios.get(name), "times_as_fast"),
        }
        for name, timing in timings.items()
    ]


def _boxes(index: ImageIndex, row: int) -> Tensor:
    """(G, 4) xyxy in pixels."""
    return torch.from_numpy(index.boxes[slice(*index.offsets[row : row + 2])]).float()


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
