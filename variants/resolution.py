"""The axis resolution: SSD-512."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.axis import Axis
from bench.detector.prior_presets import PRESETS, preset_shapes
from bench.spec import ExtraLevel, Shape, Specification

MAPS = (64, 32, 16, 8, 4, 2, 1)
STEPS = (8, 16, 32, 64, 128, 256, 512)


class Resolution(Axis):
    """The input has 512 pixels a side, as in SSD-512.

    Remedy: an object of 20 pixels has 12 at 300 pixels, and 20 at 512: small and occluded objects keep their details.
    Source: SSD512 (Liu et al. 2016), with 76.9 mAP on VOC 2007 where SSD300 has 74.3.
    Difference from the baseline: the size of the input, and what follows from it: seven levels in place of six, 24,564
    priors in place of 8,732, with the preset of the same name (Caffe's). The last level has a 3 x 3 convolution of
    stride 2; Caffe's has 4 x 4 of stride 1.
    Cost: about three times the operations.
    """

    name = "resolution"
    slot = "resolution"

    def refusal(self, base: Specification) -> str | None:
        if base.detector.size == 300 and _preset_of(base.detector.priors) is not None:
            return None
        return "its priors exist for the presets of SSD-300 only; use --priors coco or voc, or leave the axis out"

    def apply(self, spec: Specification, prepared: Mapping[str, Any]) -> Specification:
        preset = _preset_of(spec.detector.priors)
        assert preset is not None, "see refusal"
        detector = replace(
            spec.detector,
            size=512,
            feature_maps=MAPS,
            steps=STEPS,
            extras=_halving(spec.detector.extras),
            priors=preset_shapes(preset, size=512),
        )
        return replace(spec, detector=detector)


def _preset_of(priors: tuple[tuple[Shape, ...], ...]) -> str | None:
    return next((name for name in PRESETS if preset_shapes(name) == priors), None)


def _halving(extras: tuple[ExtraLevel, ...]) -> tuple[ExtraLevel, ...]:
    """One more extra level, and each with half the side of the one before."""
    return tuple(replace(extra, stride=2, padding=1) for extra in (*extras, extras[-1]))
