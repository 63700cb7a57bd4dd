"""One cell, from its specification to its record: prepare, train, evaluate, measure speed.

Runs in a process of its own (see `runner`). Everything it writes lies in the cell's folder.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.axis import derive, find_axes
from bench.data.batches import TrainingBatches
from bench.data.index import ImageIndex
from bench.data.pixels import PixelSource, open_pixels
from bench.data.warp import whole_images
from bench.detector.prior_fitting import matchable_boxes, recall
from bench.detector.priors import write_priors
from bench.detector.ssd import SSD
from bench.device.memory import peak_memory_mib
from bench.errors import UserError, writing
from bench.evaluation.coco import evaluate
from bench.evaluation.coco_format import detections_coco
from bench.evaluation.detections import xywh
from bench.evaluation.error_types import error_types
from bench.evaluation.inference import detect_all
from bench.evaluation.voc import with_voc
from bench.run.numerics import configure
from bench.spec import Cell, Numerics, Specification
from bench.speed.inference import (
    SpeedSettings,
    count_flops,
    count_parameters,
    device_description,
    measure_inference,
)
from bench.storage.atomic import replacing, write_json
from bench.storage.provenance import environment
from bench.storage.records import SCHEMA, failed_record, now, read_log
from bench.storage.run_folder import CHECKPOINT, cell_folder
from bench.training.checkpoints import remove_checkpoints
from bench.training.trainer import BatchTooLarge, NotFinite, Progress, Trained, Trainer, autocast

SPEED_IMAGES = 64
SHARE_STREAM = 2  # first word of the seed of `data_share`, apart from those of order and augmentation


@dataclass(frozen=True, kw_only=True)
class CellJob:
    """All that a process needs to run a cell.

    run: the run's folder. pixels: the file of decoded pixels, None to decode on demand.
    axes_package, axis_files: where the axes are found. hung_after: seconds without progress.
    """

    cell: Cell
    run: Path
    train: ImageIndex
    val: ImageIndex
    pixels: Path | None
    axes_package: str
    axis_files: tuple[Path, ...]
    speed: SpeedSettings
    hung_after: float = 1800.0

    @property
    def folder(self) -> Path:
        return cell_folder(self.run, self.cell.id)

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT


class CellLog:
    """Lines of JSON in the cell's log; what happened after the checkpoint that training goes on from is cut."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._end_torn_line()

    def write(self, **line: Any) -> None:
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def touch(self) -> None:
        """A sign of life that says nothing; see `runner.supervise`."""
        os.utime(self.path)

    def cut_after(self, step: int) -> None:
        """Forget the figures of steps beyond `step`: they will be written again."""
        lines = list(read_log(self.path))
        kept = [line for line in lines if line.get("step", 0) <= step]
        if len(kept) < len(lines):
            with replacing(self.path) as file:
                file.write("".join(f"{json.dumps(line)}\n" for line in kept).encode())

    def _end_torn_line(self) -> None:
        """A killed writer may have left half a line, which would take the next one with it."""
        with writing(self.path), self.path.open("ab+") as file:
            size = file.tell()
            file.seek(max(0, size - 1))
            if file.read(1) not in (b"", b"\n"):
                file.write(b"\n")


def run_cell(job: CellJob) -> dict[str, Any]:
    """Run the cell and write its record, of a success or of a failure; returns the record."""
    job.folder.mkdir(parents=True, exist_ok=True)
    identity = identity_of(job.cell)
    try:
        record = {**identity, "status": "done", "failure": None, **_figures(job), "finished": now()}
    except (UserError, NotFinite) as error:
        record = failed_record(identity, cause=str(error), folder=job.folder, traceback=traceback.format_exc())
    except BatchTooLarge as error:
        record = failed_record(
            identity, cause=str(error), folder=job.folder, traceback=traceback.format_exc(), batch_too_large=True
        )
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        record = failed_record(identity, cause=cause, folder=job.folder, traceback=traceback.format_exc())
    record["warnings"] = [text for line in read_log(job.folder / "log.jsonl") for text in line.get("warnings", ())]
    write_json(job.folder / "record.json", record)
    if record["status"] == "done":
        # Not before: killed between the two, the cell would be trained again from its first step
        remove_checkpoints(job.checkpoint)
    return record


def identity_of(cell: Cell) -> dict[str, Any]:
    """The part of a record that is known before the cell runs."""
    return {
        "schema": SCHEMA,
        "id": cell.id,
        "variant": cell.variant,
        "factors": dict(cell.factors),
        "control": cell.control,
        "seed": cell.seed,
        "numerics": asdict(cell.numerics),
        "fingerprints": {"split": cell.split, "axes": dict(cell.axes)},
    }


def _figures(job: CellJob) -> dict[str, Any]:
    """Everything of the record that has to be worked for."""
    cell, numerics = job.cell, job.cell.numerics
    configure(numerics)
    log = CellLog(job.folder / "log.jsonl")
    log.write(phase="preparing")
    train = shared_part(job.train, cell.base.training.data_share)
    axes = find_axes(job.axes_package, job.axis_files)
    spec, prepared = derive(cell.base, [axes[name].axis for name in cell.active], train)
    matchable = {"train": matchable_boxes(train), "val": matchable_boxes(job.val)}
    write_priors(job.folder / "priors.json", spec.detector, matchable)
    model = build(spec, cell.seed, numerics)
    trained = _train(job, train, model, spec, log)
    peak_memory = peak_memory_mib(torch.device(numerics.device))

    log.write(phase="evaluating")
    pixels = open_pixels(job.pixels, job.val)
    model.eval()
    detections = detect_all(model, job.val, pixels, numerics, alive=log.touch)
    side = spec.detector.size
    evaluation = evaluate(job.val, detections, network_size=(side, side))
    write_json(job.folder / "detections.json", detections_coco(detections, job.val), indent=None)
    matches = evaluation.matches
    matches.save(job.folder / "matches.npz")
    types = error_types(matches, xywh(detections.boxes[matches.detection]), xywh(job.val.boxes))
    types.save(job.folder / "error_types.npz")

    log.write(phase="measuring speed")
    speed, flops = _speed(job, model, pixels)
    steps = trained.step_seconds
    device = device_description(torch.device(numerics.device))
    with replacing(job.folder / "weights.pt") as file:
        torch.save({"priors": model.priors_fingerprint(), "model": model.state_dict()}, file)
    return {
        "accuracy": with_voc(evaluation.accuracy, job.val, detections),
        "speed": speed,
        "cost": {
            "parameters_M": count_parameters(model) / 1e6,
            "forward_GFLOP": flops / 1e9,
            "train_seconds": trained.seconds,
            "steps": spec.training.steps,
            "step_seconds_median": float(np.median(steps)) if steps else None,
            "waiting_for_data_share": trained.waiting_seconds / max(sum(steps), 1e-9) if steps else None,
            "peak_memory_MiB": peak_memory,
        },
        "prepared": prepared,
        "prior_recall": prior_recall(cell.base, spec, matchable),
        "detector": asdict(spec.detector),
        "training": asdict(spec.training),
        "pretrained": {
            "backbone": model.backbone.pretrained,
            "untrained_parts": list(model.backbone.fresh),
            "beside_backbone": list(model.taken_over),
            "class_outputs": list(spec.detector.class_outputs),
            "input_mean": model.backbone.mean.flatten().tolist(),
            "input_deviation": model.backbone.deviation.flatten().tolist(),
        },
        "fingerprints": {
            **identity_of(cell)["fingerprints"],
            "priors": model.priors_fingerprint(),
            "train": train.fingerprint(),
            "val": job.val.fingerprint(),
        },
        "environment": environment(device),
    }


def build(spec: Specification, seed: int, numerics: Numerics) -> SSD:
    """The detector, where and how the run computes."""
    model = SSD(spec.detector, seed=seed).to(numerics.device)
    return model.to(memory_format=torch.channels_last) if numerics.channels_last else model


def prior_recall(
    base: Specification, spec: Specification, boxes: Mapping[str, NDArray[np.float64]]
) -> dict[str, dict[str, Any]]:
    """For each split its `recall` before the axes were applied and after; measured, nothing is fitted."""
    return {
        split: {"before": recall(own, base.detector), "after": recall(own, spec.detector)}
        for split, own in boxes.items()
    }


def shared_part(train: ImageIndex, share: float) -> ImageIndex:
    """A random `share` of the training images, the same for every seed; all of them at 1."""
    if share >= 1:
        return train
    order = np.random.default_rng((SHARE_STREAM, len(train))).permutation(len(train))
    return train.take(np.sort(order[: max(1, round(share * len(train)))]))


def _train(job: CellJob, train: ImageIndex, model: SSD, spec: Specification, log: CellLog) -> Trained:
    numerics, training = job.cell.numerics, spec.training
    trainer = Trainer(model, training, numerics)
    mean = model.backbone.mean.flatten().tolist()
    batches = TrainingBatches(
        train,
        open_pixels(job.pixels, train),
        training.augment,
        seed=job.cell.seed,
        batch=training.batch,
        size=spec.detector.size,
        fill=(mean[0], mean[1], mean[2]),
        workers=numerics.threads,
        cpu_kernels=numerics.cpu_kernels,
        device=numerics.device,
    )

    def report(progress: Progress) -> None:
        log.write(
            step=progress.step,
            steps=training.steps,
            **{k: v for k, v in asdict(progress).items() if k != "step"},
        )

    def resumed(step: int, damaged: list[str]) -> None:
        log.cut_after(step)
        log.write(phase="training", resumed_from=step, **({"warnings": damaged} if damaged else {}))

    return trainer.run(batches, job.checkpoint, report=report, resumed=resumed, alive=log.touch)


def _speed(job: CellJob, model: SSD, pixels: PixelSource) -> tuple[Mapping[str, Any], int]:
    """Speed on real validation images with the trained weights, and FLOPs of a forward pass of one."""
    numerics = job.cell.numerics
    count = min(SPEED_IMAGES, len(job.val))
    images = whole_images(pixels, range(count), model.spec.size, workers=numerics.threads).to(numerics.device)

    def predict(batch: Tensor) -> object:
        with torch.inference_mode(), autocast(numerics):
            return model.detect(batch)

    speed = measure_inference(predict, images, job.speed, precision=numerics.precision)
    return speed, count_flops(model, images[:1])
