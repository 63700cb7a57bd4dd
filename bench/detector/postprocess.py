"""From the network's outputs to final boxes, for a whole batch at once.

SSD's rules (Caffe's DetectionOutput): scores above a threshold, the best candidates of each class, non-maximum
suppression within each class, then the best boxes of each image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.detector.boxes import decode, overlaps
from bench.device.fast_paths import overridable
from bench.spec import DetectorSpec

PAIRS_AT_ONCE = 4_000_000  # overlaps held in memory at a time: 16 MB
PROBABILITY_ROUNDING = 1e-5  # relative; two ways to compute the same probability differ by less
LOGIT_ROUNDING = 0.01  # far more than logits differ by for the same reason
FAST_SOFTMAX_OUTPUTS = 16  # torch's softmax is slow with fewer
FIRST_PRIORS = 1024  # of an image, by their margin over the background; enough for nearly all images
PRESELECT_SHARE = 0.25  # of all (prior, class) pairs; with more candidates it is faster to select before sorting


@dataclass(frozen=True)
class BatchDetections:
    """D final boxes of a batch, by image and descending score.

    image: (D,) int64, place in the batch. boxes: (D, 4) float32 xyxy, fractions of the input in [0, 1].
    scores: (D,) float32. labels: (D,) int64 in [0, C): background is not counted.
    """

    image: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor


def detect(spec: DetectorSpec, logits: Tensor, offsets: Tensor, priors: Tensor) -> BatchDetections:
    """Final boxes from logits (B, P, C + 1), offsets (B, P, 4) and priors (P, 4) cxcywh.

    Only better candidates can suppress a candidate, and an image keeps a fixed number of boxes. So the priors with the
    largest margins are enough for most images; all priors are used only if too few of their boxes survive.
    """
    images, priors_each, outputs = logits.shape
    margin = margins(logits)
    logits, offsets = logits.reshape(-1, outputs), offsets.reshape(-1, 4)
    # A probability is at most its ratio to that of the background
    least = math.log(max(spec.score_threshold, 1e-30)) - LOGIT_ROUNDING
    for first in (FIRST_PRIORS, priors_each):
        lowest = margin.new_full((images,), -math.inf)  # priors of a smaller margin are skipped
        crowded = bool(((margin >= least).sum(dim=1) > first).any())
        if crowded:
            lowest = margin.topk(first, dim=1, sorted=False).values.amin(dim=1)
        image, place = (margin >= lowest.clamp(min=least)[:, None]).nonzero(as_tuple=True)
        row_of = image * priors_each + place
        probability = probabilities(logits.index_select(0, row_of).float())[:, 1:]
        # A skipped prior has at most the probability that its margin gives with two outputs
        complete = probability >= (lowest.sigmoid() * (1 + PROBABILITY_ROUNDING))[image, None]
        wanted = complete & (probability > spec.score_threshold)
        if not crowded and int(wanted.sum()) > PRESELECT_SHARE * images * priors_each * spec.classes:
            wanted &= probability >= _candidate_floor(spec, logits.view(images, priors_each, outputs))[image]
        row, label = wanted.nonzero(as_tuple=True)
        its_priors = priors.index_select(0, place)
        boxes = decode(offsets.index_select(0, row_of).float(), its_priors, spec.variances).clamp_(0, 1)
        scores = probability[row, label]
        found = _best_of(spec, BatchDetections(image[row], boxes.index_select(0, row), scores, label))
        settled = found.image.bincount(minlength=images) >= spec.detections_per_image
        if not crowded or bool((settled | (lowest <= least)).all()):
            break
    return found


@overridable
def margins(logits: Tensor) -> Tensor:
    """(B, P) float32: the largest logit of an object minus that of the background; logits are (B, P, C + 1)."""
    return logits[..., 1:].amax(dim=-1).float() - logits[..., 0].float()


def probabilities(logits: Tensor) -> Tensor:
    """Softmax of float32 over the last dimension."""
    if logits.shape[-1] >= FAST_SOFTMAX_OUTPUTS:
        return logits.softmax(dim=-1)
    powers = (logits - logits.amax(dim=-1, keepdim=True)).exp_()
    return powers.div_(powers.sum(dim=-1, keepdim=True))


def _candidate_floor(spec: DetectorSpec, logits: Tensor) -> Tensor:
    """(B, C): the lowest probability among the best candidates of each class in each image."""
    probability = probabilities(logits.float())[..., 1:].transpose(1, 2).nan_to_num(nan=0.0).contiguous()
    best = probability.topk(min(spec.candidates_per_class, probability.shape[2]), dim=2, sorted=False)
    return best.values.amin(dim=2) * (1 - PROBABILITY_ROUNDING)


def _best_of(spec: DetectorSpec, candidates: BatchDetections) -> BatchDetections:
    """The best candidates of each class, after suppression, and of those the best of each image."""
    image, scores = candidates.image, candidates.scores
    group = image * spec.classes + candidates.labels
    order = _by_group_and_score(group, scores)
    order = order[rank_in_group(group[order]) < spec.candidates_per_class]
    kept = order[suppress(candidates.boxes.index_select(0, order), group[order], spec.nms_threshold)]
    best = kept[_by_group_and_score(image[kept], scores[kept])]
    best = best[rank_in_group(image[best]) < spec.detections_per_image]
    return BatchDetections(image[best], candidates.boxes[best], scores[best], candidates.labels[best])


@overridable
def suppress(boxes: Tensor, group: Tensor, threshold: float) -> Tensor:
    """(N,) bool: what greedy non-maximum suppression keeps within each group.

    boxes: (N, 4) xyxy. group: (N,) non-negative integers; equal ones are adjacent, their boxes by descending score.

    The same answer as `torchvision.ops.nms` group by group, but without a loop over groups: a box is removed if a kept
    box before it overlaps it. Starting from "all are kept", each round settles at least one more box of every group,
    and a few rounds settle all of them (Cluster-NMS, Zheng et al. 2020). `torchvision.ops.batched_nms` separates the
    groups by moving their boxes apart, which rounds small boxes away in float32.
    """
    kept = torch.ones_like(group, dtype=torch.bool)
    if not len(group):
        return kept
    _, counts = torch.unique_consecutive(group, return_counts=True)
    starts = counts.cumsum(0) - counts
    by_size = counts.argsort()  # groups of similar size together need little padding
    counts, starts = counts[by_size], starts[by_size]
    for first, last in _chunks(counts.tolist()):
        longest = int(counts[last - 1])
        place = torch.arange(longest, device=boxes.device)
        real = place < counts[first:last, None]
        rows = (starts[first:last, None] + place).masked_fill_(~real, 0)
        kept[rows[real]] = _suppress_padded(boxes[rows], real, threshold)[real]
    return kept


def _suppress_padded(boxes: Tensor, real: Tensor, threshold: float) -> Tensor:
    """(K, L) bool: which of the boxes (K, L, 4), by descending score, are kept; `real` (K, L): not padding."""
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
    """Ranges of groups (rising `counts`) whose padded pairs fit into PAIRS_AT_ONCE and waste little."""
    ranges, first = [], 0
    for last, count in enumerate(counts):
        grown = (last + 1 - first) * count * count > PAIRS_AT_ONCE
        if last > first and (grown or count > 2 * counts[first] + 8):
            ranges.append((first, last))
            first = last
    return [*ranges, (first, len(counts))]


def rank_in_group(group: Tensor) -> Tensor:
    """(N,) rank of each element within its run of equal, adjacent values, from 0."""
    place = torch.arange(len(group), device=group.device)
    starts = torch.ones_like(group, dtype=torch.bool)
    starts[1:] = group[1:] != group[:-1]
    return place - torch.where(starts, place, 0).cummax(0).values if len(group) else place


def _by_group_and_score(group: Tensor, scores: Tensor) -> Tensor:
    """The order by group, then by descending score; ties keep their order.

    One sort of integers: the bits of non-negative floats are ordered as the floats are.
    """
    descending = torch.iinfo(torch.int32).max - scores.contiguous().view(torch.int32).long()
    return ((group << 32) + descending).argsort(stable=True)
