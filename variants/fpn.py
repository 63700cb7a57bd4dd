"""A feature pyramid between the maps and the heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.axis import Axis
from bench.spec import NeckSpec, Specification

TOP_STRIDE = 32  # of C5, the coarsest map of a backbone that is pretrained


class FPN(Axis):
    """Feature pyramid network (Lin et al. 2017) from stride 32 down to stride 8.

    Remedy: the fine maps, which must find the small objects, are given what the coarse maps know.
    Levels, priors and heads of their own on every level are kept, so that only the neck changes. As in
    RetinaNet (Lin et al. 2017b) nothing is summed above stride 32: with untrained levels in the sums the
    loss falls more slowly (docs/architecture.md). VGG16's own maps end at 16; its level of 32 is the first extra.
    Cost: 1x1 and 3x3 convolutions on every map; heads change with the number of channels.
    Published gains on SSD are modest: +1.0 (FSSD), +1.6 (feature-fused SSD) on VOC.
    Width: 256 channels as in the paper; 64 on light backbones, as EfficientDet-D0 has on its.
    No norms, as in the paper: the maps have norms of their own, and with GroupNorm it learnt more slowly.
    """

    name = "fpn"
    slot = "neck"
    in_default_matrix = True

    def apply(self, spec: Specification, prepared: Mapping[str, Any]) -> Specification:
        width = 256 if spec.detector.backbone.startswith(("vgg", "resnet")) else 64
        levels = sum(step <= TOP_STRIDE for step in spec.detector.steps)
        neck = NeckSpec(kind="fpn", channels=width, levels=levels)
        return replace(spec, detector=replace(spec.detector, neck=neck))
