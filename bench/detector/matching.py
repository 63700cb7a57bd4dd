"""Which prior answers for which ground truth: bipartite first, then by threshold (SSD paper, section 2.2).

Differs on purpose from torchvision's `SSDMatcher`, where two ground truths that share a best prior
overwrite each other, and a ground truth that overlaps nothing takes prior 0. Here, as in Caffe
(`bbox_util.cpp`, MatchBBox), each ground truth gets a prior of its own in the order of falling
overlap, and one that overlaps nothing gets none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.detector.boxes import areas, intersections, overlaps
from bench.targets import Targets

NEGATIVE, IGNORED = -1, -2
SMALLEST_OVERLAP = 1e-6  # Caffe: below this, boxes do not overlap


def match(targets: Targets, priors: Tensor, threshold: float) -> Tensor:
    """(B, P) int64: the ground truth of each prior, NEGATIVE, or IGNORED (mostly inside a crowd).

    priors: (P, 4) xyxy. No loop over images or boxes: a round of the bipartite part settles every pair
    that is each other's best choice, which the greedy order would settle too; so there are at most as
    many rounds as the most boxes of an image, and rarely more than three.
    """
    objects = targets.labels > 0
    overlap = overlaps(targets.boxes, priors) * objects[..., None]
    best, answer = overlap.max(dim=1)
    result = torch.where(best >= threshold, answer, NEGATIVE)
    _settle_bipartite(overlap, objects, result)
    if targets.crowd.any():
        crowds = targets.boxes * targets.crowd[..., None]
        inside = intersections(crowds, priors).amax(dim=1) / areas(priors)
        result = torch.where((result == NEGATIVE) & (inside >= 0.5), IGNORED, result)
    return result


def _settle_bipartite(overlap: Tensor, objects: Tensor, result: Tensor) -> None:
    """Write into `result` (B, P) the ground truth that greedily claims each prior.

    overlap: (B, G, P), overwritten: priors that are taken are struck out. objects: (B, G) bool.
    """
    boxes = overlap.shape[1]
    index = torch.arange(boxes, device=overlap.device)
    waiting = objects
    for _round in range(boxes):
        value, prior = overlap.max(dim=2)
        waiting = waiting & (value > SMALLEST_OVERLAP)
        if not waiting.any():
            break
        # rivals[b, g, h]: how much ground truth h, still waiting, overlaps the best prior of g
        rivals = overlap.gather(2, prior[:, None, :].expand(-1, boxes, -1)).transpose(1, 2)
        rivals = rivals * waiting[:, None, :]
        # Ties go to the first ground truth, as argmax and Caffe's strict comparison do.
        wins = waiting & (rivals.argmax(dim=2) == index)
        winner_image, winner = wins.nonzero(as_tuple=True)
        taken = prior[winner_image, winner]
        result[winner_image, taken] = winner
        overlap[winner_image, :, taken] = 0
        overlap[winner_image, winner] = 0
        waiting = waiting & ~wins
