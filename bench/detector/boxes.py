"""Box arithmetic on tensors: formats, IoU, and the coding of boxes against priors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# An untrained network may predict any size; torchvision's BoxCoder clamps in the same way
LARGEST_LOG_SIDE = math.log(1000.0 / 16)


def to_corners(boxes: Tensor) -> Tensor:
    """cxcywh to xyxy, any unit; (..., 4)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def to_centres(boxes: Tensor) -> Tensor:
    """xyxy to cxcywh, any unit; (..., 4)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def intersections(first: Tensor, second: Tensor) -> Tensor:
    """The (..., A, B) intersection areas of boxes (..., A, 4) and (..., B, 4) xyxy.

    `torchvision.ops.box_iou` does the same for one image. Here each coordinate is contiguous in memory, which keeps the
    vector units busy.
    """
    left, top, right, bottom = first.mT.contiguous()[..., None].unbind(-3)
    others = second.mT.contiguous()[..., None, :].unbind(-3)
    width = torch.minimum(right, others[2])
    width -= torch.maximum(left, others[0])
    height = torch.minimum(bottom, others[3])
    height -= torch.maximum(top, others[1])
    return width.clamp_(min=0).mul_(height.clamp_(min=0))


def areas(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy to (...) areas."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """The (..., A, B) IoU of boxes (..., A, 4) and (..., B, 4) xyxy; 0 for two empty boxes."""
    shared = intersections(first, second)
    union = areas(first)[..., :, None] + areas(second)[..., None, :] - shared
    return shared.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def encode(boxes: Tensor, priors: Tensor, variances: tuple[float, float]) -> Tensor:
    """The offsets (..., 4) of boxes (..., 4) xyxy from priors (..., 4) cxcywh (Faster R-CNN, equation 2)."""
    centred = to_centres(boxes)
    centre = (centred[..., :2] - priors[..., :2]) / priors[..., 2:] / variances[0]
    size = torch.log(centred[..., 2:] / priors[..., 2:]) / variances[1]
    return torch.cat((centre, size), dim=-1)


def decode(offsets: Tensor, priors: Tensor, variances: tuple[float, float]) -> Tensor:
    """The boxes (..., 4) xyxy of offsets (..., 4) from priors (..., 4) cxcywh; the inverse of `encode`."""
    centre = priors[..., :2] + offsets[..., :2] * variances[0] * priors[..., 2:]
    size = priors[..., 2:] * torch.exp((offsets[..., 2:] * variances[1]).clamp(max=LARGEST_LOG_SIDE))
    return to_corners(torch.cat((centre, size), dim=-1))
