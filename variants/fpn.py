"""The axis fpn: a feature pyramid between the feature maps and the heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.axis import Axis
from bench.spec import NeckSpec, Specification

TOP_STRIDE = 32  # stride of C5, the coarsest map of a pretrained backbone


class FPN(Axis):
    """Feature pyramid network from stride 32 down to stride 8.

    Remedy: the fine maps, which must detect the small objects, receive semantic information from the coarse maps.
    Source: Lin et al. 2017. Published gains on SSD are modest: +1.0 (FSSD) and +1.6 (feature-fused SSD) on VOC.
    Difference from the baseline: only the neck. Levels, priors and per-level heads are kept; the heads change only with
    the number of channels. As in RetinaNet (Lin et al. 2017b), levels above stride 32 are not summed: with untrained
    levels in the sums the loss falls more slowly (docs/architecture.md). VGG16's maps end at stride 16, so its level at
    stride 32 is the first extra level. 256 channels as in the paper, 64 on light backbones as in EfficientDet-D0. No
    norms, as in the paper: the maps have their own, and with GroupNorm it learnt more slowly.
    Cost: 1x1 and 3x3 convolutions on every map.
    """

    name = "fpn"
    slot = "neck"
    in_default_matrix = True

    def apply(self, spec: Specification, prepared: Mapping[str, Any]) -> Specification:
        width = 256 if spec.detector.backbone.startswith(("vgg", "resnet")) else 64
        levels = sum(step <= TOP_STRIDE for step in spec.detector.steps)
        neck = NeckSpec(kind="fpn", channels=width, levels=levels)
        return replace(spec, detector=replace(spec.detector, neck=neck))
