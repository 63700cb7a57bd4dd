"""A cell as frozen data: detector, training, numerics, and their content hash.

A specification is complete: two cells with the same specification, seed, split and numerics train the same network on
the same batches. Axes turn one specification into another; nothing else varies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from bench.errors import UserError

BASELINE = "baseline"  # name of the variant with all axes off

Shape = tuple[float, float]  # width and height of a prior, as fractions of the network's input


@dataclass(frozen=True, kw_only=True)
class ExtraLevel:
    """One extra feature map: a 1x1 convolution to `squeeze` channels, then 3x3 to `channels`, each with ReLU.

    norm_groups: groups of the GroupNorm after each convolution, which keeps the signal of untrained layers alive and
        does not depend on the batch; 0 for no norm, as in the paper.
    """

    squeeze: int
    channels: int
    stride: int
    padding: int
    norm_groups: int = 0


@dataclass(frozen=True, kw_only=True)
class NeckSpec:
    """The layers between the feature maps and the heads. kind: names a builder in `detector.neck`.

    levels: number of levels, from the finest on, in the top-down pathway; coarser levels only get the convolutions.
    """

    kind: str
    channels: int
    levels: int


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """A single-shot detector over several feature maps (Liu et al. 2016).

    classes: C, the number of object classes without background.
    size: side of the square input in pixels.
    weights: "pretrained", "none", or the path of a file.
    weights_fingerprint: hash of that file, otherwise empty.
    class_outputs: if that file is an SSD, its classifier's output for each class, 0 for none.
    feature_maps: side of each level's map; the backbone makes the first ones, `extras` the others.
    steps: distance between the prior centres of each level, in input pixels.
    level_norms: initial root mean square over the channels that an L2Norm gives each map of the backbone;
        0 for no L2Norm (the paper's scale of 20 over conv4_3's 512 channels is 0.88).
    priors: for each level, the (width, height) of the shapes at every position, as fractions of the input, in order.
    variances: of the box coding, for centre and size (0.1 and 0.2 correspond to weights 10 and 5 elsewhere).
    match_threshold: a prior is positive if its IoU with a ground truth is at least this.
    negatives_per_positive: hard negatives per positive of an image; 0 to learn from all negatives.
    initialisation: of new layers. "prior": Glorot, small heads, and a classifier bias that gives all objects together
        the initial probability `object_probability` (Lin et al. 2017); "caffe": uniform by fan-in, zero biases.
    """

    classes: int
    backbone: str
    weights: str
    weights_fingerprint: str = ""
    class_outputs: tuple[int, ...] = ()
    size: int = 300
    feature_maps: tuple[int, ...] = (38, 19, 10, 5, 3, 1)
    steps: tuple[int, ...] = (8, 16, 32, 64, 100, 300)
    level_norms: tuple[float, ...] = (0.5, 0.5, 0.5)
    extras: tuple[ExtraLevel, ...]
    neck: NeckSpec | None = None
    priors: tuple[tuple[Shape, ...], ...]
    variances: tuple[float, float] = (0.1, 0.2)
    match_threshold: float = 0.5
    negatives_per_positive: int = 3
    initialisation: Literal["prior", "caffe"] = "prior"
    object_probability: float = 0.1
    box_loss: str = "smooth_l1"
    class_loss: str = "cross_entropy"
    score_threshold: float = 0.01
    candidates_per_class: int = 400
    nms_threshold: float = 0.45
    detections_per_image: int = 200


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Up to the share `until` of the steps, the top share `trainable` of the backbone is trainable."""

    until: float
    trainable: float


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """The training augmentation of the SSD paper's Caffe code (`annotated_data_layer`, ssd_pascal.py).

    crop_trials: crops that each sampler tries; 0 never to crop.
    """

    photometric_probability: float = 0.5
    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue_degrees: float = 36.0
    expand_probability: float = 0.5
    expand_largest: float = 4.0
    crop_overlaps: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    crop_scale: tuple[float, float] = (0.3, 1.0)
    crop_ratio: tuple[float, float] = (0.5, 2.0)
    crop_trials: int = 50
    mirror_probability: float = 0.5


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """One training run. Every quantity that changes during training is a pure function of the step (`schedule`).

    rate: peak learning rate of the heads, after a linear warm-up over `warmup_share` of the steps.
    decay: "cosine" from `decay_start` (a share of the steps) to `final_rate_share` of the rate, or
        "steps": divided by ten at each of `drops` (shares of the steps).
    bias_rate: factor of the learning rate of biases; if it is not 1, they have no weight decay (Caffe: 2).
    backbone_rate: factor of the learning rate of the whole backbone, in every arm.
    frozen_stride: pretrained stages up to this stride are never trained, in every arm (4: the stem and the first
        stage, the usual default for pretrained detectors; 0: everything is trained).
    phases: which share of the backbone is trainable when.
    stage_rate_decay: divides the backbone's learning rate once for the top half of its stages, twice for the others.
    checkpoints: number of checkpoints; an interruption costs at most the steps between two of them.
    data_share: share of the training images that is used.
    """

    steps: int
    batch: int
    optimiser: Literal["sgd", "adamw"]
    rate: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_share: float = 0.1
    decay: Literal["cosine", "steps"] = "cosine"
    decay_start: float = 0.4
    final_rate_share: float = 0.01
    drops: tuple[float, ...] = ()
    bias_rate: float = 1.0
    backbone_rate: float = 1.0
    clip_norm: float = 0.0
    frozen_stride: int = 4
    phases: tuple[Phase, ...] = (Phase(until=1.0, trainable=1.0),)
    stage_rate_decay: float = 1.0
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    checkpoints: int = 10
    data_share: float = 1.0


def images_in_share(images: int, share: float) -> int:
    """The number of training images that a `TrainSpec.data_share` of `images` is; at least one."""
    return max(1, round(share * images))


@dataclass(frozen=True, kw_only=True)
class Specification:
    """Everything that an axis may change."""

    detector: DetectorSpec
    training: TrainSpec


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """How a run computes. Decided once per run and the same in all arms, since it changes the last digits of figures.

    precision: of the network's forward pass in training and inference. threads: of torch on the CPU, per cell.
    micro_batches: parts of a batch that go through the network one after the other (gradient accumulation); above 1 if
        memory does not hold the whole batch. The loss is that of the whole batch.
    cpu_kernels: whether the compiled kernels of `bench.cpu` are used. Compiling them takes some seconds in a new
        environment; loading them takes one or two in every run.
    """

    device: str
    precision: Literal["float32", "bfloat16"]
    threads: int
    channels_last: bool = True
    micro_batches: int = 1
    cpu_kernels: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training: a variant with a seed.

    factors: which axes are on. control: name of the control, None for a cell of the matrix.
    base: the specification with all axes off (and the control applied). split: its fingerprint.
    axes: name and file hash of each active axis.
    """

    variant: str
    factors: tuple[tuple[str, bool], ...]
    control: str | None = None
    seed: int
    base: Specification
    numerics: Numerics
    split: str
    axes: tuple[tuple[str, str], ...]

    @property
    def id(self) -> str:
        """Hash of the content. The same cell has the same id in every run and on every machine."""
        return content_hash(asdict(self))

    @property
    def active(self) -> tuple[str, ...]:
        return tuple(name for name, on in self.factors if on)


def detector_from(content: Mapping[str, Any]) -> DetectorSpec:
    """The specification from the entry `detector` of a record, the JSON form of its `asdict`.

    Raises UserError for a record of another version of this program, whose detector has other fields.
    """
    values = {name: _tuples(value) for name, value in content.items()}
    try:
        values["extras"] = tuple(ExtraLevel(**extra) for extra in content["extras"])
        values["neck"] = NeckSpec(**content["neck"]) if content["neck"] else None
        return DetectorSpec(**values)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"the record describes a detector of another version of this program ({error}); "
            "use that version, which environment.json names, or train again"
        ) from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def content_hash(content: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the canonical JSON of `content`."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
