"""The one training loop, the same for every cell.

Learning rate, trainable parts and batches are pure functions of the step; all other state (weights, momenta) is in the
checkpoint. So a cell that resumes ends exactly as an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.batches import TrainingBatches
from bench.data.targets import Targets
from bench.detector.loss import Loss, matched_priors, total_of
from bench.detector.ssd import SSD
from bench.device.memory import out_of_memory
from bench.device.precision import autocast
from bench.spec import Numerics, TrainSpec
from bench.training.checkpoints import latest_checkpoint, write_checkpoint
from bench.training.schedule import rate_factor, stage_rate_factors, steps_before_decay, trainable_stages


class NotFinite(Exception):
    """The loss or a weight is NaN or infinite; the message gives the step."""


class BatchTooLarge(Exception):
    """A step ran out of memory; the message gives the number of images and micro-batches."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state after one step. seconds: training time so far, over all processes."""

    step: int  # steps done
    loss: float
    loss_class: float
    loss_box: float
    rate: float
    images_per_second: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Times of a training.

    seconds: over all processes. step_seconds: of each step of this process. waiting_seconds: spent waiting for data.
    """

    seconds: float
    step_seconds: list[float]
    waiting_seconds: float
    resumed_from: int


class Trainer:
    """A detector with its optimiser."""

    def __init__(self, model: SSD, spec: TrainSpec, numerics: Numerics) -> None:
        self.model, self.spec, self.numerics = model, spec, numerics
        self.stages = self._trainable_backbone()
        self.optimiser = self._optimiser()

    def run(
        self,
        batches: TrainingBatches,
        checkpoint: Path,
        *,
        before_decay: Path | None = None,
        report: Callable[[Progress], None],
        resumed: Callable[[int, list[str]], None] = lambda step, warnings: None,
        alive: Callable[[], None] = lambda: None,
    ) -> Trained:
        """Train to the last step, from the checkpoint if there is one.

        Raises NotFinite, or BatchTooLarge if a step runs out of memory.

        before_decay: where to keep the state at the end of `steps_before_decay`; None not to keep it.
        resumed: called first, with the step that training resumes from (0 without a checkpoint) and a sentence about
            each damaged checkpoint.
        alive: called at every step.
        """
        spec = self.spec
        first, before, damaged = self._resume(checkpoint)
        resumed(first, damaged)
        every = checkpoint_interval(spec)
        kept = steps_before_decay(spec) if before_decay is not None else 0
        report_every = max(1, spec.steps // 500)
        durations: list[float] = []
        waiting, unmeasured = 0.0, 0
        start = previous = time.perf_counter()
        self.model.train()
        stream = batches.steps(first, spec.steps)
        for step in range(first, spec.steps):
            alive()
            wait_start = time.perf_counter()
            images, targets = next(stream)
            waiting += time.perf_counter() - wait_start
            try:
                loss = self.step(step, images, targets)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                raise BatchTooLarge(self._too_large(step, len(images))) from error
            unmeasured += 1
            last = step + 1 == spec.steps
            reporting = last or (step + 1) % report_every == 0
            saving = last or (step + 1) % every == 0 or step + 1 == kept
            # Reading the loss waits for the device, so not at every step. Never checkpoint NaN
            value = float(loss.total) if reporting or saving else 0.0
            now = time.perf_counter()
            if not math.isfinite(value):
                raise NotFinite(f"the loss is {value} at step {step + 1} of {spec.steps}")
            if saving and not all(bool(each.isfinite().all()) for each in self.model.parameters()):
                raise NotFinite(f"weights are not finite after step {step + 1} of {spec.steps}")
            synchronised = reporting or saving or self.numerics.device == "cpu"
            if synchronised:  # otherwise steps are only launched, and their time is unknown
                durations += [(now - previous) / unmeasured] * unmeasured
                unmeasured = 0
            if reporting:
                report(
                    Progress(
                        step=step + 1,
                        loss=value,
                        loss_class=float(loss.classes),
                        loss_box=float(loss.boxes),
                        rate=self.optimiser.param_groups[0]["lr"],
                        images_per_second=len(images) / durations[-1],
                        seconds=before + now - start,
                    )
                )
            if before_decay is not None and step + 1 == kept:
                # Before the checkpoint: a training that is killed between the two keeps it when it resumes
                self._save(before_decay, kept, seconds=before + time.perf_counter() - start)
            if saving:
                self._save(checkpoint, step + 1, seconds=before + time.perf_counter() - start)
            if synchronised:
                previous = time.perf_counter()
        stream.close()
        return Trained(
            seconds=before + time.perf_counter() - start,
            step_seconds=durations,
            waiting_seconds=waiting,
            resumed_from=first,
        )

    def set_step(self, step: int) -> None:
        """Set the learning rates and the trainable parts of `step`."""
        trainable = trainable_stages(self.spec, step, len(self.stages))
        for index, stage in enumerate(self.stages):
            stage.requires_grad_(index >= len(self.stages) - trainable)
        factor = rate_factor(self.spec, step)
        for group in self.optimiser.param_groups:
            group["lr"] = self.spec.rate * factor * group["share"]

    def step(self, step: int, images: Tensor, targets: Targets) -> Loss:
        """Forward, loss, backward and update of one batch, as step number `step`."""
        self.set_step(step)
        micro_batches = min(self.numerics.micro_batches, len(images))
        if micro_batches == 1:
            loss = self._gradients(images, targets)
        else:
            divisor = matched_priors(self.model.spec, self.model.priors, targets)
            parts = zip(images.tensor_split(micro_batches), targets.split(micro_batches), strict=True)
            loss = total_of([self._gradients(*part, divisor) for part in parts])
        if self.spec.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.clip_norm, foreach=True)
        self.optimiser.step()
        # None, not zero: a zero gradient would still move frozen weights by momentum and weight decay
        self.optimiser.zero_grad(set_to_none=True)
        return loss

    def _gradients(self, images: Tensor, targets: Targets, divisor: Tensor | None = None) -> Loss:
        """Accumulate the gradients of a batch or micro-batch, and free its graph."""
        with autocast(self.numerics):
            loss = self.model.loss(images, targets, divisor)
        loss.total.backward()
        return replace(loss, total=loss.total.detach())

    def _too_large(self, step: int, images: int) -> str:
        micro_batches = min(self.numerics.micro_batches, images)
        how = (
            "one at a time"
            if micro_batches == images
            else "at once"
            if micro_batches == 1
            else f"in {micro_batches} micro-batches"
        )
        return f"out of memory at step {step + 1} of {self.spec.steps}, with {images} images {how}"

    def _trainable_backbone(self) -> list[nn.ModuleList]:
        """The stages of the backbone that are trained at some step, bottom first. Freezes those below."""
        backbone = self.model.backbone
        trainable = []
        for stage in backbone.stages():
            modules = nn.ModuleList(stage.modules)
            if backbone.pretrained and stage.stride <= self.spec.frozen_stride:
                modules.requires_grad_(False)
            else:
                trainable.append(modules)
        return trainable

    def _optimiser(self) -> torch.optim.Optimizer:
        """The optimiser. All groups exist from the first step, frozen or not, so that its state loads at any step."""
        parts: list[tuple[nn.Module, float]] = [(nn.ModuleList(self.model.new_layers()), 1.0)]
        shares = [self.spec.backbone_rate * factor for factor in stage_rate_factors(self.spec, len(self.stages))]
        parts += zip(self.stages, shares, strict=True)
        groups: list[dict[str, Any]] = []
        for module, share in parts:
            named = [(name, value) for name, value in module.named_parameters() if value.requires_grad]
            biases = [value for name, value in named if name.endswith("bias")]
            weights = [value for name, value in named if not name.endswith("bias")]
            bias_decay = self.spec.weight_decay if self.spec.bias_rate == 1.0 else 0.0
            groups.append({"params": weights, "share": share, "weight_decay": self.spec.weight_decay})
            groups.append({"params": biases, "share": share * self.spec.bias_rate, "weight_decay": bias_decay})
        groups = [group for group in groups if group["params"]]
        if self.spec.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=self.spec.rate, momentum=self.spec.momentum, fused=True)
        return torch.optim.AdamW(groups, lr=self.spec.rate, fused=True)

    def _save(self, path: Path, step: int, *, seconds: float) -> None:
        content = {
            "step": step,
            "seconds": seconds,
            "priors": self.model.priors_fingerprint(),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_checkpoint(path, content)

    def _resume(self, path: Path) -> tuple[int, float, list[str]]:
        """Load the checkpoint, if any. Returns its step and seconds, and a sentence about each damaged file."""
        content, damaged = latest_checkpoint(path, self.numerics.device)
        if content is None:
            return 0, 0.0, damaged
        if content["priors"] != self.model.priors_fingerprint():
            raise ValueError(f"{path}: a checkpoint with other priors; delete it to start again")
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        return content["step"], content["seconds"], damaged


def checkpoint_interval(spec: TrainSpec) -> int:
    """Steps between checkpoints: at most a `spec.checkpoints`-th of the training, at least 1."""
    return max(1, spec.steps // max(1, spec.checkpoints))
