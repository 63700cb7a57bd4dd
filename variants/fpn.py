"""A feature pyramid between the maps and the heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.axis import Axis
from bench.spec import NeckSpec, Specification


class FPN(Axis):
    """Feature pyramid network (Lin et al. 2017) over all six levels.

    Remedy: the fine maps, which must find the small objects, are given what the coarse maps know.
    Levels, priors and heads of their own on every level are kept, so that only the neck changes.
    Cost: 1x1 and 3x3 convolutions on every map; heads change with the number of channels.
    Published gains on SSD are modest: +1.0 (FSSD), +1.6 (feature-fused SSD) on VOC.
    Width: 256 channels as in the paper; 64 on light backbones, as EfficientDet-D0 has on its.
    Norms: GroupNorm as in Wu and He (2018), because its convolutions start untrained on maps of any scale.
    """

    name = "fpn"
    slot = "neck"
    in_default_matrix = True

    def apply(self, spec: Specification, prepared: Mapping[str, Any]) -> Specification:
        width = 256 if spec.detector.backbone.startswith(("vgg", "resnet")) else 64
        neck = NeckSpec(kind="fpn", channels=width, norm_groups=16)
        return replace(spec, detector=replace(spec.detector, neck=neck))
