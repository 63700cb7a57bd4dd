"""Checks of a request that need neither torch nor the data: a wrong option or path is reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.axis import FoundAxis, find_axes
from bench.data.sources import check_source, data_name
from bench.errors import UserError, nearest
from bench.options import BACKENDS, PRIOR_PRESETS, BaselineOptions, DiagnoseOptions, RunOptions, ThroughputOptions
from bench.run.plan import Control, check_clashes
from variants.controls import CONTROLS


@dataclass(frozen=True, kw_only=True)
class CheckedRun:
    """What the words of a request stand for. data_name: for the folder and the tables."""

    data_name: str
    axes: tuple[FoundAxis, ...]
    controls: Mapping[str, Control]


def check_run(options: RunOptions) -> CheckedRun:
    """Raise UserError for anything in the options that is wrong whatever the data and the device are."""
    check_source(options.data.source)
    check_files(options.baseline)
    check_backend(options.backend)
    check_cpu_kernels(options.cpu_kernels, options.device)
    axes = chosen_axes(options.axes, options.axis_files)
    check_clashes(axes)
    return CheckedRun(data_name=data_name(options.data.source), axes=axes, controls=chosen_controls(options.controls))


def check_diagnose(options: DiagnoseOptions) -> None:
    """The same for ``diagnose``."""
    check_source(options.data.source)
    check_files(options.baseline)
    if options.detections is not None and options.baseline.weights != "none":
        raise UserError("--detections and --weights: give only one of them")
    if options.detections is not None and not options.detections.is_file():
        raise UserError(f"--detections {options.detections}: no such file")


def check_throughput(options: ThroughputOptions) -> None:
    """The same for ``throughput``."""
    if options.data.source:
        check_source(options.data.source)
    check_files(options.baseline)
    check_cpu_kernels(options.cpu_kernels, options.device)


def check_files(options: BaselineOptions) -> None:
    """Raise UserError if the file of weights or of priors does not exist."""
    if options.weights not in ("pretrained", "none") and not Path(options.weights).is_file():
        raise UserError(f"--weights {options.weights}: no such file. Give a file, 'pretrained' or 'none'")
    if options.priors not in (None, *PRIOR_PRESETS) and not Path(options.priors).is_file():
        hint = nearest(options.priors, PRIOR_PRESETS)
        raise UserError(f"--priors {options.priors}: no such file{hint}. Give a file, {' or '.join(PRIOR_PRESETS)}")


def check_backend(backend: str) -> None:
    """Raise UserError if the scheduler is unknown or not installed."""
    if backend not in BACKENDS:
        raise UserError(f"--backend {backend}: unknown{nearest(backend, BACKENDS)}; there are {', '.join(BACKENDS)}")
    package = {"dask": "distributed", "ray": "ray"}.get(backend)
    if package is not None and find_spec(package) is None:
        raise UserError(f"--backend {backend} needs a package: pip install 'ssd-ablation[{backend}]'")


def check_cpu_kernels(choice: str, device: str) -> None:
    """Raise UserError for CPU kernels on another device. device: may be "auto"."""
    if choice == "on" and device not in ("auto", "cpu"):
        raise UserError(f"--cpu-kernels on: --device {device} has none. Use --cpu-kernels auto, or --device cpu")


def chosen_axes(names: str | None, files: tuple[Path, ...]) -> tuple[FoundAxis, ...]:
    """The axes to cross, in the order of their slots. names, files: ``--axes`` and ``--axis-file``."""
    found = find_axes("variants", files)
    if names is None:
        return tuple(axis for axis in found.values() if axis.axis.in_default_matrix or axis.file in files)
    wanted = _split(names)
    for name in wanted:
        if name not in found:
            raise UserError(f"--axes: there is no axis {name!r}{nearest(name, found)}; there are {', '.join(found)}")
    return tuple(axis for name, axis in found.items() if name in wanted)


def chosen_controls(names: str) -> dict[str, Control]:
    """The control rows by name. names: ``--controls``."""
    wanted = _split(names)
    for name in wanted:
        if name not in CONTROLS:
            known = ", ".join(CONTROLS)
            raise UserError(f"--controls: there is no control {name!r}{nearest(name, CONTROLS)}; there are {known}")
    return {name: CONTROLS[name] for name in wanted}


def _split(names: str) -> list[str]:
    return [] if names == "none" else [name.strip() for name in names.split(",")]
