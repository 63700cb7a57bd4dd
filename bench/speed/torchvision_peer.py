"""torchvision's SSD around the same network, which ours is compared with.

For the backbone "vgg16" it is `torchvision.models.detection.ssd300_vgg16`. For any other it is torchvision's `SSD`
class on the same six feature maps, with its own transform, heads, priors, loss and post-processing. Training images are
prepared by torchvision's transforms.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD as TorchvisionSSD
from torchvision.ops import box_iou
from torchvision.transforms import v2

from bench.data.decode import IMAGE_FORMATS
from bench.data.targets import Targets
from bench.detector import vgg
from bench.detector.backbones import restore_timm_network
from bench.detector.prior_presets import PRESETS, RATIOS, preset_shapes
from bench.detector.ssd import SSD
from bench.detector.torchvision_names import to_torchvision
from bench.errors import UserError
from bench.spec import DetectorSpec, TrainSpec

TorchvisionTargets = list[dict[str, Tensor]]


class FeatureMaps(nn.Module):
    """Our plain network up to the heads, in the form of a torchvision backbone.

    It takes images as torchvision's transform has normalised them. A timm backbone is timm's own network, without
    folded norms.
    """

    def __init__(self, plain: SSD) -> None:
        """plain: without kernels; this module takes it over."""
        super().__init__()
        self.out_channels = [cast(nn.Conv2d, head).in_channels for head in plain.class_heads]
        self.body = plain
        if plain.spec.backbone != vgg.NAME:
            restore_timm_network(plain.backbone, plain.spec.backbone, plain.spec.weights)
        self.body.class_heads = nn.ModuleList()
        self.body.box_heads = nn.ModuleList()

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 3, S, S) to the six maps, finest first."""
        maps = self.body.levels(list(self.body.backbone.features(images)))
        return OrderedDict((str(place), level) for place, level in enumerate(maps))


def torchvision_ssd(ours: SSD) -> TorchvisionSSD:
    """torchvision's detector with the same network, weights, priors and rules, on the CPU: it detects what ours does.

    Raises UserError for priors that torchvision's generator cannot express.
    """
    spec = ours.spec
    plain = SSD(spec, seed=0)
    plain.load_state_dict(ours.state_dict())
    rules = {
        "score_thresh": spec.score_threshold,
        "nms_thresh": spec.nms_threshold,
        "detections_per_img": spec.detections_per_image,
        "topk_candidates": spec.candidates_per_class,
        "iou_thresh": spec.match_threshold,
        "positive_fraction": 1 / (1 + spec.negatives_per_positive),
    }
    mean, deviation = ((part.flatten() / 255).tolist() for part in (plain.backbone.mean, plain.backbone.deviation))
    if spec.backbone == vgg.NAME and spec.neck is None:
        theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=spec.classes + 1, **rules)
        theirs.anchor_generator = prior_generator(spec)
        theirs.load_state_dict(to_torchvision(plain.state_dict(), theirs.state_dict()))
        theirs.transform.image_mean, theirs.transform.image_std = mean, deviation
        return theirs
    theirs = TorchvisionSSD(
        FeatureMaps(plain),
        prior_generator(spec),
        size=(spec.size, spec.size),
        num_classes=spec.classes + 1,
        image_mean=mean,
        image_std=deviation,
        **rules,
    )
    theirs.head.classification_head.module_list.load_state_dict(ours.class_heads.state_dict())
    theirs.head.regression_head.module_list.load_state_dict(ours.box_heads.state_dict())
    return theirs


def prior_generator(spec: DetectorSpec) -> DefaultBoxGenerator:
    """torchvision's generator of the priors of `spec`; UserError if they are not those of a preset."""
    for name, (scales, clip) in PRESETS.items():
        if spec.priors == preset_shapes(name):
            ratios = [list(level) for level in RATIOS]
            return DefaultBoxGenerator(ratios, scales=list(scales), steps=list(spec.steps), clip=clip)
    raise UserError(
        "--compare torchvision: its prior generator cannot express fitted priors; "
        "use --priors coco or voc, or a --variant without fitted anchors"
    )


def torchvision_targets(targets: Targets, size: int) -> TorchvisionTargets:
    """Our padded targets in torchvision's form: a dictionary per image, boxes xyxy in pixels, without crowds."""
    rows: Iterable[tuple[Tensor, Tensor]] = zip(targets.boxes, targets.labels, strict=True)
    return [{"boxes": boxes[labels > 0] * size, "labels": labels[labels > 0]} for boxes, labels in rows]


def torchvision_loss(
    model: TorchvisionSSD, outputs: dict[str, Tensor], anchors: list[Tensor], targets: TorchvisionTargets
) -> Tensor:
    """torchvision's matching, image by image, and loss, as in `SSD.forward`, which has no function for them.

    outputs: `cls_logits` (B, P, C + 1) and `bbox_regression` (B, P, 4). anchors: (P, 4) xyxy in pixels for each image.
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
    """torchvision's post-processing, from the heads' outputs to final boxes."""
    sizes = [(size, size)] * len(anchors)
    detections = model.postprocess_detections(outputs, anchors, sizes)
    return model.transform.postprocess(detections, sizes, sizes)


def torchvision_optimiser(model: nn.Module, training: TrainSpec, *, fused: bool) -> torch.optim.Optimizer:
    """SGD with momentum on every trainable weight, as in torchvision's reference script for SSD."""
    return torch.optim.SGD(
        [value for value in model.parameters() if value.requires_grad],
        lr=training.rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        fused=True if fused else None,
    )


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


def torchvision_image(file: Path) -> tv_tensors.Image:
    """(3, H, W) uint8, decoded by Pillow, upright."""
    with Pillow.open(file, formats=IMAGE_FORMATS) as opened:
        image: tv_tensors.Image = v2.functional.to_image(ImageOps.exif_transpose(opened).convert("RGB"))
    return image


def torchvision_preparation(
    size: int, fill: tuple[float, float, float]
) -> Callable[[Path, Tensor], tuple[Tensor, Tensor]]:
    """A function from a file and its boxes (G, 4) xyxy in pixels to (3, size, size) uint8 and the remaining boxes.

    Pillow decodes. The transforms are those of torchvision's reference script for SSD
    (`references/detection/presets.py`, "ssd"), on tensors, as torchvision recommends for speed.
    """
    augment = v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill=list(fill)),
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.Resize((size, size), antialias=True),
            v2.SanitizeBoundingBoxes(labels_getter=None),
        ]
    )

    def prepare(file: Path, boxes: Tensor) -> tuple[Tensor, Tensor]:
        image = torchvision_image(file)
        canvas = (image.shape[-2], image.shape[-1])
        seen, left = augment(image, tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=canvas))
        return seen.as_subclass(Tensor), left.as_subclass(Tensor)

    return prepare
