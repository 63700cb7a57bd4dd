"""Which prior answers for which ground truth: bipartite first, then by threshold (SSD paper, section 2.2).

Differs on purpose from torchvision's `SSDMatcher`, where two ground truths that share a best prior
overwrite each other, and a ground truth that overlaps nothing takes prior 0. Here, as in Caffe
(`bbox_util.cpp`, MatchBBox), each ground truth gets a prior of its own in the order of falling
overlap, and one that overlaps nothing gets none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.targets import Targets
from bench.detector.boxes import areas, intersections, overlaps

NEGATIVE, IGNORED = -1, -2
SMALLEST_OVERLAP = 1e-6  # Caffe: below this, boxes do not overlap


def match(targets: Targets, priors: Tensor, threshold: float, *, static: bool = False) -> Tensor:
    """(B, P) int64: the ground truth of each prior, NEGATIVE, or IGNORED (mostly inside a crowd).

    priors: (P, 4) xyxy. No loop over images or boxes: a round of the bipartite part settles every pair
    that is each other's best choice, which the greedy order would settle too; so there are at most as
    many rounds as the most boxes of an image, and rarely more than three.
    static: no size and no number of rounds depends on the values, so that the host never waits for the
        device. Each round then settles one pair of every image, and there are as many as G.
    """
    objects = targets.labels > 0
    overlap = overlaps(targets.boxes, priors) * objects[..., None]
    if static:
        best, box = overlap.max(dim=1)
        result = box.masked_fill_(best < threshold, NEGATIVE)
        _settle_one_by_one(overlap, objects, result)
    else:
        result = torch.full_like(overlap[:, 0], NEGATIVE, dtype=torch.int64)
        # Which ground truth it is, is asked of the few priors that matter
        image, prior = (overlap.amax(dim=1) >= threshold).nonzero(as_tuple=True)
        result[image, prior] = overlap[image, :, prior].argmax(dim=1)
        _settle_bipartite(overlap, objects, result)
    if static or targets.crowd.any():
        crowds = targets.boxes * targets.crowd[..., None]
        inside = intersections(crowds, priors).amax(dim=1) / areas(priors)
        result = torch.where((result == NEGATIVE) & (inside >= 0.5), IGNORED, result)
    return result


def _settle_bipartite(overlap: Tensor, objects: Tensor, result: Tensor) -> None:
    """Write into `result` (B, P) the ground truth that greedily claims each prior.

    overlap: (B, G, P), overwritten: priors that are taken are struck out. objects: (B, G) bool.
    """
    waiting = objects
    for _round in range(overlap.shape[1]):
        image, box = waiting.nonzero(as_tuple=True)
        value, prior = overlap[image, box].max(dim=1)
        can = value > SMALLEST_OVERLAP
        image, box, prior = image[can], box[can], prior[can]
        if not len(image):
            break
        waiting = torch.zeros_like(objects)
        waiting[image, box] = True
        # rivals[w, h]: how much ground truth h, if it waits too, overlaps the best prior of w.
        # Ties go to the first ground truth, as argmax and Caffe's strict comparison do.
        rivals = overlap[image, :, prior] * waiting[image]
        wins = rivals.argmax(dim=1) == box
        image, box, prior = image[wins], box[wins], prior[wins]
        result[image, prior] = box
        overlap[image, :, prior] = 0
        waiting[image, box] = False


def _settle_one_by_one(overlap: Tensor, objects: Tensor, result: Tensor) -> None:
    """What `_settle_bipartite` does, one pair of each image a round."""
    waiting = objects.clone()
    for _round in range(overlap.shape[1]):
        value, prior = overlap.max(dim=2)
        # Ties go to the first ground truth, and of its priors to the first
        best, box = (value * waiting).max(dim=1, keepdim=True)
        prior = prior.gather(1, box)
        result.scatter_(1, prior, torch.where(best > SMALLEST_OVERLAP, box, result.gather(1, prior)))
        # Where nothing overlaps any more, what is struck out would never have been settled
        waiting.scatter_(1, box, False)
        overlap.scatter_(2, prior[:, None].expand(-1, overlap.shape[1], -1), 0.0)
