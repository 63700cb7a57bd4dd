"""All measurements that ``run_all.py throughput`` was asked for, as the content of throughput.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.data.batches import TrainingBatches
from bench.data.dataset import Dataset
from bench.data.pixels import DecodedOnDemand, open_pixels
from bench.data.targets import Targets
from bench.data.warp import whole_images
from bench.detector.ssd import SSD, bias_of
from bench.errors import UserError
from bench.run.numerics import computes_bfloat16, configure
from bench.spec import Numerics, Specification
from bench.speed.inference import batches_of, count_flops, count_parameters, device_description
from bench.speed.interleaved import Budget
from bench.speed.memory import measure_memory
from bench.speed.stages import END_TO_END, TENSORS_TO_BOXES, Pictures, made_outputs, measure_stages, own_outputs
from bench.speed.training_steps import measure_training_steps
from bench.storage.provenance import environment
from bench.storage.records import SCHEMA

SPEED_IMAGES = 64
HEADS_BATCH = 32  # of matching, loss and post-processing beside torchvision's
PAPERS = (20, 90)  # classes of VOC and of COCO's ids, for post-processing beside torchvision's
QUIET = 8.0  # added to a logit: odds of an object 3,000 times smaller


@dataclass(frozen=True, kw_only=True)
class SpeedRequest:
    """What is to be measured, once all of it has been checked.

    description: what the tables say of it: data, backbone, variant, weights.
    trained: whether the model was trained as a detector; NMS of one that was not has nothing to do.
    schedules: by name, specifications whose training steps are measured; the first is the baseline's.
    numerics: what is common to the measurements; `precisions` those that they are made in.
    batches: of the stages; compare_batches: of inference beside torchvision, None for no comparison.
    seconds: for each part (stages, training steps, the parts of the comparison), at least three rounds.
    """

    description: Mapping[str, Any]
    model: SSD
    trained: bool
    schedules: Mapping[str, Specification]
    numerics: Numerics
    precisions: Sequence[str]
    batches: Sequence[int]
    compare_batches: Sequence[int] | None
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def variants(self) -> list[Numerics]:
        """The numerics in each of the precisions."""
        named = {"float32": self.numerics, "bfloat16": replace(self.numerics, precision="bfloat16")}
        return [named[name] for name in self.precisions]


def chosen_precisions(wanted: str | None, device: str) -> list[str]:
    """The precisions of ``--precision``: "float32", "bfloat16", "both", or None for what the device computes in."""
    if wanted == "both" or (wanted is None and computes_bfloat16(device)):
        return ["float32", "bfloat16"]
    return [wanted or "float32"]


def measure_speed(request: SpeedRequest, data: Dataset) -> dict[str, Any]:
    """Measure everything; the content of throughput.json.

    Raises UserError where the data have other classes than the model.
    """
    spec, numerics = request.model.spec, request.numerics
    if len(data.index.classes) != spec.classes:
        raise UserError(
            f"the data have {len(data.index.classes)} classes, the detector was trained for {spec.classes}; "
            "give --data of the run, or another --run"
        )
    configure(numerics)
    before = device_description(torch.device(numerics.device))
    model = request.model.eval().to(numerics.device).to(memory_format=torch.channels_last)
    shown = data.val.take(np.arange(min(SPEED_IMAGES, len(data.val))))
    if not request.trained:
        find_nothing(model)
    pictures = Pictures(
        files=DecodedOnDemand(shown),
        tensors=whole_images(
            open_pixels(data.pixels, shown), range(len(shown)), spec.size, workers=numerics.threads
        ).to(numerics.device),
    )
    budget = Budget(seconds=request.seconds)
    stages = measure_stages(
        model,
        pictures,
        numerics=request.variants,
        batches=request.batches,
        made=not request.trained,
        budget=budget,
    )
    _add_memory(stages, measure_memory(model, pictures.tensors, numerics=request.variants, batches=request.batches))
    images, targets = training_batch(data, request, model)
    steps = measure_training_steps(request.schedules, images, targets, numerics=request.variants, budget=budget)
    comparison = None
    if request.compare_batches is not None:
        comparison = _beside_torchvision(request, data, model, pictures.tensors, images)
    return {
        "schema": SCHEMA,
        **request.description,
        "trained": request.trained,
        "images": len(shown),
        "numerics": {name: value for name, value in asdict(numerics).items() if name != "precision"},
        "precisions": list(request.precisions),
        "speed": {each.precision: _summary(stages, each.precision) for each in request.variants},
        "cost": {
            "parameters_M": count_parameters(model) / 1e6,
            "forward_GFLOP": count_flops(model, pictures.tensors[:1]) / 1e9,
        },
        "stages": stages,
        "training_steps": steps,
        "comparison": comparison,
        "notes": [*request.notes, *_notes(request)],
        # Clocks fall on an idle device, so those after the work count
        "environment": environment(device_description(torch.device(numerics.device))),
        "device_before": before,
    }


def _beside_torchvision(
    request: SpeedRequest, data: Dataset, model: SSD, shown: Tensor, images: Tensor
) -> dict[str, Any]:
    """The comparison, `preparation` of batches and `cells`; shown: for inference, images: of a training step."""
    from bench.speed.comparison import Work, measure_comparison  # noqa: PLC0415  # torchvision is slow to import
    from bench.speed.miniature_cell import measure_whole_cells  # noqa: PLC0415
    from bench.speed.preparation import measure_preparation  # noqa: PLC0415

    spec, training = model.spec, request.schedules["baseline"].training
    many = max(HEADS_BATCH, len(images))
    own, *further = (
        made_outputs(replace(spec, classes=classes), model.priors, many)
        for classes in dict.fromkeys((spec.classes, *PAPERS))
    )
    if request.trained:
        own = own_outputs(model, next(batches_of(shown, many)), request.numerics)
    _, targets = training_batch(data, request, model, batch=many)
    budget = Budget(seconds=request.seconds)
    comparison = measure_comparison(
        model,
        Work(images=shown, train_images=images, targets=targets, outputs=own, further=further),
        training,
        numerics=request.variants,
        batches=request.compare_batches or (),
        budget=budget,
    )
    preparation = measure_preparation(
        data.train,
        data.pixels,
        training.augment,
        size=spec.size,
        fill=fill_of(model),
        cpu_kernels=request.numerics.cpu_kernels,
        budget=budget,
    )
    cells = measure_whole_cells(
        model,
        data.train,
        data.val,
        data.pixels,
        training,
        numerics=request.variants,
        fill=fill_of(model),
        budget=budget,
    )
    return comparison | {
        "preparation": preparation,
        "cells": cells,
        "notes": _notes_on(made=not request.trained, device=request.numerics.device),
    }


def find_nothing(model: SSD) -> None:
    """Raise the background's score so that no box passes the threshold, in place.

    An untrained classifier starts near it: with few classes every box would pass, with many none, and
    non-maximum suppression would cost all or nothing.
    """
    for head in model.class_heads:
        with torch.no_grad():
            bias_of(head).view(-1, model.spec.classes + 1)[:, 0] += QUIET


def training_batch(
    data: Dataset, request: SpeedRequest, model: SSD, *, batch: int | None = None
) -> tuple[Tensor, Targets]:
    """The first augmented batch of the training split, where the model is; `batch` images, or the schedule's number."""
    training = request.schedules["baseline"].training
    batches = TrainingBatches(
        data.train,
        open_pixels(data.pixels, data.train),
        training.augment,
        seed=0,
        batch=batch or training.batch,
        size=model.spec.size,
        fill=fill_of(model),
        workers=request.numerics.threads,
        device=request.numerics.device,
    )
    images, targets = next(batches.steps(0, 1))
    return images, targets.to(request.numerics.device)


def fill_of(model: SSD) -> tuple[float, float, float]:
    """What lies outside an image: the mean that the backbone subtracts, RGB of 0 to 255."""
    red, green, blue = model.backbone.mean.flatten().tolist()
    return red, green, blue


def _add_memory(stages: list[dict[str, Any]], memory: list[dict[str, Any]]) -> None:
    """Into the rows from tensors to final boxes, which is what memory was measured of."""
    found = {(row["precision"], row["batch"]): row for row in memory}
    for row in stages:
        own = found.get((row["precision"], row["batch"]), {}) if row["stage"] == TENSORS_TO_BOXES else {}
        for name in ("idle_memory_MiB", "peak_memory_MiB"):
            row[name] = own.get(name)


def _summary(stages: Sequence[Mapping[str, Any]], precision: str) -> dict[str, Any]:
    """In the words of a record: throughput at the best batch, latency at batch 1 where it was measured."""

    def best(stage: str) -> Mapping[str, Any] | None:
        rows = [row for row in stages if (row["stage"], row["precision"]) == (stage, precision) and row["samples"]]
        return max(rows, key=lambda row: row["images_per_second"], default=None)

    fastest, whole = best(TENSORS_TO_BOXES), best(END_TO_END)
    single = next(
        (row for row in stages if (row["stage"], row["precision"], row["batch"]) == (TENSORS_TO_BOXES, precision, 1)),
        {},
    )
    return {
        "images_per_second": fastest and fastest["images_per_second"],
        "best_batch": fastest and fastest["batch"],
        "end_to_end_images_per_second": whole and whole["images_per_second"],
        **{f"latency_{name}_ms": single.get(f"{name}_ms") for name in ("p50", "p90", "p99")},
        "latency_samples": single.get("samples"),
    }


def _notes(request: SpeedRequest) -> list[str]:
    notes = []
    if request.trained:
        notes.append("Trained weights on real images: box decoding and NMS have the candidates that they have in use.")
    else:
        notes.append(
            "The detector is untrained. Its classifier was set to find nothing, so rows up to final boxes are without "
            "the cost of NMS; box decoding + NMS was measured alone on made outputs, one prior in a hundred an object. "
            "For trained weights name a run: --run results/NAME."
        )
    if "bfloat16" in request.precisions and not computes_bfloat16(request.numerics.device):
        notes.append(
            f"This {request.numerics.device} emulates bfloat16: its rows say what that costs, not what it saves."
        )
    if request.numerics.device == "cpu":
        notes.append(
            "Memory: peak of a fresh process for each row, libraries and weights included (before the first image "
            "idle_memory_MiB in throughput.json)."
        )
    return notes


def _notes_on(*, made: bool, device: str) -> list[str]:
    notes = [
        "Beside torchvision: the same tensors of the network's size for all; training is SGD with momentum of every "
        "weight; matching and loss include the gradients of logits and offsets.",
        "Post-processing of other numbers of classes than the detector's works on made outputs: one prior in a hundred "
        "an object.",
        "Training batches: torchvision's are made with the transforms of its reference script for SSD.",
        "Cells in miniature: torchvision's images come from as many worker processes as there are threads, ours from "
        "the file that all cells of a run share; starting, counting AP and measuring speed are left out.",
    ]
    if device == "cpu":
        notes.append(
            "As shipped: in a process of its own, in turn with the others, where nothing is set but the number of "
            "threads, each call after an untimed one; in our process: the same with this suite's settings of the "
            "allocator and of idle threads (bench/process.py), which the others have too."
        )
        notes.append(
            "GFLOP are those of the layers as they are written down. Convolutions with fewer multiplications "
            "(bench/detector/winograd.py) can exceed the ceiling, which was measured with an ordinary one."
        )
    if made:
        notes.insert(2, "So do loss and post-processing of its own number.")
    return notes
