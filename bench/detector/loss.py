"""The multibox loss: smooth L1 on the offsets of positives, cross-entropy with hard negatives.

SSD paper, section 2.2, equations 1 to 3; divided by the number of matched priors of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.detector.boxes import encode, to_corners
from bench.detector.matching import NEGATIVE, match
from bench.spec import DetectorSpec
from bench.targets import Targets


@dataclass(frozen=True)
class Loss:
    """Scalars of one batch; `total` is what is minimised."""

    total: Tensor
    boxes: Tensor
    classes: Tensor


def total_of(parts: Sequence[Loss]) -> Loss:
    """The loss of a batch from those of its parts, each divided as the whole is."""
    return Loss(
        total=torch.stack([part.total for part in parts]).sum(),
        boxes=torch.stack([part.boxes for part in parts]).sum(),
        classes=torch.stack([part.classes for part in parts]).sum(),
    )


def multibox_loss(
    spec: DetectorSpec,
    logits: Tensor,
    offsets: Tensor,
    *,
    priors: Tensor,
    targets: Targets,
    divisor: Tensor | None = None,
) -> Loss:
    """Loss of a batch, or of a part of one.

    logits: (B, P, C + 1), background first. offsets: (B, P, 4). priors: (P, 4) cxcywh float32.
    divisor: `matched_priors` of the whole batch, where this is a part; the losses of the parts add up to its own.
    """
    matched = match(targets, to_corners(priors), spec.match_threshold)
    positive = matched >= 0
    answers = matched.clamp(min=0)
    labels = targets.labels.gather(1, answers).masked_fill_(~positive, 0)
    count = positive.sum().clamp(min=1) if divisor is None else divisor

    image, prior = positive.nonzero(as_tuple=True)
    wanted = encode(targets.boxes[image, answers[image, prior]], priors[prior], spec.variances)
    box_loss = BOX_LOSSES[spec.box_loss](offsets[image, prior].float(), wanted, priors[prior], spec) / count

    each = CLASS_LOSSES[spec.class_loss](logits.float(), labels)
    hard = hard_negatives(each.detach(), matched, ratio=spec.negatives_per_positive)
    class_loss = (each * (positive | hard)).sum() / count
    return Loss(total=box_loss + class_loss, boxes=box_loss.detach(), classes=class_loss.detach())


def matched_priors(spec: DetectorSpec, priors: Tensor, targets: Targets) -> Tensor:
    """The number of positives of a batch, by which its loss is divided: a scalar of at least 1."""
    return (match(targets, to_corners(priors), spec.match_threshold) >= 0).sum().clamp(min=1)


def hard_negatives(loss: Tensor, matched: Tensor, *, ratio: int) -> Tensor:
    """(B, P) bool: in each image the `ratio` negatives of highest loss for each of its positives.

    loss: (B, P) of the classes; matched: (B, P) as from `match`. An image without a positive gives as
    many negatives as one with a single positive: Caffe and torchvision would learn nothing from it.
    """
    negative = matched == NEGATIVE
    wanted = ratio * (matched >= 0).sum(dim=1).clamp(min=1)
    wanted = torch.minimum(wanted, negative.sum(dim=1))
    order = loss.masked_fill(~negative, -torch.inf).argsort(dim=1, descending=True, stable=True)
    first = torch.arange(loss.shape[1], device=loss.device) < wanted[:, None]
    return torch.zeros_like(negative).scatter_(1, order, first)


def smooth_l1(offsets: Tensor, wanted: Tensor, priors: Tensor, spec: DetectorSpec) -> Tensor:
    """Sum over (N, 4) offsets of positives (Fast R-CNN, equation 3)."""
    return F.smooth_l1_loss(offsets, wanted, reduction="sum")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, P) of (B, P, C + 1) logits against (B, P) labels."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)


BOX_LOSSES = {"smooth_l1": smooth_l1}
CLASS_LOSSES = {"cross_entropy": cross_entropy}
