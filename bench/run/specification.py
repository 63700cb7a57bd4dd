"""The baseline that a request asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.axis import find_axes
from bench.detector.prior_presets import PRESETS, preset_shapes
from bench.detector.transfer import class_outputs
from bench.detector.weights import weights_fingerprint
from bench.options import BaselineOptions
from bench.run.priors_file import read_shapes
from bench.spec import BASELINE, Specification
from variants.baseline import baseline, initialisation_of, preset_of, training_of


def base_specification(
    options: BaselineOptions, source: str, *, classes: Sequence[str], train_images: int
) -> Specification:
    """The specification with every axis off, for data with these classes and this many training images.

    options: with a backbone. source: as after ``--data``; the built-in scenes have schedules of their own.
    Raises UserError if the files of weights or priors cannot be read.
    """
    assert options.backbone is not None
    priors = options.priors or preset_of(options.profile)
    training = training_of(options.profile, train_images, scenes=source.partition(":")[0] == "scenes")
    wanted: dict[str, Any] = {"steps": options.steps, "batch": options.batch, "rate": options.rate}
    return baseline(
        classes=len(classes),
        backbone=options.backbone,
        weights=options.weights,
        weights_fingerprint=weights_fingerprint(options.weights),
        class_outputs=class_outputs(options.weights, classes) if options.backbone == "vgg16" else (),
        priors=preset_shapes(priors) if priors in PRESETS else read_shapes(Path(priors)),
        training=replace(training, **{name: value for name, value in wanted.items() if value is not None}),
        initialisation=initialisation_of(options.profile),
    )


def training_schedules(base: Specification) -> tuple[dict[str, Specification], tuple[str, ...]]:
    """The baseline and the default axes that change the schedule, by name; and a note on each axis that refuses."""
    schedules, notes = {BASELINE: base}, []
    for name, found in find_axes("variants").items():
        if found.axis.slot != "schedule" or not found.axis.in_default_matrix:
            continue
        refusal = found.axis.refusal(base)
        if refusal is None:
            schedules[name] = found.axis.apply(base, {})
        else:
            notes.append(f"No training steps of {name}: {refusal}.")
    return schedules, tuple(notes)
