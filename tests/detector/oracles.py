"""Data, specifications and comparisons shared by tests of the detector and of its kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.data.targets import Targets
from bench.detector.prior_presets import preset_shapes
from bench.device.hardware import computes_bfloat16
from bench.spec import Specification
from variants.baseline import baseline, initialisation_of, training_of

Box = tuple[float, float, float, float]

needs_bfloat16 = pytest.mark.skipif(not computes_bfloat16("cpu"), reason="this CPU does not multiply in bfloat16")


def relative_error(ours: Tensor, expected: Tensor) -> float:
    """The largest difference relative to the largest expected value."""
    return float((ours - expected).abs().max() / expected.abs().max())


def spread_norms(network: nn.Module) -> None:
    """Give BatchNorm layers random statistics; those of a new network would hide folding errors."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)


def vgg16_specification(classes: int, *, weights: str = "none", profile: str = "smoke") -> Specification:
    """The baseline with VGG16."""
    return baseline(
        classes=classes,
        backbone="vgg16",
        weights=weights,
        weights_fingerprint="",
        priors=preset_shapes("coco"),
        training=training_of(profile, 1000, scenes=False),
        initialisation=initialisation_of(profile),
    )


def targets_of(images: list[list[Box]], *, crowds: list[list[Box]] | None = None, padding: int = 0) -> Targets:
    """Padded targets of class 1: an image's boxes, then its crowds, then at least `padding` empty rows."""
    crowds = crowds or [[] for _ in images]
    most = max(1, *(len(boxes) + len(regions) for boxes, regions in zip(images, crowds, strict=True))) + padding
    targets = Targets(
        boxes=torch.zeros(len(images), most, 4),
        labels=torch.zeros(len(images), most, dtype=torch.long),
        crowd=torch.zeros(len(images), most, dtype=torch.bool),
    )
    for image, (boxes, regions) in enumerate(zip(images, crowds, strict=True)):
        for place, box in enumerate([*boxes, *regions]):
            targets.boxes[image, place] = torch.tensor(box)
        targets.labels[image, : len(boxes)] = 1
        targets.crowd[image, len(boxes) : len(boxes) + len(regions)] = True
    return targets


def padded(images: list[Tensor]) -> Targets:
    """Targets of class 1 for images with boxes (G, 4) each."""
    return targets_of([[(a, b, c, d) for a, b, c, d in boxes.tolist()] for boxes in images])


def random_boxes(generator: torch.Generator, count: int) -> Tensor:
    """(count, 4) xyxy in [0, 1]; small boxes are more frequent."""
    low = torch.rand(count, 2, generator=generator) * 0.95
    size = 0.03 + torch.rand(count, 2, generator=generator) ** 3 * (0.97 - low)
    return torch.cat((low, low + size), dim=1)
