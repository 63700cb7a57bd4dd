"""Checks of a request that need neither torch nor the data: a wrong option or path is reported at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.axis import FoundAxis, clashing, find_axes
from bench.compare.files import DetectionFile, detection_files
from bench.data.sources import check_source, data_name
from bench.errors import UserError, nearest
from bench.options import (
    BACKENDS,
    PRIOR_PRESETS,
    BaselineOptions,
    CompareOptions,
    DiagnoseOptions,
    RunOptions,
    ThroughputOptions,
)
from bench.run.plan import Control, check_clashes
from bench.spec import BASELINE
from bench.storage.run_folder import PLAN
from variants.controls import CONTROLS


@dataclass(frozen=True, kw_only=True)
class CheckedRun:
    """What the words of a request stand for. data_name: for the folder and the tables.

    variants: the axes that are on in each row of the matrix; None for every combination.
    notes: what the user should know before the run.
    """

    data_name: str
    axes: tuple[FoundAxis, ...]
    variants: frozenset[tuple[str, ...]] | None
    controls: Mapping[str, Control]
    notes: tuple[str, ...]


def check_run(options: RunOptions) -> CheckedRun:
    """Raise UserError for anything in the options that is wrong whatever the data and the device are."""
    check_source(options.data.source)
    check_files(options.baseline)
    check_backend(options.backend)
    check_cpu_kernels(options.cpu_kernels, options.device)
    check_like(options)
    check_lengths(options)
    found = find_axes("variants", options.axis_files)
    axes = chosen_axes(options.axes, found, options.axis_files)
    variants: frozenset[tuple[str, ...]] | None = None
    notes = []
    if options.variants is None:
        check_clashes(axes)
    else:
        axes, variants = chosen_variants(options.variants, tuple(found.values()) if options.axes is None else axes)
        if BASELINE not in _split(options.variants, [BASELINE]):
            notes.append("note: the baseline runs too, because every variant is compared with it")
    return CheckedRun(
        data_name=data_name(options.data.source),
        axes=axes,
        variants=variants,
        controls=chosen_controls(options.controls),
        notes=tuple(notes),
    )


def check_diagnose(options: DiagnoseOptions) -> None:
    """The same for ``diagnose``."""
    check_source(options.data.source)
    check_files(options.baseline)
    if options.detections is not None and options.baseline.weights != "none":
        raise UserError("--detections and --weights: give only one of them")
    if options.detections is not None and not options.detections.is_file():
        raise UserError(f"--detections {options.detections}: no such file")


def check_compare(options: CompareOptions) -> tuple[DetectionFile, ...]:
    """The same for ``compare``; returns its files."""
    check_source(options.data.source)
    if options.all_images and options.data.eval_list is not None:
        raise UserError("--all-images and --eval-list: give only one of them")
    return detection_files(options.files)


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


def check_lengths(options: RunOptions) -> None:
    """Raise UserError if ``--continue`` or ``--lengths`` does not fit the other options."""
    if not options.lengths and options.continued is None:
        return
    option = "--lengths" if options.lengths else "--continue"
    if options.baseline.profile == "smoke":
        raise UserError(f"{option}: a smoke test keeps no state of its trainings; choose another --profile")
    if options.lengths and options.continued is not None:
        raise UserError("--lengths and --continue: give only one of them")
    if options.lengths and options.baseline.steps is not None:
        raise UserError("--lengths and --steps: give only one of them")
    if options.continued is not None and options.baseline.steps is None:
        raise UserError("--continue: give the number of steps of the longer training: --steps N")
    if options.continued is not None and not (options.continued / PLAN).is_file():
        raise UserError(
            f"--continue {options.continued} is not the folder of a run: it has no {PLAN}; give results/NAME"
        )


def check_like(options: RunOptions) -> None:
    """Raise UserError if ``--like`` is not a run, or stands without ``--plan``."""
    if options.like is None:
        return
    if not options.plan:
        raise UserError(f"--like {options.like}: only --plan uses it; add --plan, or omit --like")
    if not (options.like / PLAN).is_file():
        raise UserError(f"--like {options.like} is not the folder of a run: it has no {PLAN}; give results/NAME")


def chosen_axes(names: str | None, found: Mapping[str, FoundAxis], files: tuple[Path, ...]) -> tuple[FoundAxis, ...]:
    """The axes to cross, in the order of their slots. names, files: ``--axes`` and ``--axis-file``."""
    if names is None:
        return tuple(axis for axis in found.values() if axis.axis.in_default_matrix or axis.file in files)
    wanted = _split(names, found)
    for name in wanted:
        if name not in found:
            raise UserError(f"--axes: there is no axis {name!r}{nearest(name, found)}; there are {', '.join(found)}")
    return tuple(axis for name, axis in found.items() if name in wanted)


def chosen_variants(
    names: str, axes: tuple[FoundAxis, ...]
) -> tuple[tuple[FoundAxis, ...], frozenset[tuple[str, ...]]]:
    """The axes that some chosen variant uses, and the axes that are on in each variant; the baseline is always one.

    names: ``--variants``. axes: those that may be used, in the order of their slots.

    Raises UserError for an unknown name, or if two axes of a variant have the same slot.
    """
    known = [found.axis.name for found in axes]
    chosen: set[tuple[str, ...]] = {()}
    for name in _split(names, [BASELINE]):
        parts = [] if name == BASELINE else [_spelled(part.strip(), known) for part in name.split("+")]
        for part in parts:
            if part not in known:
                raise UserError(_unknown_variant(name, part, known))
        sentence = clashing([found.axis for found in axes if found.axis.name in parts])
        if sentence:
            raise UserError(f"--variants {name}: {sentence}, so they cannot be combined")
        chosen.add(tuple(axis for axis in known if axis in parts))
    used = tuple(found for found in axes if any(found.axis.name in active for active in chosen))
    return used, frozenset(chosen)


def _unknown_variant(name: str, part: str, known: list[str]) -> str:
    if name in CONTROLS:
        return f"--variants: {name!r} is a control; request it with --controls {name}"
    axis = "" if part == name else f", because there is no axis {part!r}"
    others = f" and the combinations of {', '.join(known)}, such as {'+'.join(known[:2])}" if known else " alone"
    return (
        f"--variants: there is no variant {name!r}{axis}{nearest(part, [BASELINE, *known])}; there is "
        f"{BASELINE}{others}"
    )


def chosen_controls(names: str) -> dict[str, Control]:
    """The control rows by name. names: ``--controls``."""
    wanted = _split(names, CONTROLS)
    for name in wanted:
        if name not in CONTROLS:
            known = ", ".join(CONTROLS)
            raise UserError(f"--controls: there is no control {name!r}{nearest(name, CONTROLS)}; there are {known}")
    return {name: CONTROLS[name] for name in wanted}


def _split(names: str, known: Iterable[str]) -> list[str]:
    """The names, divided by commas, as they are `known`."""
    return [] if names.lower() == "none" else [_spelled(name.strip(), list(known)) for name in names.split(",")]


def _spelled(name: str, known: Sequence[str]) -> str:
    """The known name that differs from `name` in letter case alone, otherwise `name`."""
    return name if name in known else next((each for each in known if each.casefold() == name.casefold()), name)
