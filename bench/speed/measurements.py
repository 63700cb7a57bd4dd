"""All measurements of ``run_all.py throughput``, as the content of throughput.json."""

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
from bench.device.hardware import computes_bfloat16, device_description
from bench.errors import UserError
from bench.spec import Numerics, Specification
from bench.speed.cost import count_flops, count_parameters
from bench.speed.inference import SPEED_IMAGES, batches_of
from bench.speed.interleaved import RATIO_PRECISION, Budget
from bench.speed.memory import measure_memory
from bench.speed.stages import END_TO_END, TENSORS_TO_BOXES, Pictures, measure_stages, own_outputs, synthetic_outputs
from bench.speed.training_steps import measure_training_steps
from bench.storage.provenance import environment
from bench.storage.records import SCHEMA
from bench.training.setup import configure, place

HEADS_BATCH = 32  # images for matching, loss and post-processing in the comparison
COMPARED_CLASSES = (20, 90)  # of VOC and of COCO's ids, for post-processing in the comparison
BACKGROUND_BIAS = 8.0  # added to a logit: makes the odds of an object 3,000 times smaller


@dataclass(frozen=True, kw_only=True)
class SpeedPlan:
    """What to measure.

    description: data, backbone, variant and weights, for the tables.
    model: a plain detector. trained: whether it was trained; NMS has nothing to do after an untrained one.
    schedules: by name, the specifications whose training steps are measured, "baseline" first.
    numerics: common to all measurements, apart from the precision. precisions: those to measure in.
    batches: of the stages. compare_batches: of inference in the comparison, None for no comparison.
    seconds: for each part (stages, training steps, each part of the comparison), see `Budget`.
    notes: further sentences for the tables.
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
    """The precisions for ``--precision``: "float32", "bfloat16", "both", or None for what the device computes in."""
    if wanted == "both" or (wanted is None and computes_bfloat16(device)):
        return ["float32", "bfloat16"]
    return [wanted or "float32"]


def measure_speed(plan: SpeedPlan, data: Dataset) -> dict[str, Any]:
    """Measure everything and return the content of throughput.json.

    Raises UserError if the number of classes of the data is not that of the model.
    """
    spec, numerics = plan.model.spec, plan.numerics
    if len(data.index.classes) != spec.classes:
        raise UserError(
            f"the data have {len(data.index.classes)} classes, the detector was trained for {spec.classes}; "
            "give --data of the run, or another --run"
        )
    configure(numerics)
    before = device_description(torch.device(numerics.device))
    model = place(plan.model.eval(), numerics)
    shown = data.val.take(np.arange(min(SPEED_IMAGES, len(data.val))))
    if not plan.trained:
        suppress_detections(model)
    pictures = Pictures(
        files=DecodedOnDemand(shown),
        tensors=whole_images(
            open_pixels(data.pixels, shown), range(len(shown)), spec.size, workers=numerics.threads
        ).to(numerics.device),
    )
    budget = Budget(seconds=plan.seconds)
    stages = measure_stages(
        model,
        pictures,
        numerics=plan.variants,
        batches=plan.batches,
        synthetic=not plan.trained,
        budget=budget,
    )
    _add_memory(stages, measure_memory(model, pictures.tensors, numerics=plan.variants, batches=plan.batches))
    images, targets = training_batch(data, plan, model)
    steps = measure_training_steps(plan.schedules, images, targets, numerics=plan.variants, budget=budget)
    comparison = None
    if plan.compare_batches is not None:
        comparison = _comparison(plan, data, model, pictures.tensors, images)
    return {
        "schema": SCHEMA,
        **plan.description,
        "trained": plan.trained,
        "images": len(shown),
        "numerics": {name: value for name, value in asdict(numerics).items() if name != "precision"},
        "precisions": list(plan.precisions),
        "speed": {each.precision: _summary(stages, each.precision) for each in plan.variants},
        "cost": {
            "parameters_M": count_parameters(model) / 1e6,
            "forward_GFLOP": count_flops(model, pictures.tensors[:1]) / 1e9,
        },
        "stages": stages,
        "training_steps": steps,
        "comparison": comparison,
        "ratio_precision": RATIO_PRECISION,
        "notes": [*plan.notes, *_notes(plan)],
        # An idle device lowers its clocks, so describe it right after the work
        "environment": environment(device_description(torch.device(numerics.device))),
        "device_before": before,
    }


def _comparison(plan: SpeedPlan, data: Dataset, model: SSD, shown: Tensor, images: Tensor) -> dict[str, Any]:
    """The comparison with torchvision, including `preparation` of batches and miniature `cells`.

    shown: images for inference. images: a training batch.
    """
    from bench.speed.comparison import Work, measure_comparison  # noqa: PLC0415  # torchvision is slow to import
    from bench.speed.miniature_cell import measure_miniature_cells  # noqa: PLC0415
    from bench.speed.preparation import measure_preparation  # noqa: PLC0415

    spec, training = model.spec, plan.schedules["baseline"].training
    heads_batch = max(HEADS_BATCH, len(images))
    own, *further = (
        synthetic_outputs(replace(spec, classes=classes), model.priors, heads_batch)
        for classes in dict.fromkeys((spec.classes, *COMPARED_CLASSES))
    )
    if plan.trained:
        own = own_outputs(model, next(batches_of(shown, heads_batch)), plan.numerics)
    _, targets = training_batch(data, plan, model, batch=heads_batch)
    budget = Budget(seconds=plan.seconds)
    comparison = measure_comparison(
        model,
        Work(images=shown, train_images=images, targets=targets, outputs=own, further=further),
        training,
        numerics=plan.variants,
        batches=plan.compare_batches or (),
        budget=budget,
    )
    preparation = measure_preparation(
        data.train,
        data.pixels,
        training.augment,
        size=spec.size,
        fill=fill_of(model),
        budget=budget,
    )
    cells = measure_miniature_cells(
        model,
        data.train,
        data.val,
        data.pixels,
        training,
        numerics=plan.variants,
        fill=fill_of(model),
        budget=budget,
    )
    return comparison | {
        "preparation": preparation,
        "cells": cells,
        "notes": _notes_on(synthetic=not plan.trained, device=plan.numerics.device),
    }


def suppress_detections(model: SSD) -> None:
    """Raise the background's bias, in place, so that no box passes the score threshold.

    The scores of an untrained classifier lie near the threshold: with few classes all boxes would pass, with many none,
    and the cost of non-maximum suppression would depend on that.
    """
    for head in model.class_heads:
        with torch.no_grad():
            bias_of(head).view(-1, model.spec.classes + 1)[:, 0] += BACKGROUND_BIAS


def training_batch(data: Dataset, plan: SpeedPlan, model: SSD, *, batch: int | None = None) -> tuple[Tensor, Targets]:
    """The first augmented batch of the training split, on the device; `batch` images, by default those of a step."""
    training = plan.schedules["baseline"].training
    batches = TrainingBatches(
        data.train,
        open_pixels(data.pixels, data.train),
        training.augment,
        seed=0,
        batch=batch or training.batch,
        size=model.spec.size,
        fill=fill_of(model),
        workers=plan.numerics.threads,
        device=plan.numerics.device,
    )
    images, targets = next(batches.steps(0, 1))
    return images, targets.to(plan.numerics.device)


def fill_of(model: SSD) -> tuple[float, float, float]:
    """The fill outside an image: the mean that the backbone subtracts, RGB of 0 to 255."""
    red, green, blue = model.backbone.mean.flatten().tolist()
    return red, green, blue


def _add_memory(stages: list[dict[str, Any]], memory: list[dict[str, Any]]) -> None:
    """Add the memory to the rows that it was measured for, from tensors to final boxes."""
    measured = {(row["precision"], row["batch"]): row for row in memory}
    for row in stages:
        own = measured.get((row["precision"], row["batch"]), {}) if row["stage"] == TENSORS_TO_BOXES else {}
        for name in ("idle_memory_MiB", "peak_memory_MiB"):
            row[name] = own.get(name)


def _summary(stages: Sequence[Mapping[str, Any]], precision: str) -> dict[str, Any]:
    """As in a record: throughput at the best batch, latency at batch 1 if it was measured."""

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


def _notes(plan: SpeedPlan) -> list[str]:
    notes = []
    if plan.trained:
        notes.append("Trained weights on real images: box decoding and NMS process as many candidates as in use.")
    else:
        notes.append(
            "The detector is untrained. Its classifier was set to detect nothing, so rows up to final boxes exclude "
            "the cost of NMS. Box decoding + NMS was measured alone on synthetic outputs (one prior in a hundred is an "
            "object). To measure trained weights, give a run: --run results/NAME."
        )
    if "bfloat16" in plan.precisions and not computes_bfloat16(plan.numerics.device):
        notes.append(
            f"This {plan.numerics.device} emulates bfloat16: its bfloat16 rows show what emulation costs, not a saving."
        )
    if plan.numerics.device == "cpu":
        notes.append(
            "Memory: peak of a fresh process per row, including libraries and weights. Peak before the first image: "
            "idle_memory_MiB in throughput.json."
        )
    return notes


def _notes_on(*, synthetic: bool, device: str) -> list[str]:
    notes = [
        "Comparison with torchvision: all contenders get the same tensors, of the network's input size. Training is "
        "SGD with momentum on every weight. Matching and loss include the gradients of logits and offsets.",
        "Post-processing with another number of classes than the detector's uses synthetic outputs (one prior in a "
        "hundred is an object).",
        "Training batches: torchvision's use the transforms of its reference script for SSD.",
        "Miniature cells: torchvision's images come from as many worker processes as there are threads, ours from the "
        "file of decoded images that all cells of a run share. Start-up, AP and measuring speed are not included.",
    ]
    if device == "cpu":
        notes.append(
            "As shipped: in a child process where only the number of threads is set, interleaved with the others; an "
            "untimed call precedes each timed one. In our process: the same code with this suite's settings of the "
            "allocator and of OpenMP (bench/device/process_settings.py), as all other contenders."
        )
        notes.append(
            "GFLOP are those of direct convolution. Winograd convolutions (bench/cpu/winograd.py) need fewer "
            "multiplications and can exceed the ceiling, which is that of a direct convolution."
        )
    if synthetic:
        notes.insert(2, "So do loss and post-processing with the detector's own number.")
    return notes
