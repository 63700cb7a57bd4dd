"""Training batches: which images, with which augmentation, and their targets.

The batch of a step is a pure function of (seed, step). It does not depend on the arm, the number of workers or
interruptions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.augment import boxes_in_view, draw_photometric, draw_view, generator_of, photometric
from bench.data.index import ImageIndex
from bench.data.pixels import PixelSource
from bench.data.targets import Targets
from bench.data.warp import warp
from bench.spec import AugmentSpec

ORDER_STREAM = 0  # first word of the seed, to separate the order from the augmentation
BATCHES_AHEAD = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One augmented image.

    pixels: (S, S, 3) float32 of 0 to 255. inside: xyxy in whole pixels, the part that is image and not fill.
    boxes: (G, 4) xyxy in fractions of the input. labels: (G,), from 0. crowd: (G,).
    """

    pixels: NDArray[np.float32]
    inside: tuple[int, int, int, int]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int32]
    crowd: NDArray[np.bool_]


def rows_of_step(step: int, *, batch: int, images: int, seed: int) -> NDArray[np.int64]:
    """(2, batch): the rows of the training index at `step`, and their epochs.

    An endless stream of permutations is cut into batches, so that no image is left out.
    """
    position = step * batch + np.arange(batch)
    epoch, within = np.divmod(position, images)
    rows = np.empty(batch, dtype=np.int64)
    for each in np.unique(epoch):
        order = np.random.default_rng((ORDER_STREAM, seed, int(each))).permutation(images)
        rows[epoch == each] = order[within[epoch == each]]
    return np.stack((rows, epoch))


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """Augmented batches, prepared by threads while the network computes.

    batch: images per step. size: side S of the network's input. fill: RGB of 0 to 255 outside an image.
    workers: threads. device: of the batches.
    """

    index: ImageIndex
    pixels: PixelSource
    augment: AugmentSpec
    _: KW_ONLY
    seed: int
    batch: int
    size: int
    fill: tuple[float, float, float]
    workers: int
    device: str = "cpu"

    def steps(self, first: int, last: int) -> Generator[tuple[Tensor, Targets], None, None]:
        """Yield images (B, 3, S, S) float32 of 0 to 255, channels last, and their targets for each step."""
        with ThreadPoolExecutor(self.workers) as pool:
            pending: deque[list[Future[Sample]]] = deque()
            try:
                for step in range(first, last):
                    while len(pending) < BATCHES_AHEAD and step + len(pending) < last:
                        pending.append(self._submit(pool, step + len(pending)))
                    yield self.collate([future.result() for future in pending.popleft()])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def sample(self, row: int, epoch: int) -> Sample:
        """The image at `row` of the index, augmented for `epoch`."""
        generator = generator_of(self.seed, epoch, row)
        objects = slice(*self.index.offsets[row : row + 2])
        boxes, crowd = self._boxes[objects], self.index.crowd[objects]
        view = draw_view(generator, boxes[~crowd], self.augment)
        distortions = draw_photometric(generator, self.augment)
        visible, stays = boxes_in_view(boxes, view, always=crowd)
        pixels, inside = warp(self.pixels[row], view, self.size)
        return Sample(
            pixels=photometric(pixels, distortions, inside, np.array(self.fill, dtype=np.float32)),
            inside=inside,
            boxes=visible,
            labels=self.index.labels[objects][stays],
            crowd=crowd[stays],
        )

    def collate(self, samples: list[Sample]) -> tuple[Tensor, Targets]:
        """Join samples to a batch on the device."""
        images = torch.from_numpy(np.stack([sample.pixels for sample in samples])).permute(0, 3, 1, 2)
        return images.to(self.device, non_blocking=True), targets_of(samples).to(self.device)

    @cached_property
    def _boxes(self) -> NDArray[np.float64]:
        """All boxes as fractions of their images."""
        return self.index.fractions()

    def _submit(self, pool: ThreadPoolExecutor, step: int) -> list[Future[Sample]]:
        rows, epochs = rows_of_step(step, batch=self.batch, images=len(self.index), seed=self.seed)
        return [pool.submit(self.sample, int(row), int(epoch)) for row, epoch in zip(rows, epochs, strict=True)]


def targets_of(samples: list[Sample]) -> Targets:
    """The padded targets of a batch. Labels count from 1; crowds and padding have 0."""
    max_boxes = max(1, *(len(sample.boxes) for sample in samples))
    boxes = np.zeros((len(samples), max_boxes, 4), dtype=np.float32)
    labels = np.zeros((len(samples), max_boxes), dtype=np.int64)
    crowd = np.zeros((len(samples), max_boxes), dtype=bool)
    for position, sample in enumerate(samples):
        count = len(sample.boxes)
        boxes[position, :count] = sample.boxes
        labels[position, :count] = np.where(sample.crowd, 0, sample.labels + 1)
        crowd[position, :count] = sample.crowd
    return Targets(torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(crowd))
