"""Matching of priors to ground truths: bipartite first, then by threshold (SSD paper, section 2.2).

As in Caffe (`bbox_util.cpp`, MatchBBox), each ground truth gets its own prior in the order of descending overlap, and a
ground truth that overlaps nothing gets none. torchvision's `SSDMatcher` differs: two ground truths that share a best
prior overwrite each other, and a ground truth that overlaps nothing takes prior 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.data.targets import Targets
from bench.detector.boxes import areas, intersections, overlaps

NEGATIVE, IGNORED = -1, -2
SMALLEST_OVERLAP = 1e-6  # Caffe: below this, boxes do not overlap


def match(targets: Targets, priors: Tensor, threshold: float, *, avoid_sync: bool = False) -> Tensor:
    """(B, P) int64: the ground truth of each prior, NEGATIVE, or IGNORED (mostly inside a crowd).

    priors: (P, 4) xyxy. There is no loop over images or boxes: each round of the bipartite part settles every pair that
    is each other's best choice, as the greedy order would. So there are at most as many rounds as an image has boxes,
    and rarely more than three.
    avoid_sync: no shape and no number of rounds depends on the values, so the host never waits for the device. Each
        round then settles one pair of every image, and there are G rounds.
    """
    objects = targets.labels > 0
    overlap = overlaps(targets.boxes, priors) * objects[..., None]
    if avoid_sync:
        best, box = overlap.max(dim=1)
        result = box.masked_fill_(best < threshold, NEGATIVE)
        _settle_one_by_one(overlap, objects, result)
    else:
        result = torch.full_like(overlap[:, 0], NEGATIVE, dtype=torch.int64)
        # Few priors reach the threshold; only these need their best ground truth
        image, prior = (overlap.amax(dim=1) >= threshold).nonzero(as_tuple=True)
        result[image, prior] = overlap[image, :, prior].argmax(dim=1)
        _settle_bipartite(overlap, objects, result)
    if avoid_sync or targets.crowd.any():
        crowds = targets.boxes * targets.crowd[..., None]
        inside = intersections(crowds, priors).amax(dim=1) / areas(priors)
        result = torch.where((result == NEGATIVE) & (inside >= 0.5), IGNORED, result)
    return result


def _settle_bipartite(overlap: Tensor, objects: Tensor, result: Tensor) -> None:
    """Write into `result` (B, P) the ground truth that greedily claims each prior.

    overlap: (B, G, P), overwritten: columns of claimed priors become 0. objects: (B, G) bool.
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
        # rivals[w, h]: overlap of ground truth h, if it is still waiting, with the best prior of w.
        # Ties go to the first ground truth, as with argmax and Caffe's strict comparison
        rivals = overlap[image, :, prior] * waiting[image]
        wins = rivals.argmax(dim=1) == box
        image, box, prior = image[wins], box[wins], prior[wins]
        result[image, prior] = box
        overlap[image, :, prior] = 0
        waiting[image, box] = False


def _settle_one_by_one(overlap: Tensor, objects: Tensor, result: Tensor) -> None:
    """The same as `_settle_bipartite`, settling one pair of each image per round."""
    waiting = objects.clone()
    for _round in range(overlap.shape[1]):
        value, prior = overlap.max(dim=2)
        # Ties go to the first ground truth, then to its first prior
        best, box = (value * waiting).max(dim=1, keepdim=True)
        prior = prior.gather(1, box)
        result.scatter_(1, prior, torch.where(best > SMALLEST_OVERLAP, box, result.gather(1, prior)))
        # If nothing overlaps any more, the entries set to 0 here would not have been settled anyway
        waiting.scatter_(1, box, False)
        overlap.scatter_(2, prior[:, None].expand(-1, overlap.shape[1], -1), 0.0)
