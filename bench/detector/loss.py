"""The multibox loss: smooth L1 on the offsets of positives, cross-entropy with hard negatives.

SSD paper, section 2.2, equations 1 to 3; divided by the number of matched priors of the batch. A specification may name
another loss of boxes or classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from bench.data.targets import Targets
from bench.detector.boxes import decode, encode, to_corners
from bench.detector.matching import NEGATIVE, match
from bench.errors import UserError
from bench.spec import DetectorSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Loss:
    """Scalars of one batch; training minimises `total`."""

    total: Tensor
    boxes: Tensor
    classes: Tensor


def total_of(parts: Sequence[Loss]) -> Loss:
    """The loss of a batch from those of its micro-batches, all divided by the same divisor."""
    columns = zip(*((part.total, part.boxes, part.classes) for part in parts), strict=True)
    return Loss(*(torch.stack(values).sum() for values in columns))


def multibox_loss(
    spec: DetectorSpec,
    logits: Tensor,
    offsets: Tensor,
    *,
    priors: Tensor,
    targets: Targets,
    divisor: Tensor | None = None,
    avoid_sync: bool | None = None,
) -> Loss:
    """The loss of a batch, or of one of its micro-batches. Raises UserError if `spec` names an unknown loss.

    logits: (B, P, C + 1), background first. offsets: (B, P, 4). priors: (P, 4) cxcywh float32.
    divisor: `matched_priors` of the whole batch, if this is a micro-batch; the losses then add up to that of the batch.
    avoid_sync: compute for all priors and mask, so that no shape depends on the matches and the host never waits for
        the device. Otherwise compute only for the few priors that count. The default is True on CUDA only: on a CPU,
        matching and loss with gradients take 2.6 times as long with it (16 images of 8 boxes; 4.1 times with 32 of 30).
    """
    avoid_sync = logits.is_cuda if avoid_sync is None else avoid_sync
    matched = match(targets, to_corners(priors), spec.match_threshold, avoid_sync=avoid_sync)
    positive = matched >= 0
    matched_truth = matched.clamp(min=0)
    labels = targets.labels.gather(1, matched_truth).masked_fill_(~positive, 0)
    count = positive.sum().clamp(min=1) if divisor is None else divisor
    box_loss = _named(spec.box_loss, BOX_LOSSES, "box loss")
    class_loss = _named(spec.class_loss, CLASS_LOSSES, "class loss")
    ratio = spec.negatives_per_positive
    if ratio:
        with torch.no_grad():
            hard = hard_negatives(class_loss(logits.float(), labels), matched, ratio=ratio, avoid_sync=avoid_sync)
    else:
        hard = matched == NEGATIVE
    chosen = positive | hard
    if avoid_sync:
        wanted = encode(targets.boxes.gather(1, matched_truth[..., None].expand(-1, -1, 4)), priors, spec.variances)
        # Other priors have no target, and the logarithm of an empty box is not finite
        wanted = torch.where(positive[..., None], wanted, offsets.detach().float())
        boxes = (box_loss(offsets.float(), wanted, priors.expand_as(wanted), spec) * positive).sum() / count
        classes = (class_loss(logits.float(), labels) * chosen).sum() / count
    else:
        image, prior = positive.nonzero(as_tuple=True)
        wanted = encode(targets.boxes[image, matched_truth[image, prior]], priors[prior], spec.variances)
        boxes = box_loss(offsets[image, prior].float(), wanted, priors[prior], spec).sum() / count
        image, prior = chosen.nonzero(as_tuple=True)
        classes = class_loss(logits[image, prior].float(), labels[image, prior]).sum() / count
    return Loss(total=boxes + classes, boxes=boxes.detach(), classes=classes.detach())


def _named(name: str, losses: Mapping[str, T], kind: str) -> T:
    if name not in losses:
        raise UserError(f"unknown {kind} {name!r}. Choose one of {', '.join(losses)}")
    return losses[name]


def matched_priors(spec: DetectorSpec, priors: Tensor, targets: Targets) -> Tensor:
    """The number of positive priors of a batch, at least 1; the loss is divided by it."""
    matched = match(targets, to_corners(priors), spec.match_threshold, avoid_sync=priors.is_cuda)
    return (matched >= 0).sum().clamp(min=1)


def hard_negatives(loss: Tensor, matched: Tensor, *, ratio: int, avoid_sync: bool) -> Tensor:
    """(B, P) bool: in each image, the `ratio` negatives of highest loss per positive.

    loss: (B, P) of the classes. matched: (B, P) as from `match`. An image without positives contributes as many
    negatives as one with a single positive; Caffe and torchvision learn nothing from it.
    avoid_sync: sort all priors, so that no shape depends on the matches; otherwise select only as many as needed. Ties
        go to the first prior in both cases.
    """
    negative = matched == NEGATIVE
    wanted = ratio * (matched >= 0).sum(dim=1).clamp(min=1)
    wanted = torch.minimum(wanted, negative.sum(dim=1))
    loss = loss.masked_fill(~negative, -torch.inf)
    if avoid_sync:
        order = loss.argsort(dim=1, descending=True, stable=True)
        first = torch.arange(loss.shape[1], device=loss.device) < wanted[:, None]
        return torch.zeros_like(negative).scatter_(1, order, first)
    highest = loss.topk(max(1, int(wanted.max())), dim=1).values
    least = highest.gather(1, (wanted - 1).clamp(min=0)[:, None])
    above, equal = ~(loss <= least), loss == least  # NaN counts as above: the loss must show it
    left = wanted[:, None] - above.sum(dim=1, keepdim=True)
    return (above | (equal & (equal.cumsum(dim=1) <= left))) & negative


def smooth_l1(offsets: Tensor, wanted: Tensor, priors: Tensor, spec: DetectorSpec) -> Tensor:
    """(...) from (..., 4) offsets: the sum over the four (Fast R-CNN, equation 3)."""
    return F.smooth_l1_loss(offsets, wanted, reduction="none").sum(dim=-1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(...) from (..., C + 1) logits and (...) labels.

    torch's own cross-entropy takes five times as long on a CPU with fewer than 16 outputs.
    """
    return logits.logsumexp(dim=-1) - logits.gather(-1, labels[..., None])[..., 0]


def complete_iou(offsets: Tensor, wanted: Tensor, priors: Tensor, spec: DetectorSpec) -> Tensor:
    """(...) from (..., 4) offsets: five times 1 - CIoU of the decoded boxes (Zheng et al. 2020).

    The factor is that of the authors' SSD (Zzh-tju/DIoU-SSD-pytorch, `--weight`).
    """
    # In pixels, since torchvision adds 1e-7 to areas: of boxes in fractions, that is up to a thousandth
    boxes, truths = (decode(each, priors, spec.variances) * spec.size for each in (offsets, wanted))
    loss: Tensor = 5 * complete_box_iou_loss(boxes, truths, reduction="none")
    return loss


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """(...) from (..., C + 1) logits and (...) labels: the focal loss (Lin et al. 2017b) of a softmax.

    alpha is 0.25 for objects and 0.75 for the background, gamma is 2, as in RetinaNet. With one class it equals
    torchvision's `sigmoid_focal_loss`.
    """
    log_likelihood = -cross_entropy(logits, labels)
    alpha = torch.where(labels > 0, 0.25, 0.75)
    return -alpha * (1 - log_likelihood.exp()) ** 2 * log_likelihood


BOX_LOSSES = {"smooth_l1": smooth_l1, "ciou": complete_iou}
CLASS_LOSSES = {"cross_entropy": cross_entropy, "focal": focal}
