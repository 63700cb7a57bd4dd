"""The stages of inference, apart and together, on the same real images.

There are three: decoding and preprocessing, on the CPU with as many workers as the run has threads; the network; and
box decoding with NMS. The last two run on the device of the detector.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.data.pixels import PixelSource
from bench.data.warp import whole_images
from bench.detector.postprocess import BatchDetections, detect
from bench.device.clock import Timing
from bench.device.precision import autocast
from bench.spec import DetectorSpec, Numerics
from bench.speed.inference import batches_of
from bench.speed.interleaved import Budget, Contender, measure_interleaved

DECODE = "decode + preprocess"
NETWORK = "network"
BOXES = "box decoding + NMS"
TENSORS_TO_BOXES = "tensors to final boxes"
END_TO_END = "end to end"
STAGES = (DECODE, NETWORK, BOXES, TENSORS_TO_BOXES, END_TO_END)

Outputs = tuple[Tensor, Tensor]  # logits (N, P, C + 1) and offsets (N, P, 4)


class Detecting(Protocol):
    """What measuring needs of a detector; `bench.detector.ssd.SSD` has it."""

    spec: DetectorSpec
    priors: Tensor

    def __call__(self, images: Tensor) -> Outputs: ...

    def detect(self, images: Tensor) -> BatchDetections: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """The same N images as files and as tensors.

    files: decodes the file of a row, 0 to N - 1, whenever it is requested.
    tensors: (N, 3, S, S) uint8, on the device of the detector.
    """

    files: PixelSource
    tensors: Tensor


def measure_stages(
    model: Detecting,
    pictures: Pictures,
    *,
    numerics: Sequence[Numerics],
    batches: Sequence[int],
    synthetic: bool,
    budget: Budget,
) -> list[dict[str, Any]]:
    """A row for each stage, precision and batch size, interleaved, with the same number of images of each a round.

    numerics: differ only in their precision. synthetic: see `stage_calls`. Decoding has no precision. A row that ran
    out of memory has `samples` 0 and no times.
    """
    contenders: dict[tuple[str, str | None, int], Contender] = {}
    # CPU kernels cache the layout of the weights for one precision, so each precision needs its own model
    models = [copy.deepcopy(model) for _ in numerics]
    for batch in batches:
        for own, each in zip(models, numerics, strict=True):
            for stage, call in stage_calls(own, pictures, numerics=each, batch=batch, synthetic=synthetic).items():
                precision = None if stage == DECODE else each.precision
                contender = Contender(call=call, batch=batch, calls_per_round=max(1, max(batches) // batch))
                contenders.setdefault((stage, precision, batch), contender)
    timings = measure_interleaved(contenders, device=pictures.tensors.device, budget=budget)
    return [
        {
            "stage": stage,
            "precision": precision,
            "batch": batch,
            "workers": min(batch, numerics[0].threads) if stage in (DECODE, END_TO_END) else None,
            **timing_columns(timings.get((stage, precision, batch))),
        }
        for stage, precision, batch in sorted(contenders, key=lambda key: (STAGES.index(key[0]), key[1] or "", key[2]))
    ]


def stage_calls(
    model: Detecting, pictures: Pictures, *, numerics: Numerics, batch: int, synthetic: bool
) -> dict[str, Callable[[], object]]:
    """Calls of the stages by name, each on the next `batch` images, in cycles.

    synthetic: whether box decoding and NMS work on `synthetic_outputs` instead of the model's own outputs; an untrained
        model detects next to nothing.
    """
    spec, device = model.spec, pictures.tensors.device
    rows = batches_of(torch.arange(len(pictures.tensors)), batch)
    images = batches_of(pictures.tensors, batch)
    if synthetic:
        outputs = synthetic_outputs(spec, model.priors, len(pictures.tensors))
    else:
        outputs = own_outputs(model, pictures.tensors, numerics)
    logits, offsets = (batches_of(part, batch) for part in outputs)

    def load() -> Tensor:
        warped = whole_images(pictures.files, next(rows).tolist(), spec.size, workers=numerics.threads)
        return warped.to(device)

    def on_network(work: Callable[[], object]) -> Callable[[], object]:
        def call() -> object:
            with torch.inference_mode(), autocast(numerics):
                return work()

        return call

    return {
        DECODE: load,
        NETWORK: on_network(lambda: model(next(images))),
        BOXES: on_network(lambda: detect(spec, next(logits), next(offsets), model.priors)),
        TENSORS_TO_BOXES: on_network(lambda: model.detect(next(images))),
        END_TO_END: on_network(lambda: model.detect(load())),
    }


def own_outputs(model: Detecting, images: Tensor, numerics: Numerics) -> Outputs:
    """The model's outputs for images (N, 3, S, S), computed one image at a time to save memory."""
    with torch.inference_mode(), autocast(numerics):
        parts = [model(image[None]) for image in images]
    return torch.cat([logits for logits, _ in parts]), torch.cat([offsets for _, offsets in parts])


def synthetic_outputs(spec: DetectorSpec, priors: Tensor, images: int) -> Outputs:
    """Random outputs like those of a trained network: one prior in a hundred is an object, offsets are small."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(images, len(priors), spec.classes + 1, generator=generator)
    logits[..., 0] += 9
    is_object = torch.rand(images, len(priors), generator=generator) < 0.01
    label = torch.randint(1, spec.classes + 1, (int(is_object.sum()),), generator=generator)
    image, prior = is_object.nonzero(as_tuple=True)
    logits[image, prior, label] += 9
    offsets = torch.randn(images, len(priors), 4, generator=generator) * 0.3
    return logits.to(priors.device), offsets.to(priors.device)


def timing_columns(timing: Timing | None) -> dict[str, Any]:
    """A timing as the columns of a row, Nones if it was not measured. Images per second are those of the median."""
    if timing is None:
        return {"samples": 0, "p50_ms": None, "p90_ms": None, "p99_ms": None, "images_per_second": None}
    return {
        "samples": timing.n,
        "p50_ms": 1000 * timing.p50,
        "p90_ms": 1000 * timing.p90,
        "p99_ms": 1000 * timing.p99,
        "images_per_second": timing.images_per_second,
    }
