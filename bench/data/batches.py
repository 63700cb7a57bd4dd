"""From an index to batches: which images, seen through which views, with which targets.

What batch a step sees is a pure function of (seed, step): it depends neither on the arm, nor on the
number of workers, nor on whether the run was interrupted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.cpu.photometric import distorted
from bench.data.augment import (
    Photometric,
    boxes_in_view,
    distort,
    draw_photometric,
    draw_view,
    generator_of,
)
from bench.data.index import ImageIndex
from bench.data.pixels import PixelSource
from bench.data.targets import Targets
from bench.data.warp import Placement, placement, warp, warp_together
from bench.spec import AugmentSpec

ORDER_STREAM = 0  # first word of the seed of the order, apart from that of the augmentation
BATCHES_AHEAD = 3


@dataclass(frozen=True)
class Sample:
    """One image as the network will see it, before the photometric part.

    pixels: (S, S, 3) uint8. inside: (4,) xyxy in whole pixels, the part that is image and not fill.
    finished: (S, S, 3) float32, with photometric part and fill, where these are made sample by sample.
    placed: where the batch is warped together; `pixels` then are those that it cuts out of the image.
    """

    pixels: NDArray[np.uint8]
    inside: tuple[int, int, int, int]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    photometric: Photometric
    finished: NDArray[np.float32] | None = None
    placed: Placement | None = None


def rows_of_step(step: int, *, batch: int, images: int, seed: int) -> NDArray[np.int64]:
    """(batch,) rows of the training index at `step`, and (batch,) their epochs: (2, batch).

    One endless stream of permutations, cut into batches: no image is ever left out.
    """
    place = step * batch + np.arange(batch)
    epoch, within = np.divmod(place, images)
    rows = np.empty(batch, dtype=np.int64)
    for each in np.unique(epoch):
        order = np.random.default_rng((ORDER_STREAM, seed, int(each))).permutation(images)
        rows[epoch == each] = order[within[epoch == each]]
    return np.stack((rows, epoch))


class TrainingBatches:
    """Augmented batches from `first` to `last` step, prepared by threads while the network computes.

    cpu_kernels: CPU kernels make the photometric part sample by sample, in those threads; else torch makes it batch
        by batch. They agree but for rounding.
    device: where the batches are wanted.
    together: that device warps a batch at once, too; else the threads do, image by image. By default on CUDA alone.
    """

    def __init__(
        self,
        index: ImageIndex,
        pixels: PixelSource,
        augment: AugmentSpec,
        *,
        seed: int,
        batch: int,
        size: int,
        fill: tuple[float, float, float],
        workers: int,
        cpu_kernels: bool = False,
        device: str = "cpu",
        together: bool | None = None,
    ) -> None:
        self.index, self.pixels, self.augment = index, pixels, augment
        self.seed, self.batch, self.size, self.workers = seed, batch, size, workers
        self.device, self.together = device, device != "cpu" if together is None else together
        self.fill = torch.tensor(fill, device=device).view(1, 3, 1, 1)
        self.boxes = index.fractions()
        self.distorted = distorted if cpu_kernels else None

    def steps(self, first: int, last: int) -> Generator[tuple[Tensor, Targets], None, None]:
        """Images (B, 3, S, S) float32 of 0 to 255, channels last, on the device, and their targets, step by step."""
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque[list[Future[Sample]]] = deque()
            try:
                for step in range(first, last):
                    while len(waiting) < BATCHES_AHEAD and step + len(waiting) < last:
                        waiting.append(self._submit(pool, step + len(waiting)))
                    yield self.collate([future.result() for future in waiting.popleft()])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def sample(self, row: int, epoch: int) -> Sample:
        """The image at `row` of the index as epoch `epoch` shows it."""
        generator = generator_of(self.seed, epoch, row)
        own = slice(*self.index.offsets[row : row + 2])
        boxes, crowd = self.boxes[own], self.index.crowd[own]
        view = draw_view(generator, boxes[~crowd], self.augment)
        photometric = draw_photometric(generator, self.augment)
        seen, stays = boxes_in_view(boxes, view, always=crowd)
        labels, crowd = self.index.labels[own][stays], crowd[stays]
        if self.together:
            image = self.pixels[row]
            placed = placement(view, image.shape[1], image.shape[0], self.size)
            part = placed.cut(image).copy()  # read from the disk here, not where the network waits
            return Sample(part, placed.inside, seen, labels, crowd, photometric, placed=placed)
        pixels, inside = warp(self.pixels[row], view, self.size)
        finished = None
        if self.distorted is not None:
            finished = self.distorted(pixels, photometric, inside, self.fill.flatten().cpu().numpy())
        return Sample(pixels, inside, seen, labels, crowd, photometric, finished)

    def collate(self, samples: list[Sample]) -> tuple[Tensor, Targets]:
        """Samples to one batch; unless they are finished, photometric part on all at once, the fill composited last."""
        finished = [sample.finished for sample in samples if sample.finished is not None]
        if len(finished) == len(samples):
            return torch.from_numpy(np.stack(finished)).permute(0, 3, 1, 2), targets_of(samples)
        placed = [sample.placed for sample in samples if sample.placed is not None]
        pixels = [sample.pixels for sample in samples]
        if placed:
            images = warp_together(pixels, placed, self.size, self.device)
        else:
            images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).to(self.device)
        # Plane by plane in memory, as the photometric part works on one channel beside another
        images = distort(images.contiguous().float(), [sample.photometric for sample in samples])
        if any(sample.inside != (0, 0, self.size, self.size) for sample in samples):
            place = torch.arange(self.size, device=self.device)
            borders = torch.tensor([sample.inside for sample in samples], device=self.device)
            left, top, right, bottom = borders.view(-1, 4, 1).unbind(1)
            columns = (place >= left) & (place < right)
            rows = (place >= top) & (place < bottom)
            images = torch.where(rows[:, None, :, None] & columns[:, None, None, :], images, self.fill)
        return images.contiguous(memory_format=torch.channels_last), targets_of(samples)

    def _submit(self, pool: ThreadPoolExecutor, step: int) -> list[Future[Sample]]:
        rows, epochs = rows_of_step(step, batch=self.batch, images=len(self.index), seed=self.seed)
        return [pool.submit(self.sample, int(row), int(epoch)) for row, epoch in zip(rows, epochs, strict=True)]


def targets_of(samples: list[Sample]) -> Targets:
    """Padded targets of a batch; labels count from 1, crowds and padding have 0."""
    most = max(1, *(len(sample.boxes) for sample in samples))
    boxes = np.zeros((len(samples), most, 4), dtype=np.float32)
    labels = np.zeros((len(samples), most), dtype=np.int64)
    crowd = np.zeros((len(samples), most), dtype=bool)
    for place, sample in enumerate(samples):
        count = len(sample.boxes)
        boxes[place, :count] = sample.boxes
        labels[place, :count] = np.where(sample.crowd, 0, sample.labels + 1)
        crowd[place, :count] = sample.crowd
    return Targets(torch.from_numpy(boxes), torch.from_numpy(labels), torch.from_numpy(crowd))
