"""A miniature cell, from image files to boxes: torchvision's SSD trained and evaluated its own way, and ours."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.models.detection.ssd import SSD as TorchvisionSSD

from bench.data.batches import TrainingBatches
from bench.data.index import ImageIndex
from bench.data.pixels import open_pixels
from bench.detector.ssd import SSD
from bench.device.precision import autocast
from bench.evaluation.inference import detect_all
from bench.spec import Numerics, TrainSpec
from bench.speed.comparison import AS_SHIPPED, AT_ITS_BEST, OURS, plain_training, torchvision_as_shipped
from bench.speed.interleaved import Budget, Contender, measure_interleaved, paired_ratios, ratio_columns
from bench.speed.torchvision_peer import (
    torchvision_image,
    torchvision_optimiser,
    torchvision_preparation,
    torchvision_ssd,
    torchvision_step,
)
from bench.training.trainer import Trainer

STEPS = 4
SCORED = 16  # validation images; in the quick profile about as many belong to four steps
_Key = tuple[str, str]  # contender and precision


def measure_miniature_cells(
    model: SSD,
    train: ImageIndex,
    val: ImageIndex,
    pixels: Path | None,
    training: TrainSpec,
    *,
    numerics: Sequence[Numerics],
    fill: tuple[float, float, float],
    budget: Budget,
) -> list[dict[str, Any]]:
    """A row for each contender and precision: the time of `STEPS` steps from files and of detection on `SCORED` images.

    pixels: the file of decoded images; None to decode on demand. torchvision's images come from as many worker
    processes as we have threads, which persist between calls. Training is SGD with momentum on every weight, as in
    `measure_comparison`. Start-up, AP and measuring speed are not included.
    """
    work = _Work(
        train=train,
        val=val.take(np.arange(min(SCORED, len(val)))),
        pixels=pixels,
        training=training,
        size=model.spec.size,
        fill=fill,
    )
    theirs = partial(_their_cell, torchvision_ssd(model), work)
    with torchvision_as_shipped(theirs, numerics[0]) as as_shipped:
        cells = dict(as_shipped)
        for each in numerics:
            cells |= theirs(each, AT_ITS_BEST)
        for each in numerics:
            cells |= _our_cell(model, work, each)
        device = torch.device(numerics[0].device)
        timings = measure_interleaved(cells, device=device, budget=replace(budget, warmup=1), reference=_as_shipped)
    ratios = paired_ratios(timings, _as_shipped)
    return [
        {
            "contender": name,
            "precision": precision,
            "steps": STEPS,
            "batch": training.batch,
            "scored_images": len(work.val),
            "samples": timing.n,
            "p50_ms": 1000 * timing.p50,
            "iqr_ms": 1000 * (timing.percentile(75) - timing.percentile(25)),
            **ratio_columns(ratios.get((name, precision)), "times_as_fast"),
        }
        for (name, precision), timing in timings.items()
    ]


def _as_shipped(_: _Key) -> _Key:
    return AS_SHIPPED, "float32"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """The inputs of all contenders."""

    train: ImageIndex
    val: ImageIndex
    pixels: Path | None
    training: TrainSpec
    size: int
    fill: tuple[float, float, float]

    def contender(self, call: Callable[[], object]) -> Contender:
        return Contender(call=call, batch=STEPS * self.training.batch + len(self.val))


def _our_cell(model: SSD, work: _Work, numerics: Numerics) -> dict[_Key, Contender]:
    plain = plain_training(work.training)
    trainer = Trainer(copy.deepcopy(model).train(), plain, numerics)
    batches = TrainingBatches(
        work.train,
        open_pixels(work.pixels, work.train),
        work.training.augment,
        seed=0,
        batch=work.training.batch,
        size=work.size,
        fill=work.fill,
        workers=numerics.threads,
        device=numerics.device,
    )
    shown = open_pixels(work.pixels, work.val)

    def call() -> object:
        trainer.model.train()
        for images, targets in batches.steps(0, STEPS):
            trainer.step(plain.steps - 1, images, targets.to(numerics.device))
        trainer.model.eval()
        return detect_all(trainer.model, work.val, shown, numerics)

    return {(OURS, numerics.precision): work.contender(call)}


def _their_cell(source: TorchvisionSSD, work: _Work, numerics: Numerics, name: str) -> dict[_Key, Contender]:
    layout = torch.channels_last if numerics.channels_last else torch.contiguous_format
    detector = copy.deepcopy(source).to(numerics.device).to(memory_format=layout)
    optimiser = torchvision_optimiser(detector, plain_training(work.training), fused=name == AT_ITS_BEST)
    samples = TrainingViews(work.train, work.size, work.fill)
    workers = numerics.threads if numerics.threads > 1 else 0
    common: dict[str, Any] = {
        "batch_size": work.training.batch,
        "collate_fn": list,
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "multiprocessing_context": "forkserver" if workers else None,
    }
    views = DataLoader(
        samples, sampler=RandomSampler(samples, replacement=True, num_samples=STEPS * work.training.batch), **common
    )
    whole = DataLoader(WholeImages(work.val), **common)

    def call() -> object:
        detector.train()
        for batch in views:
            images = [image.to(numerics.device) / 255 for image, _ in batch]
            # The time does not depend on the labels
            targets = [
                {"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64, device=boxes.device)}
                for boxes in (boxes.to(numerics.device) for _, boxes in batch)
            ]
            torchvision_step(detector, optimiser, images, targets, autocast(numerics))
        detector.eval()
        with torch.inference_mode(), autocast(numerics):
            return [detector([image.to(numerics.device) / 255 for image in batch]) for batch in whole]

    return {(name, numerics.precision): work.contender(call)}


class TrainingViews(Dataset[tuple[Tensor, Tensor]]):
    """Training views by torchvision's transforms: (3, S, S) uint8 and boxes (G, 4) xyxy in pixels."""

    def __init__(self, index: ImageIndex, size: int, fill: tuple[float, float, float]) -> None:
        self.index, self.size, self.fill = index, size, fill
        self.prepare: Callable[[Path, Tensor], tuple[Tensor, Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        # Created in the worker process: it cannot be pickled
        self.prepare = self.prepare or torchvision_preparation(self.size, self.fill)
        boxes = self.index.boxes[slice(*self.index.offsets[row : row + 2])]
        return self.prepare(self.index.root / self.index.files[row], torch.from_numpy(boxes).float())


class WholeImages(Dataset[Tensor]):
    """Whole images (3, H, W) uint8, which torchvision's detector resizes."""

    def __init__(self, index: ImageIndex) -> None:
        self.index = index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> Tensor:
        return torchvision_image(self.index.root / self.index.files[row])
