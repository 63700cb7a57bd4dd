"""torchvision's SSD around the same network: the contender that ours is measured beside.

For the backbone "vgg16" it is `torchvision.models.detection.ssd300_vgg16`; for any other, torchvision's
`SSD` class over the same six feature maps, with its own transform, heads, priors, loss and post-processing.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD as TorchvisionSSD
from torchvision.ops import box_iou

from bench.detector.priors import PRESETS, RATIOS, preset_shapes
from bench.detector.ssd import SSD
from bench.errors import UserError
from bench.spec import DetectorSpec
from bench.targets import Targets

TorchvisionTargets = list[dict[str, Tensor]]


class FeatureMaps(nn.Module):
    """A copy of our network up to the heads, in the form of a torchvision backbone.

    It takes pixels of 0 to 255, and normalises them itself as ours does: torchvision's transform is to
    scale, and nothing else.
    """

    def __init__(self, ours: SSD) -> None:
        super().__init__()
        self.out_channels = [cast(nn.Conv2d, head).in_channels for head in ours.class_heads]
        self.body = copy.deepcopy(ours)
        self.body.class_heads = nn.ModuleList()
        self.body.box_heads = nn.ModuleList()

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 3, S, S) to the six maps, finest first."""
        return OrderedDict((str(place), level) for place, level in enumerate(self.body.feature_maps(images)))


def torchvision_ssd(ours: SSD) -> tuple[TorchvisionSSD, bool]:
    """torchvision's detector of the same network, priors and rules, on the CPU, and whether it has our weights.

    With them it finds what ours finds. Raises UserError for priors that its generator cannot express.
    """
    spec = ours.spec
    ours = copy.deepcopy(ours).cpu()
    rules = {
        "score_thresh": spec.score_threshold,
        "nms_thresh": spec.nms_threshold,
        "detections_per_img": spec.detections_per_image,
        "topk_candidates": spec.candidates_per_class,
        "iou_thresh": spec.match_threshold,
        "positive_fraction": 1 / (1 + spec.negatives_per_positive),
    }
    if spec.backbone == "vgg16" and spec.neck is None:
        theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=spec.classes + 1, **rules)
        theirs.anchor_generator = prior_generator(spec)
        return theirs, _carry_vgg16(ours, theirs) and _carry_heads(ours, theirs)
    theirs = TorchvisionSSD(
        FeatureMaps(ours),
        prior_generator(spec),
        size=(spec.size, spec.size),
        num_classes=spec.classes + 1,
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1 / 255, 1 / 255, 1 / 255],
        **rules,
    )
    return theirs, _carry_heads(ours, theirs)


def prior_generator(spec: DetectorSpec) -> DefaultBoxGenerator:
    """torchvision's generator of the priors of `spec`; UserError where they are of no preset."""
    for name, (scales, clip) in PRESETS.items():
        if spec.priors == preset_shapes(name):
            ratios = [list(level) for level in RATIOS]
            return DefaultBoxGenerator(ratios, scales=list(scales), steps=list(spec.steps), clip=clip)
    raise UserError(
        "--compare torchvision: its prior generator knows squares and ratios only, not fitted priors; "
        "take --priors coco or voc, or a --variant without fitted anchors"
    )


def torchvision_targets(targets: Targets, size: int) -> TorchvisionTargets:
    """Our padded targets as torchvision wants them: a dictionary an image, boxes xyxy in pixels, no crowds."""
    rows: Iterable[tuple[Tensor, Tensor]] = zip(targets.boxes, targets.labels, strict=True)
    return [{"boxes": boxes[labels > 0] * size, "labels": labels[labels > 0]} for boxes, labels in rows]


def torchvision_loss(
    model: TorchvisionSSD, outputs: dict[str, Tensor], anchors: list[Tensor], targets: TorchvisionTargets
) -> Tensor:
    """What torchvision's training does from the heads' outputs on: match image by image, then the loss.

    outputs: `cls_logits` (B, P, C + 1) and `bbox_regression` (B, P, 4). anchors: (P, 4) xyxy in pixels
    for each image. The steps are those of `SSD.forward`, where they cannot be called apart.
    """
    matched = [
        model.proposal_matcher(box_iou(target["boxes"], own))
        if len(target["boxes"])
        else torch.full((len(own),), -1, dtype=torch.int64, device=own.device)
        for own, target in zip(anchors, targets, strict=True)
    ]
    losses = model.compute_loss(targets, outputs, anchors, matched)
    return cast(Tensor, losses["bbox_regression"] + losses["classification"])


def torchvision_boxes(model: TorchvisionSSD, outputs: dict[str, Tensor], anchors: list[Tensor], size: int) -> object:
    """What torchvision does from the heads' outputs to final boxes in evaluation."""
    sizes = [(size, size)] * len(anchors)
    found = model.postprocess_detections(outputs, anchors, sizes)
    return model.transform.postprocess(found, sizes, sizes)


def torchvision_step(
    model: TorchvisionSSD,
    optimiser: torch.optim.Optimizer,
    images: list[Tensor],
    targets: TorchvisionTargets,
    precision: AbstractContextManager[Any],
) -> None:
    """A training step as in torchvision's reference scripts: forward, sum of the losses, backward, update."""
    with precision:
        losses = model(images, targets)
    optimiser.zero_grad()
    (losses["bbox_regression"] + losses["classification"]).backward()
    optimiser.step()


def _carry_heads(ours: SSD, theirs: TorchvisionSSD) -> bool:
    """Both have a head of n x (C + 1) and one of n x 4 channels a level, in the same order of channels."""
    pairs: list[tuple[Any, Any]] = [
        *zip(ours.class_heads, theirs.head.classification_head.module_list, strict=True),
        *zip(ours.box_heads, theirs.head.regression_head.module_list, strict=True),
    ]
    return _carry([(own.weight, other.weight) for own, other in pairs] + [(o.bias, t.bias) for o, t in pairs])


def _carry_vgg16(ours: SSD, theirs: TorchvisionSSD) -> bool:
    """Convolutions of backbone and extra levels in the order of definition, and conv4_3's scale."""
    own = [*_convolutions(ours.backbone), *_convolutions(ours.extras)]
    other = _convolutions(theirs.backbone)
    scales = [part.scale for part in ours.norms if hasattr(part, "scale")]
    if len(own) != len(other) or len(scales) != 1 or any(o.bias is None for o in own):
        return False
    pairs: list[tuple[Tensor, Tensor]] = [(o.weight, t.weight) for o, t in zip(own, other, strict=True)]
    pairs += [(cast(Tensor, o.bias), cast(Tensor, t.bias)) for o, t in zip(own, other, strict=True)]
    return _carry([*pairs, (cast(Tensor, scales[0]), cast(Tensor, theirs.backbone.scale_weight))])


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


def _carry(pairs: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Copy each first tensor into its second, if all shapes agree; False, and nothing done, otherwise."""
    if any(own.shape != other.shape for own, other in pairs):
        return False
    with torch.no_grad():
        for own, other in pairs:
            other.copy_(own)
    return True
