"""The form of stored JSON: which entries the suite reads, and of what type they must be.

A stranger's file may hold anything. It is compared with its form when it is read, so that the code that uses it can
rely on the types. Entries that a form does not name are not read, and may be anything.

Without `from __future__ import annotations`: it would hide from TypedDict which entries are `NotRequired`.
"""

import math
from collections.abc import Iterable, Mapping
from functools import cache
from types import UnionType
from typing import Any, NotRequired, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

LARGEST = 2**63  # of an integer: larger ones do not fit into arrays

Figure = float | None


class PlannedCellForm(TypedDict):
    """A cell in plan.json."""

    id: str
    variant: str
    factors: dict[str, bool]
    seed: int
    control: NotRequired[str | None]


class TrainingForm(TypedDict, total=False):
    """What is read of a `TrainSpec`."""

    steps: int
    batch: int
    data_share: float


class DetectorForm(TypedDict, total=False):
    """What the report reads of a `DetectorSpec`."""

    size: int
    priors: list[list[list[float]]]
    feature_maps: list[int]
    match_threshold: float


class BaseForm(TypedDict, total=False):
    """The baseline in plan.json, a `Specification`."""

    detector: DetectorForm
    training: TrainingForm


class SourceForm(TypedDict, total=False):
    """A source run in the plan of a merged run."""

    seeds: list[int] | None


class PlanForm(TypedDict):
    """plan.json."""

    variants: list[str]
    axes: list[str]
    seeds: list[int]
    cells: list[PlannedCellForm]
    data: NotRequired[str | None]
    source: NotRequired[str | None]
    backbone: NotRequired[str | None]
    profile: NotRequired[str | None]
    eval_list: NotRequired[str | None]
    val_fraction: NotRequired[Figure]
    worth: NotRequired[float]
    controls: NotRequired[list[str]]
    axis_files: NotRequired[dict[str, str] | None]
    numerics: NotRequired[dict[str, Any]]
    base: NotRequired[BaseForm | None]
    merged: NotRequired[list[SourceForm]]


class AccuracyForm(TypedDict, total=False):
    """The section `accuracy` of a record; its other entries are figures, too."""

    AP: Figure
    images: int | None
    ground_truths: dict[str, Figure] | None
    per_class: dict[str, dict[str, Figure]] | None


class SweepForm(TypedDict):
    """Throughput at one batch size."""

    batch: int
    images_per_second: NotRequired[Figure]


class SpeedForm(TypedDict, total=False):
    """The section `speed` of a record; its other entries are figures, too."""

    images_per_second: Figure
    latency_p50_ms: Figure
    latency_samples: Figure
    best_batch: int | None
    sweep: list[SweepForm] | None


class CostForm(TypedDict, total=False):
    """The section `cost` of a record."""

    parameters_M: Figure
    forward_GFLOP: Figure
    train_seconds: Figure
    steps: int | None
    step_seconds_median: Figure
    peak_memory_MiB: Figure


class EnvironmentForm(TypedDict, total=False):
    """The section `environment` of a record."""

    device: dict[str, Any] | None
    packages: dict[str, Any] | None


class MicroBatchesForm(TypedDict, total=False):
    """What is read of the section `numerics` of a record; "pieces" until November 2026."""

    micro_batches: int
    pieces: int


class FitForm(TypedDict, total=False):
    """The section `training_fit` of a record."""

    AP: Figure
    images: int | None


class FailureForm(TypedDict, total=False):
    """The section `failure` of a record."""

    log_tail: list[Any] | None


class RecallForm(TypedDict, total=False):
    """How many ground truths the priors match."""

    matched: Figure
    boxes: int | None


class RecordForm(TypedDict):
    """record.json of a cell."""

    status: str
    id: NotRequired[str]
    variant: NotRequired[str]
    seed: NotRequired[int]
    accuracy: NotRequired[AccuracyForm | None]
    speed: NotRequired[SpeedForm | None]
    cost: NotRequired[CostForm | None]
    failure: NotRequired[FailureForm | None]
    environment: NotRequired[EnvironmentForm | None]
    numerics: NotRequired[MicroBatchesForm | None]
    training: NotRequired[TrainingForm | None]
    training_fit: NotRequired[FitForm | None]
    fingerprints: NotRequired[dict[str, Any] | None]
    detector: NotRequired[DetectorForm]
    prior_recall: NotRequired[dict[str, dict[str, RecallForm]]]
    warnings: NotRequired[list[str]]


class SideForm(TypedDict):
    """One side of a split."""

    files: list[str]
    digests: list[str]
    groups: NotRequired[list[int]]


class SplitForm(TypedDict):
    """split.json."""

    schema: int
    classes: list[str]
    origin: str
    fingerprint: str
    train: SideForm
    val: SideForm


class GroupsForm(TypedDict, total=False):
    """What the report reads of the validation side of a split."""

    groups: list[int] | None


class SplitGroupsForm(TypedDict, total=False):
    """What the report reads of split.json, which may be of an earlier version."""

    val: GroupsForm


class ImageForm(TypedDict):
    """An image in ground_truth.json."""

    id: int
    file_name: str
    width: float
    height: float


class BoxForm(TypedDict):
    """An entry with a box, x, y, width and height, in detections.json and ground_truth.json."""

    bbox: list[float]


class AnnotationForm(BoxForm):
    """A box in ground_truth.json."""

    image_id: int
    iscrowd: NotRequired[int]


class CategoryForm(TypedDict):
    """A class in ground_truth.json."""

    id: int
    name: str


class GroundTruthForm(TypedDict, total=False):
    """ground_truth.json. A missing list is empty."""

    images: list[ImageForm]
    annotations: list[AnnotationForm]
    categories: list[CategoryForm]


class ThroughputForm(TypedDict, total=False):
    """Throughput of a network in speed.json."""

    value: Figure
    low: Figure
    high: Figure
    batch: int | None


class LatencyForm(TypedDict, total=False):
    """Latency of a network in speed.json."""

    p50: Figure
    p90: Figure
    p99: Figure
    low: Figure
    high: Figure
    calls: int | None


class RatioForm(TypedDict, total=False):
    """A ratio to the baseline's network in speed.json."""

    value: Figure
    low: Figure
    high: Figure
    rounds: int | None


class NetworkForm(TypedDict):
    """A network in speed.json."""

    network: str
    variants: list[str]
    images_per_second: NotRequired[ThroughputForm | None]
    latency_ms: NotRequired[LatencyForm | None]
    ratio: NotRequired[RatioForm | None]
    latency_ratio: NotRequired[RatioForm | None]
    memory_MiB: NotRequired[Figure]
    rounds_ms: NotRequired[dict[str, list[float]] | None]


class NumericsForm(TypedDict):
    """How the networks in speed.json were computed."""

    threads: int


class SpeedsForm(TypedDict):
    """speed.json."""

    networks: list[NetworkForm]
    cells: NotRequired[list[str]]
    failure: NotRequired[str | None]
    numerics: NotRequired[NumericsForm]
    machine: NotRequired[dict[str, Any] | None]


class OwnerForm(TypedDict):
    """in-use.json, the lock of a run's folder."""

    pid: int
    host: str
    since: str


def mismatch(content: Any, form: Any, place: str = "") -> str | None:
    """Where parsed JSON first differs from a form, as a sentence; None if it has the form.

    form: a type hint: a TypedDict, `list` or `dict` of forms, a union, `bool`, `int`, `float`, `str`, None or Any. Of a
        union, the first form is named.
    """
    alternatives = get_args(form) if isinstance(form, UnionType) else (form,)
    findings = [_mismatch(content, each, place) for each in alternatives]
    return None if None in findings else findings[0]


def _mismatch(content: Any, form: Any, place: str) -> str | None:
    """As `mismatch`, for a form that is not a union."""
    kind, parts = get_origin(form) or form, get_args(form)
    inner: Iterable[tuple[Any, Any, str]] = ()  # contents, forms and places of the parts
    if is_typeddict(form) and isinstance(content, Mapping):
        if missing := sorted(form.__required_keys__ - content.keys()):
            return f"{place or 'it'} has no entry {missing[0]!r}"
        inner = ((content[name], hint, _inside(place, name)) for name, hint in _hints(form).items() if name in content)
    elif kind is dict and isinstance(content, Mapping):
        inner = ((value, parts[1], _inside(place, name)) for name, value in content.items())
    elif kind is list and isinstance(content, list):
        inner = ((value, parts[0], f"{place}[{row}]") for row, value in enumerate(content))
    elif not _is_plain(content, form):
        return f"{place or 'it'} is {shown(content)}, not {_name(form)}"
    return next((finding for part in inner if (finding := mismatch(*part)) is not None), None)


@cache
def _hints(form: Any) -> dict[str, Any]:
    return get_type_hints(form)


def _is_plain(content: Any, form: Any) -> bool:
    if form is Any or content is None:
        return form in (Any, None, type(None))
    if form in (int, float):
        whole = isinstance(content, int) and not isinstance(content, bool) and -LARGEST <= content < LARGEST
        return whole or (form is float and isinstance(content, float) and math.isfinite(content))
    return form in (bool, str) and isinstance(content, form)


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else str(name)


def shown(content: Any) -> str:
    """A value in an error, shortened."""
    text = repr(content)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _name(form: Any) -> str:
    kind = get_origin(form) or form
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    if kind is None or kind is type(None):
        return "null"
    return names.get(kind, "an object")
