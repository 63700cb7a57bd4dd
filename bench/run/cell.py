"""One cell, from its specification to its record: prepare, train, evaluate, measure speed.

A cell runs in its own process (see `scheduler`) and writes only into its own folder.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
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
from bench.detector.ssd import SSD
from bench.device.hardware import device_description
from bench.device.memory import peak_memory_mib
from bench.device.precision import autocast
from bench.errors import UserError
from bench.evaluation.coco import evaluate
from bench.evaluation.coco_format import detections_coco
from bench.evaluation.detections import xywh
from bench.evaluation.error_types import error_types
from bench.evaluation.inference import detect_all
from bench.evaluation.metrics import with_metrics
from bench.run.priors_file import write_priors
from bench.spec import Cell, Specification, images_in_share
from bench.speed.cost import count_flops, count_parameters
from bench.speed.inference import SPEED_IMAGES, SpeedSettings, measure_inference
from bench.storage.atomic import write_json
from bench.storage.cell_log import CellLog
from bench.storage.provenance import environment
from bench.storage.records import SCHEMA, failed_record, now, read_log
from bench.storage.run_folder import (
    BEFORE_DECAY,
    CHECKPOINT,
    DETECTIONS,
    ERROR_TYPES,
    LOG,
    MATCHES,
    PRIORS,
    RECORD,
    WEIGHTS,
    cell_folder,
    previous_of,
)
from bench.training.beginning import continue_from
from bench.training.checkpoints import remove_checkpoints
from bench.training.setup import build, configure
from bench.training.trained import save_trained
from bench.training.trainer import BatchTooLarge, NotFinite, Progress, Trained, Trainer

FIT_IMAGES = 200  # training images that a cell is scored on
SHARE_STREAM = 2  # keeps the random numbers of `data_share` apart from those of order and augmentation


@dataclass(frozen=True, kw_only=True)
class CellJob:
    """All that a process needs to run a cell.

    run: the run's folder. pixels: the file of decoded images, None to decode on demand.
    axis_files: the user's files of axes. fit_images: training images to score, at most.
    hung_after: seconds without progress until the cell has failed.
    earlier: folder of the cell whose training this one continues. keep_state: whether longer trainings may continue it.
    """

    cell: Cell
    run: Path
    train: ImageIndex
    val: ImageIndex
    pixels: Path | None
    axis_files: tuple[Path, ...]
    speed: SpeedSettings
    fit_images: int = FIT_IMAGES
    hung_after: float = 1800.0
    earlier: Path | None = None
    keep_state: bool = False

    @property
    def folder(self) -> Path:
        return cell_folder(self.run, self.cell.id)

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT


def run_cell(job: CellJob) -> dict[str, Any]:
    """Run the cell and write its record, whether it succeeds or fails; returns the record."""
    job.folder.mkdir(parents=True, exist_ok=True)
    identity = identity_of(job.cell)
    try:
        record = {**identity, "status": "done", "failure": None, **_results(job), "finished": now()}
    except (UserError, NotFinite) as error:
        record = failed_record(
            identity,
            cause=str(error),
            folder=job.folder,
            traceback=traceback.format_exc(),
            diverged=isinstance(error, NotFinite),
        )
    except BatchTooLarge as error:
        record = failed_record(
            identity, cause=str(error), folder=job.folder, traceback=traceback.format_exc(), batch_too_large=True
        )
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        record = failed_record(identity, cause=cause, folder=job.folder, traceback=traceback.format_exc())
    record["warnings"] = [text for line in read_log(job.folder / LOG) for text in line.get("warnings", ())]
    write_json(job.folder / RECORD, record)
    if record["status"] == "done":
        # After the record: a cell killed between the two steps must not lose its training
        remove_checkpoints(job.checkpoint)
    return record


def identity_of(cell: Cell) -> dict[str, Any]:
    """The part of the record that is known before the cell runs."""
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


def _results(job: CellJob) -> dict[str, Any]:
    """The part of the record that only running the cell gives."""
    cell, numerics = job.cell, job.cell.numerics
    configure(numerics)
    log = CellLog(job.folder / LOG)
    log.write(phase="preparing")
    train = share_of(job.train, cell.base.training.data_share)
    axes = find_axes("variants", job.axis_files)
    spec, prepared = derive(cell.base, [axes[name].axis for name in cell.active], train)
    matchable = {"train": matchable_boxes(train), "val": matchable_boxes(job.val)}
    write_priors(job.folder / PRIORS, spec.detector, matchable)
    model = build(spec.detector, cell.seed, numerics)
    trained = _train(job, train, model, spec, log)
    peak_memory = peak_memory_mib(torch.device(numerics.device))

    log.write(phase="evaluating")
    pixels = open_pixels(job.pixels, job.val)
    model.eval()
    detections = detect_all(model, job.val, pixels, numerics, alive=log.touch)
    # Of the baseline: an axis that changes the input must not change which objects count as small
    side = cell.base.detector.size
    evaluation = evaluate(job.val, detections, network_size=(side, side))
    write_json(job.folder / DETECTIONS, detections_coco(detections, job.val), indent=None)
    matches = evaluation.matches
    matches.save(job.folder / MATCHES)
    types = error_types(matches, xywh(detections.boxes[matches.detection]), xywh(job.val.boxes))
    types.save(job.folder / ERROR_TYPES)
    fit = training_fit(job, model, alive=log.touch)

    log.write(phase="measuring speed")
    speed, flops = _speed(job, model, pixels)
    steps = trained.step_seconds
    device = device_description(torch.device(numerics.device))
    checksum = save_trained(model, job.folder / WEIGHTS)
    return {
        "accuracy": with_metrics(evaluation.accuracy, job.val, detections),
        "training_fit": fit,
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
            "weights": checksum,
        },
        "environment": environment(device),
    }


def prior_recall(
    base: Specification, spec: Specification, boxes: Mapping[str, NDArray[np.float64]]
) -> dict[str, dict[str, Any]]:
    """By split, the priors' `recall` before and after the axes were applied; not used for fitting."""
    return {
        split: {"before": recall(own, base.detector), "after": recall(own, spec.detector)}
        for split, own in boxes.items()
    }


def share_of(train: ImageIndex, share: float) -> ImageIndex:
    """A random `share` of the training images, the same for every seed."""
    return train if share >= 1 else _first_of(train, images_in_share(len(train), share))


def fit_sample(train: ImageIndex, share: float, most: int) -> ImageIndex:
    """The training images to score: up to `most`, at most half of `train`, the same in every cell and seed.

    They come first in the order that `share_of` takes its images from, so that a cell on half of the data has trained
    on all of them. A cell on a smaller `share` is scored on its own images only.
    """
    return _first_of(train, min(most, images_in_share(len(train), min(0.5, share))))


def _first_of(train: ImageIndex, count: int) -> ImageIndex:
    """The first `count` images of a random order that depends on the number of images alone, sorted by row."""
    order = np.random.default_rng((SHARE_STREAM, len(train))).permutation(len(train))
    return train.take(np.sort(order[:count]))


def training_fit(job: CellJob, model: SSD, *, alive: Callable[[], None]) -> dict[str, Any]:
    """AP and AP50 on training images without augmentation, evaluated like the validation images.

    model: in evaluation mode.
    """
    cell = job.cell
    sample = fit_sample(job.train, cell.base.training.data_share, job.fit_images)
    detections = detect_all(model, sample, open_pixels(job.pixels, sample), cell.numerics, alive=alive)
    accuracy = evaluate(sample, detections).accuracy
    return {
        "images": len(sample),
        "ground_truths": accuracy["ground_truths"]["all"],
        "AP": accuracy["AP"],
        "AP50": accuracy["AP50"],
    }


def _train(job: CellJob, train: ImageIndex, model: SSD, spec: Specification, log: CellLog) -> Trained:
    numerics, training = job.cell.numerics, spec.training
    trainer = Trainer(model, training, numerics)
    why = ""
    if job.earlier is not None and not any(path.is_file() for path in (job.checkpoint, previous_of(job.checkpoint))):
        why = continue_from(job.earlier, job.folder, job.cell, spec, train=train.fingerprint())
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
        warnings = [*damaged, *([f"trained from the start: {why}"] if why else [])]
        log.write(phase="training", resumed_from=step, **({"warnings": warnings} if warnings else {}))

    return trainer.run(
        batches,
        job.checkpoint,
        before_decay=job.folder / BEFORE_DECAY if job.keep_state else None,
        report=report,
        resumed=resumed,
        alive=log.touch,
    )


def _speed(job: CellJob, model: SSD, pixels: PixelSource) -> tuple[Mapping[str, Any], int]:
    """Speed on validation images with the trained weights, and FLOPs of a forward pass of one image."""
    numerics = job.cell.numerics
    count = min(SPEED_IMAGES, len(job.val))
    images = whole_images(pixels, range(count), model.spec.size, workers=numerics.threads).to(numerics.device)

    def predict(batch: Tensor) -> object:
        with torch.inference_mode(), autocast(numerics):
            return model.detect(batch)

    speed = measure_inference(predict, images, job.speed, precision=numerics.precision)
    return speed, count_flops(model, images[:1])
