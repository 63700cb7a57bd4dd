"""What can be asked of each command, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HOME = Path(__file__).resolve().parent.parent
VAL_FRACTION = 0.2
PROFILES = ("smoke", "quick", "standard", "paper")
PRIOR_PRESETS = ("coco", "voc")
BACKENDS = ("loky", "dask", "ray")
KERNEL_CHOICES = ("auto", "on", "off")
WORTH = 1.0  # points of AP

KernelChoice = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which data. source: as after ``--data``; empty in `throughput` for the data of ``--run``, else the scenes."""

    source: str
    cache: Path
    skip_invalid: bool
    val_fraction: float
    eval_list: str | None


@dataclass(frozen=True, kw_only=True)
class BaselineOptions:
    """What the baseline is made from. None: the default of the profile, or of the device for the backbone."""

    profile: str
    weights: str
    backbone: str | None = None
    priors: str | None = None
    steps: int | None = None
    batch: int | None = None
    rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of the main job.

    axes: names divided by commas, "none", or None for the default matrix. variants: names of the rows to run, divided
    by commas, or None for all. out: None for the default folder. hung_after: minutes without progress.
    images: keep thumbnails of validation images. worth: the smallest difference worth having, in points of AP.
    plan: run nothing. like: the run that `plan` takes variances from.
    continued: the run whose trainings continue. lengths: steps of several runs, each of which continues the one before.
    """

    data: DataOptions
    baseline: BaselineOptions
    axes: str | None
    variants: str | None
    axis_files: tuple[Path, ...]
    controls: str
    seeds: int
    first_seed: int
    out: Path | None
    device: str
    cpu_kernels: KernelChoice
    jobs: int
    backend: str
    retries: int
    hung_after: float
    mix_versions: bool
    images: bool
    worth: float
    plan: bool
    like: Path | None
    continued: Path | None
    lengths: tuple[int, ...]

    @property
    def may_use_cpu_kernels(self) -> bool:
        """False if it is certain before reading the data that the cells will not use CPU kernels."""
        if self.cpu_kernels != "auto":
            return self.cpu_kernels == "on"
        few_images = self.baseline.profile == "smoke" and self.baseline.steps is None and self.baseline.batch is None
        return self.device != "cuda" and not few_images


@dataclass(frozen=True, kw_only=True)
class PreflightOptions:
    """Options of ``preflight``."""

    data: DataOptions
    out: Path | None
    sheet: bool


@dataclass(frozen=True, kw_only=True)
class DiagnoseOptions:
    """Options of ``diagnose``."""

    data: DataOptions
    baseline: BaselineOptions
    detections: Path | None
    out: Path | None


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of ``compare``.

    files: as given, ``FILE`` or ``NAME=FILE``. worth, fail_below: in points of AP. json: print the result as JSON.
    """

    data: DataOptions
    files: tuple[str, ...]
    all_images: bool
    worth: float
    fail_below: float | None
    json: bool
    out: Path | None


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of ``report``. worth: in points of AP; None for that of the run."""

    runs: tuple[Path, ...]
    out: Path | None
    worth: float | None
    cache: Path


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of ``predict``."""

    run: Path
    images: tuple[Path, ...]
    variant: str | None
    threshold: float
    out: Path | None
    cache: Path


@dataclass(frozen=True, kw_only=True)
class ThroughputOptions:
    """Options of ``throughput``. seconds: for stages, steps and each part of the comparison."""

    data: DataOptions
    baseline: BaselineOptions
    run: Path | None
    variant: str | None
    device: str
    cpu_kernels: KernelChoice
    precision: str | None
    batches: tuple[int, ...]
    compare: str | None
    seconds: float
    out: Path | None
