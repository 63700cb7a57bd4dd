"""From the network's outputs to final boxes, for a whole batch at once.

SSD's rules (Caffe's DetectionOutput): scores above a threshold, the best candidates of each class,
non-maximum suppression within each class, the best of what is left in each image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.detector.boxes import areas, decode, overlaps
from bench.detector.depthwise import in_use
from bench.detector.team import share_out
from bench.spec import DetectorSpec

PAIRS_AT_ONCE = 4_000_000  # overlaps held in memory at a time: 16 MB
ROUNDING = 1e-5  # relative: more than two ways to compute the same probability differ by
FIRST_PRIORS = 1024  # of an image, by their best score: more than enough for the final boxes of most


@dataclass(frozen=True)
class BatchDetections:
    """D final boxes of a batch, by image and falling score.

    image: (D,) int64, place in the batch. boxes: (D, 4) float32 xyxy, fractions of the input in [0, 1].
    scores: (D,) float32. labels: (D,) int64 in [0, C): background is not counted.
    """

    image: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor


def detect(spec: DetectorSpec, logits: Tensor, offsets: Tensor, priors: Tensor) -> BatchDetections:
    """Final boxes from logits (B, P, C + 1), offsets (B, P, 4) and priors (P, 4) cxcywh.

    What a candidate suffers depends on better ones alone, and an image ends with a given number of boxes: so
    only its best candidates are looked at, and more of them where too few have survived.
    """
    images, priors_each, outputs = logits.shape
    logits, offsets = logits.reshape(-1, outputs), offsets.reshape(-1, 4)
    place, score = _foreground(logits, spec.score_threshold)
    image = place // priors_each
    best = score.new_zeros(images * priors_each).index_copy_(0, place, score).view(images, priors_each)
    first = FIRST_PRIORS
    while True:
        whole = first >= priors_each
        # That many priors have a score of at least `lowest`: a whole beginning of the image's candidates
        lowest = best.new_zeros(images) if whole else best.topk(first, dim=1, sorted=False).values.amin(dim=1)
        looked_at = (score >= lowest[image]).nonzero()[:, 0]
        its_image, its_place = image[looked_at], place[looked_at]
        probability = logits.index_select(0, its_place).float().softmax(dim=-1)[:, 1:]
        beginning = probability >= (lowest * (1 + ROUNDING))[its_image, None]
        row, label = (beginning & (probability > spec.score_threshold)).nonzero(as_tuple=True)
        its_priors = priors.index_select(0, its_place % priors_each)
        boxes = decode(offsets.index_select(0, its_place).float(), its_priors, spec.variances).clamp_(0, 1)
        scores = probability[row, label]
        found = _best_of(spec, BatchDetections(its_image[row], boxes.index_select(0, row), scores, label))
        settled = found.image.bincount(minlength=images) >= spec.detections_per_image
        if bool((settled | (lowest <= spec.score_threshold * (1 - ROUNDING))).all()):
            return found
        first *= 4


def _foreground(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Place (R,) and, but for ROUNDING, best score (R,) of the rows of logits (N, C + 1) that may hold one above
    `threshold`.

    A probability is at most its ratio to the background's, so most priors need no exponential. The others get theirs
    here, since torch's softmax is slow for few classes and few priors are looked at in the end.
    """
    objects, background = logits[:, 1:].amax(dim=-1).float(), logits[:, 0].float()
    slack = 0.01  # of the rounding in either computation
    place = (objects > background + math.log(max(threshold, 1e-30)) - slack).nonzero()[:, 0]
    rows, best = logits.index_select(0, place).float(), objects.index_select(0, place)
    largest = torch.maximum(best, rows[:, 0])
    total = rows.sub_(largest[:, None]).exp_().sum(dim=1)
    score = (best - largest).exp_() / total
    possible = (score > threshold * (1 - ROUNDING)).nonzero()[:, 0]
    return place[possible], score[possible]


def _best_of(spec: DetectorSpec, candidates: BatchDetections) -> BatchDetections:
    """The best candidates of each class, what suppression leaves of them, and the best of that in each image."""
    image, scores = candidates.image, candidates.scores
    group = image * spec.classes + candidates.labels
    order = _by_group_and_score(group, scores)
    order = order[rank_in_group(group[order]) < spec.candidates_per_class]
    kept = order[suppress(candidates.boxes.index_select(0, order), group[order], threshold=spec.nms_threshold)]
    best = kept[_by_group_and_score(image[kept], scores[kept])]
    best = best[rank_in_group(image[best]) < spec.detections_per_image]
    return BatchDetections(image[best], candidates.boxes[best], scores[best], candidates.labels[best])


def suppress(boxes: Tensor, group: Tensor, *, threshold: float) -> Tensor:
    """(N,) bool: what greedy non-maximum suppression keeps within each group.

    boxes: (N, 4) xyxy; group: (N,) non-negative integers, equal ones together and in each the boxes by
    falling score. The same answer as `torchvision.ops.nms` group by group, without a loop of Python over groups:
    a box falls if a kept one before it overlaps it. Starting from "all are kept" and asking again
    settles at least one more box of every group each time, and in practice all of them in a few rounds
    (Cluster-NMS, Zheng et al. 2020). Where compiled loops are in use they do it as it stands.
    """
    _, counts = torch.unique_consecutive(group, return_counts=True)
    if in_use(boxes, boxes):
        return _suppress_by_loops(boxes, counts, threshold)
    kept = torch.ones_like(group, dtype=torch.bool)
    if not len(group):
        return kept
    starts = counts.cumsum(0) - counts
    # Groups of similar size together: little is lost to padding.
    by_size = counts.argsort()
    counts, starts = counts[by_size], starts[by_size]
    for first, last in _chunks(counts.tolist()):
        longest = int(counts[last - 1])
        place = torch.arange(longest, device=boxes.device)
        real = place < counts[first:last, None]
        rows = (starts[first:last, None] + place).masked_fill_(~real, 0)
        kept[rows[real]] = _suppress_padded(boxes[rows], real, threshold)[real]
    return kept


def _suppress_by_loops(boxes: Tensor, counts: Tensor, threshold: float) -> Tensor:
    """(N,) bool kept of boxes (N, 4) in groups of so many, by compiled loops of the CPU."""
    from bench.detector import suppression_kernels  # noqa: PLC0415  # its compiler takes a second to import

    starts = F.pad(counts.cumsum(0), (1, 0)).numpy()
    kept = torch.empty(len(boxes), dtype=torch.uint8)
    boxes = boxes.detach()
    arrays = boxes.t().contiguous().numpy(), areas(boxes).numpy(), starts
    parts = torch.get_num_threads()
    share_out(
        lambda part: suppression_kernels.suppress(*arrays, np.float32(threshold), kept.numpy(), part, parts), parts
    )
    return kept.bool()


def _suppress_padded(boxes: Tensor, real: Tensor, threshold: float) -> Tensor:
    """(K, L) bool kept of boxes (K, L, 4) in falling order, of which `real` (K, L) are not padding."""
    covers = overlaps(boxes, boxes).gt_(threshold).triu_(diagonal=1)
    kept = real.clone()
    while True:
        # covered[k, j]: number of kept boxes before j that cover it
        covered = torch.bmm(kept[:, None].to(covers.dtype), covers)[:, 0]
        update = real & (covered == 0)
        if torch.equal(update, kept):
            return kept
        kept = update


def _chunks(counts: list[int]) -> list[tuple[int, int]]:
    """Ranges of groups, of rising `counts`, whose padded pairs fit PAIRS_AT_ONCE and waste little."""
    ranges, first = [], 0
    for last, count in enumerate(counts):
        grown = (last + 1 - first) * count * count > PAIRS_AT_ONCE
        if last > first and (grown or count > 2 * counts[first] + 8):
            ranges.append((first, last))
            first = last
    return [*ranges, (first, len(counts))]


def rank_in_group(group: Tensor) -> Tensor:
    """(N,) place of each element within its run of equal, adjacent values."""
    place = torch.arange(len(group), device=group.device)
    starts = torch.ones_like(group, dtype=torch.bool)
    starts[1:] = group[1:] != group[:-1]
    return place - torch.where(starts, place, 0).cummax(0).values if len(group) else place


def _by_group_and_score(group: Tensor, scores: Tensor) -> Tensor:
    """Order that brings groups together, each by falling score; ties keep their order.

    One sort of whole numbers: the bits of floats that are not negative are ordered as the floats are.
    """
    falling = torch.iinfo(torch.int32).max - scores.contiguous().view(torch.int32).long()
    return ((group << 32) + falling).argsort(stable=True)
