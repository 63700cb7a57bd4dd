"""torchvision's SSD and ours: the same work on the same tensors, interleaved.

Contenders, each on a copy of the same weights: torchvision as its users run it (float32, its own loop), torchvision at
its best (our precision, channels last, fused update), and ours. On a CPU, the allocator and OpenMP settings of our
process (`bench.device.process_settings`) make a large difference, and users of torchvision do not have them. There "as
shipped" runs in a child process without these settings, and "in our process" is the same code with them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.ssd import SSD as TorchvisionSSD

from bench.data.targets import Targets
from bench.detector.boxes import to_corners
from bench.detector.loss import multibox_loss
from bench.detector.postprocess import detect
from bench.detector.ssd import SSD
from bench.device.clock import Timing
from bench.device.precision import autocast, dtype_of
from bench.spec import Numerics, Phase, TrainSpec
from bench.speed.child_process import in_child_process
from bench.speed.cost import count_flops, dense_convolution
from bench.speed.inference import batches_of
from bench.speed.interleaved import Budget, Contender, Ratio, measure_interleaved, paired_ratios, ratio_columns
from bench.speed.stages import Outputs
from bench.speed.torchvision_peer import (
    torchvision_boxes,
    torchvision_loss,
    torchvision_optimiser,
    torchvision_ssd,
    torchvision_step,
    torchvision_targets,
)
from bench.training.trainer import Trainer

AS_SHIPPED = "as shipped"
IN_OUR_PROCESS = "in our process"
AT_ITS_BEST = "at its best"
OURS = "ours"
STEP, INFERENCE, LOSS, POSTPROCESSING = (
    "training step",
    "inference",
    "matching + loss",
    "post-processing",
)
TASKS = (STEP, INFERENCE, LOSS, POSTPROCESSING)
K = TypeVar("K", bound=Hashable)
HARMLESS_RATE = 1e-6  # hundreds of steps hardly change the weights


def plain_training(training: TrainSpec) -> TrainSpec:
    """The training that all contenders support: SGD with momentum on every weight, at one rate."""
    return replace(
        training,
        optimiser="sgd",
        rate=HARMLESS_RATE,
        bias_rate=1.0,
        clip_norm=0.0,
        frozen_stride=0,
        phases=(Phase(until=1.0, trainable=1.0),),
        stage_rate_decay=1.0,
        backbone_rate=1.0,
    )


class Key(NamedTuple):
    """A row of the table. classes: outputs of the classifier, including background."""

    task: str
    classes: int
    batch: int
    contender: str
    precision: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """The inputs of all contenders.

    images: (N, 3, S, S) uint8 for inference. train_images: (B, 3, S, S) for training steps.
    targets: of H images; the first B are `train_images`.
    outputs: of H images, for matching, loss and post-processing.
    further: outputs of classifiers with other numbers of classes, for post-processing only.
    """

    images: Tensor
    train_images: Tensor
    targets: Targets
    outputs: Outputs
    further: Sequence[Outputs] = ()


def measure_comparison(
    model: SSD,
    work: Work,
    training: TrainSpec,
    *,
    numerics: Sequence[Numerics],
    batches: Sequence[int],
    budget: Budget,
) -> dict[str, Any]:
    """`rows` by task, classes, batch and contender, and the measured `ceiling`.

    numerics: differ only in their precision. All contenders train with SGD with momentum on every weight.

    A row has the median and quartiles of the time, `times_as_fast` relative to torchvision as shipped (see
    `paired_ratio`), the `GFLOP` of a call, and `share_of_ceiling`: its GFLOP/s relative to one large dense convolution
    of the same precision, measured in the same rounds. A training step counts as three forward passes, because torch's
    counter takes the backward pass of a depthwise convolution for that of a dense one.
    """
    device = torch.device(numerics[0].device)
    torchvision = _Torchvision(torchvision_ssd(model), model.priors, work, training, batches)
    # All contenders have the same shapes and therefore the same count
    forward = count_flops(model, work.images[:1]) / 1e9
    dense: dict[str, tuple[Callable[[], object], int]] = {
        each.precision: dense_convolution(each.device, dtype_of(each))
        for each in [replace(numerics[0], precision="float32"), *numerics]
    }
    ceilings = {
        Key("ceiling", 0, 0, "", name): Contender(call=call, batch=1, calls_per_round=3)
        for name, (call, _) in dense.items()
    }
    with torchvision_as_shipped(torchvision, numerics[0]) as as_shipped:
        contenders = dict(as_shipped)
        for each in numerics:
            contenders |= torchvision(each, AT_ITS_BEST)
        for each in numerics:
            calls = _our_calls(model, work, training, each)
            contenders |= _contenders(calls, work, OURS, numerics=each, batches=batches)
        timings = measure_interleaved(contenders | ceilings, device=device, budget=budget, reference=_as_shipped)
    ratios = paired_ratios(timings, _as_shipped)
    rate = {
        name: flop / 1e9 / timings[Key("ceiling", 0, 0, "", name)].p50
        for name, (_, flop) in dense.items()
        if Key("ceiling", 0, 0, "", name) in timings
    }
    order = sorted(contenders, key=lambda key: (TASKS.index(key.task), key.classes, key.batch))
    return {
        "rows": [_row(key, timings.get(key), ratios.get(key), _gflop(key, forward), rate) for key in order],
        "ceiling": [{"precision": name, "GFLOP_per_second": value} for name, value in rate.items()],
    }


@contextmanager
def torchvision_as_shipped(
    make: Callable[[Numerics, str], Mapping[K, Contender]], numerics: Numerics
) -> Iterator[dict[K, Contender]]:
    """torchvision's contenders with their users' settings, for comparison with ours of `numerics`.

    make: from numerics and a name to contenders.
    """
    plain = replace(numerics, precision="float32", channels_last=False)
    if numerics.device != "cpu":
        yield dict(make(plain, AS_SHIPPED))
        return
    with in_child_process(partial(make, plain, AS_SHIPPED), threads=numerics.threads) as contenders:
        yield contenders | dict(make(plain, IN_OUR_PROCESS))


def _as_shipped(key: Key) -> Key:
    return key._replace(contender=AS_SHIPPED, precision="float32")


def _row(
    key: Key, timing: Timing | None, ratio: Ratio | None, gflop: float | None, rate: Mapping[str, float]
) -> dict[str, Any]:
    """rate: GFLOP/s of a dense convolution by precision."""
    quartiles = None if timing is None else 1000 * np.percentile(timing.seconds, (25, 75))
    measured = timing is not None and gflop is not None and key.precision in rate
    return {
        **key._asdict(),
        "samples": timing.n if timing else 0,
        "p50_ms": 1000 * timing.p50 if timing else None,
        "p25_ms": None if quartiles is None else float(quartiles[0]),
        "p75_ms": None if quartiles is None else float(quartiles[1]),
        "iqr_ms": None if quartiles is None else float(quartiles[1] - quartiles[0]),
        **ratio_columns(ratio, "times_as_fast"),
        "GFLOP": gflop,
        "share_of_ceiling": gflop / timing.p50 / rate[key.precision] if measured and timing and gflop else None,
    }


def _gflop(key: Key, forward: float) -> float | None:
    """GFLOP of a call, from those of one forward pass of one image; None for tasks without the network."""
    return {STEP: 3 * key.batch * forward, INFERENCE: key.batch * forward}.get(key.task)


@dataclass(frozen=True, eq=False)
class _Torchvision:
    """torchvision's contenders, each with copies of `source`. Picklable."""

    source: TorchvisionSSD
    priors: Tensor
    work: Work
    training: TrainSpec
    batches: Sequence[int]

    def __call__(self, numerics: Numerics, name: str) -> dict[Key, Contender]:
        """The contenders called `name`, in the precision and layout of `numerics`."""
        work, size = self.work, self.work.images.shape[-1]
        layout = torch.channels_last if numerics.channels_last else torch.contiguous_format

        def placed() -> Any:
            return copy.deepcopy(self.source).to(numerics.device).to(memory_format=layout)

        trained, fixed = placed().train(), placed().eval()
        optimiser = torchvision_optimiser(trained, plain_training(self.training), fused=name == AT_ITS_BEST)
        targets = torchvision_targets(work.targets, size)
        train_images = [image.contiguous() / 255 for image in work.train_images]
        anchors = [to_corners(self.priors) * size] * len(targets)

        def named(logits: Tensor, offsets: Tensor) -> dict[str, Tensor]:
            return {"cls_logits": logits, "bbox_regression": offsets}

        calls = _Calls(
            step=lambda: torchvision_step(
                trained, optimiser, train_images, targets[: len(train_images)], autocast(numerics)
            ),
            predict=lambda images: fixed(list(images)),
            images=work.images.contiguous() / 255,  # torchvision's users give floats of 0 to 1
            outputs=dtype_of(numerics),
            loss=lambda logits, offsets: torchvision_loss(trained, named(logits, offsets), anchors, targets),
            postprocess=lambda logits, offsets: torchvision_boxes(fixed, named(logits, offsets), anchors, size),
        )
        return _contenders(calls, work, name, numerics=numerics, batches=self.batches)


def _our_calls(model: SSD, work: Work, training: TrainSpec, numerics: Numerics) -> _Calls:
    fixed = copy.deepcopy(model).eval()
    plain = plain_training(training)
    trainer = Trainer(copy.deepcopy(model).train(), plain, numerics)
    spec, priors, targets = model.spec, model.priors, work.targets
    first = Targets(*(part[: len(work.train_images)] for part in (targets.boxes, targets.labels, targets.crowd)))

    def postprocess(logits: Tensor, offsets: Tensor) -> object:
        return detect(replace(spec, classes=logits.shape[2] - 1), logits, offsets, priors)

    return _Calls(
        step=lambda: trainer.step(plain.steps - 1, work.train_images, first),
        predict=fixed.detect,
        images=work.images,
        outputs=torch.float32,
        loss=lambda logits, offsets: multibox_loss(spec, logits, offsets, priors=priors, targets=targets).total,
        postprocess=postprocess,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Calls:
    """The calls of a contender. loss and postprocess take logits (B, P, C + 1) and offsets (B, P, 4).

    outputs: dtype of logits and offsets, as the contender's network returns them.
    """

    step: Callable[[], object]
    predict: Callable[[Tensor], object]
    images: Tensor
    outputs: torch.dtype
    loss: Callable[[Tensor, Tensor], Tensor]
    postprocess: Callable[[Tensor, Tensor], object]


def _contenders(
    calls: _Calls, work: Work, contender: str, *, numerics: Numerics, batches: Sequence[int]
) -> dict[Key, Contender]:
    """The calls as contenders, by row of the table."""
    heads = [tuple(part.to(calls.outputs) for part in outputs) for outputs in (work.outputs, *work.further)]

    def loss() -> object:
        leaves = [part.detach().requires_grad_() for part in heads[0]]
        with autocast(numerics):
            total = calls.loss(*leaves)
        return torch.autograd.grad(total, leaves)

    def postprocess(logits: Tensor, offsets: Tensor) -> object:
        with torch.inference_mode(), autocast(numerics):
            return calls.postprocess(logits, offsets)

    def infer(inputs: Iterator[Tensor]) -> object:
        with torch.inference_mode(), autocast(numerics):
            return calls.predict(next(inputs))

    step_batch, (loss_batch, _, classes), precision = len(work.train_images), heads[0][0].shape, numerics.precision
    contenders: dict[Key, Contender] = {
        Key(STEP, classes, step_batch, contender, precision): Contender(call=calls.step, batch=step_batch),
        Key(LOSS, classes, loss_batch, contender, precision): Contender(call=loss, batch=loss_batch),
    }
    for logits, offsets in heads:
        call = partial(postprocess, logits, offsets)
        key = Key(POSTPROCESSING, logits.shape[2], len(logits), contender, precision)
        contenders[key] = Contender(call=call, batch=len(logits))
    for batch in batches:
        call = partial(infer, batches_of(calls.images, batch))
        calls_per_round = max(1, max(batches) // batch)
        key = Key(INFERENCE, classes, batch, contender, precision)
        contenders[key] = Contender(call=call, batch=batch, calls_per_round=calls_per_round)
    return contenders
