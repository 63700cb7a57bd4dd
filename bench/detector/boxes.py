"""Box arithmetic on tensors: formats, overlap, and the coding of boxes against priors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A box decoded from an untrained network may be anything; torchvision's BoxCoder clamps the same way.
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
    """(..., A, 4) and (..., B, 4) xyxy to the (..., A, B) areas that they share."""
    # Coordinate by coordinate, each of them adjacent in memory: both keep the processor's vector units busy.
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
    """(..., A, 4) and (..., B, 4) xyxy to (..., A, B) IoU; 0 where both boxes are empty."""
    shared = intersections(first, second)
    union = areas(first)[..., :, None] + areas(second)[..., None, :] - shared
    return shared.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def encode(boxes: Tensor, priors: Tensor, variances: tuple[float, float]) -> Tensor:
    """Offsets (..., 4) of `boxes` (..., 4) xyxy against `priors` (..., 4) cxcywh (Faster R-CNN, eq. 2)."""
    centred = to_centres(boxes)
    centre = (centred[..., :2] - priors[..., :2]) / priors[..., 2:] / variances[0]
    size = torch.log(centred[..., 2:] / priors[..., 2:]) / variances[1]
    return torch.cat((centre, size), dim=-1)


def decode(offsets: Tensor, priors: Tensor, variances: tuple[float, float]) -> Tensor:
    """Boxes (..., 4) xyxy from offsets (..., 4) against `priors` (..., 4) cxcywh; inverse of `encode`."""
    centre = priors[..., :2] + offsets[..., :2] * variances[0] * priors[..., 2:]
    size = priors[..., 2:] * torch.exp((offsets[..., 2:] * variances[1]).clamp(max=LARGEST_LOG_SIDE))
    return to_corners(torch.cat((centre, size), dim=-1))
