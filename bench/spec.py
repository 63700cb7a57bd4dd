"""What a cell is, as frozen data: the detector, its training, its numerics, and their content hash.

A specification is complete: two cells with equal specifications, seed, split and numerics train the
same network on the same batches. Axes turn one specification into another; nothing else varies.
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

    norm_groups: of a GroupNorm behind each convolution, which keeps the signal of new layers alive and
        does not depend on the batch; 0 for none, as in the paper.
    """

    squeeze: int
    channels: int
    stride: int
    padding: int
    norm_groups: int = 0


@dataclass(frozen=True, kw_only=True)
class NeckSpec:
    """What stands between the feature maps and the heads; `kind` names a builder in `detector.neck`.

    levels: how many, from the finest on, are joined from the top down; the coarser ones have the same convolutions.
    """

    kind: str
    channels: int
    levels: int


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """A single-shot detector over several feature maps (Liu et al. 2016).

    classes: C, the number of object classes, background not counted.
    size: side of the square input in pixels.
    weights: "pretrained", "none", or the path of a file.
    weights_fingerprint: hash of that file, empty otherwise.
    class_outputs: where that file is an SSD, the output of its classifier for each class, 0 for none.
    feature_maps: side of each level's map; the first ones come from the backbone, `extras` make the others.
    steps: distance between prior centres of each level, in input pixels.
    level_norms: root mean square over the channels that an L2Norm gives each of the backbone's maps at
        the start; 0 for no L2Norm (the paper's scale of 20 over conv4_3's 512 channels is 0.88).
    priors: for each level the shapes at every cell, as fractions of the input, in order.
    variances: of box coding, centre and size (0.1 and 0.2 are weights 10 and 5 elsewhere).
    match_threshold: a prior of at least this IoU with a ground truth is positive.
    negatives_per_positive: hard negatives kept for each positive of an image.
    initialisation: of new layers. "prior": Glorot's, heads small and the classifier biased so that objects as a
        whole start at `object_probability` (Lin et al. 2017); "caffe": uniform by the fan-in, biases zero.
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
    """Until this share of the steps, so much of the backbone (from the top down) is trainable."""

    until: float
    trainable: float


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """The training augmentation of the SSD paper's Caffe code (`annotated_data_layer`, ssd_pascal.py)."""

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
    """One training run; every quantity that changes with the step is a pure function of it (`schedule`).

    rate: peak learning rate of the heads; warmup_share of the steps leads up to it linearly.
    decay: "cosine" from `decay_start` (a share of the steps) to `final_rate_share` of the rate, or
        "steps": a tenth at each of `drops`.
    bias_rate: factor of the learning rate of biases, which then have no weight decay either (Caffe: 2).
    backbone_rate: factor of the learning rate of the whole backbone, in every arm.
    frozen_stride: pretrained stages up to this stride stay as they came, in every arm (4 is the
        stem and the first stage, the field's default for pretrained detectors; 0 trains everything).
    phases: what of the backbone is trainable when; stage_rate_decay divides the rate of each group of
        stages that a later phase opens, so the rates fall downwards.
    checkpoints: how many are written on the way; what an interruption costs is at most one part of so many
        (or a single step).
    data_share: of the training images that is used.
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


@dataclass(frozen=True, kw_only=True)
class Specification:
    """Everything that an axis may change."""

    detector: DetectorSpec
    training: TrainSpec


@dataclass(frozen=True, kw_only=True)
class Numerics:
    """Decided once per run and the same in all arms: it changes the figures in the last digits.

    micro_batches: in which a batch of training goes through the network, one after the other; above 1 where
        memory does not hold all of it. The loss is that of the whole batch.
    cpu_kernels: depthwise convolutions, what can be joined with them, VGG16's 3 x 3 convolutions, and the photometric
        part of augmentation in our own compiled loops (a CPU); their compiler takes some seconds in a new environment,
        and one or two in every run.
    """

    device: str
    precision: Literal["float32", "bfloat16"]
    threads: int
    channels_last: bool = True
    micro_batches: int = 1
    cpu_kernels: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row's training with one seed.

    factors: which axes are on. control: the name of the control that the row is, None in the matrix.
    base: the specification with all axes off (and the control in it). split: fingerprint.
    axes: the active axes and the hashes of their files.
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
        """Hash of the content: the same cell has the same id in every run and on every machine."""
        return content_hash(asdict(self))

    @property
    def active(self) -> tuple[str, ...]:
        return tuple(name for name, on in self.factors if on)


def detector_from(content: Mapping[str, Any]) -> DetectorSpec:
    """The specification that a record holds under `detector`: what `asdict` made, read back from JSON.

    Raises UserError for a record of another version, whose detector has other parts.
    """
    values = {name: _tuples(value) for name, value in content.items()}
    try:
        values["extras"] = tuple(ExtraLevel(**extra) for extra in content["extras"])
        values["neck"] = NeckSpec(**content["neck"]) if content["neck"] else None
        return DetectorSpec(**values)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"the record describes a detector of another version of this program ({error}); "
            "go back to that version (environment.json names it), or train again"
        ) from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def content_hash(content: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the canonical JSON of `content`."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
