"""The axis fpn: a feature pyramid between the feature maps and the heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.axis import Axis
from bench.spec import NeckSpec, Specification

TOP_STRIDE = 32  # stride of C5, the coarsest map of a pretrained backbone


class FPN(Axis):
    """A feature pyramid from stride 32 to stride 8, beside the baseline's maps.

    Remedy: the fine maps, which must detect the small objects, receive semantic information from the coarse maps.
    Source: Lin et al. 2017. Published gains on SSD are modest: +1.0 (FSSD) and +1.6 (feature-fused SSD) on VOC.
    Difference from the baseline: only the neck, and the weights of the heads that read it. The heads of the three
    finest levels read their own map, as in the baseline, and the pyramid's map beside it. The weights for the latter
    start at zero, so the arm begins as the baseline. A pyramid that replaces the maps puts untrained layers between
    pretrained maps and heads, which cost up to 5 points of AP in short trainings (docs/remedies.md). Levels above
    stride 32 stay as they are. VGG16's maps end at stride 16, so its level at stride 32 is the first extra level. 256
    channels as in the paper, 64 on light backbones as in EfficientDet-D0.
    Cost: 1x1 and 3x3 convolutions on the three finest maps, and wider heads there.
    """

    name = "fpn"
    slot = "neck"
    in_default_matrix = True

    def apply(self, spec: Specification, prepared: Mapping[str, Any]) -> Specification:
        width = 256 if spec.detector.backbone.startswith(("vgg", "resnet")) else 64
        levels = sum(step <= TOP_STRIDE for step in spec.detector.steps)
        neck = NeckSpec(kind="pyramid", channels=width, levels=levels)
        return replace(spec, detector=replace(spec.detector, neck=neck))
