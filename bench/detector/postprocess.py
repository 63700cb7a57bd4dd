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

from bench.cpu import loops
from bench.cpu.depthwise import in_use
from bench.cpu.threads import share_out
from bench.detector.boxes import areas, decode, overlaps
from bench.spec import DetectorSpec

PAIRS_AT_ONCE = 4_000_000  # overlaps held in memory at a time: 16 MB
ROUNDING = 1e-5  # relative: more than two ways to compute the same probability differ by
SLACK = 0.01  # of logits: far more than that
VECTOR = 16  # outputs from which torch's softmax is fast
FIRST_PRIORS = 1024  # of an image, by their margin over the background: enough for the final boxes of most
MANY = 0.25  # of all priors and classes: to put more candidates than that in order takes longer than to choose first


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
    only its best candidates are looked at, and all of them where too few have survived.
    """
    images, priors_each, outputs = logits.shape
    margin = margins(logits)
    logits, offsets = logits.reshape(-1, outputs), offsets.reshape(-1, 4)
    # A probability is at most its ratio to the background's
    least = math.log(max(spec.score_threshold, 1e-30)) - SLACK
    for first in (FIRST_PRIORS, priors_each):
        # Of an image, priors of a smaller margin than this are not looked at
        lowest = margin.new_full((images,), -math.inf)
        crowded = bool(((margin >= least).sum(dim=1) > first).any())
        if crowded:
            lowest = margin.topk(first, dim=1, sorted=False).values.amin(dim=1)
        image, place = (margin >= lowest.clamp(min=least)[:, None]).nonzero(as_tuple=True)
        row_of = image * priors_each + place
        probability = probabilities(logits.index_select(0, row_of).float())[:, 1:]
        # Two outputs with that margin would have this probability, and no prior that is not looked at has more
        complete = probability >= (lowest.sigmoid() * (1 + ROUNDING))[image, None]
        wanted = complete & (probability > spec.score_threshold)
        if not crowded and int(wanted.sum()) > MANY * images * priors_each * spec.classes:
            wanted &= probability >= _least_wanted(spec, logits.view(images, priors_each, outputs))[image]
        row, label = wanted.nonzero(as_tuple=True)
        its_priors = priors.index_select(0, place)
        boxes = decode(offsets.index_select(0, row_of).float(), its_priors, spec.variances).clamp_(0, 1)
        scores = probability[row, label]
        found = _best_of(spec, BatchDetections(image[row], boxes.index_select(0, row), scores, label))
        settled = found.image.bincount(minlength=images) >= spec.detections_per_image
        if not crowded or bool((settled | (lowest <= least)).all()):
            break
    return found


def _least_wanted(spec: DetectorSpec, logits: Tensor) -> Tensor:
    """(B, C): what a probability has to reach for a candidate to be among the best of its class in its image."""
    probability = probabilities(logits.float())[..., 1:].transpose(1, 2).nan_to_num(nan=0.0).contiguous()
    best = probability.topk(min(spec.candidates_per_class, probability.shape[2]), dim=2, sorted=False)
    return best.values.amin(dim=2) * (1 - ROUNDING)


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the last dimension of float32; torch's own is slow where few outputs leave a vector unfilled."""
    if logits.shape[-1] >= VECTOR:
        return logits.softmax(dim=-1)
    powers = (logits - logits.amax(dim=-1, keepdim=True)).exp_()
    return powers.div_(powers.sum(dim=-1, keepdim=True))


def margins(logits: Tensor) -> Tensor:
    """(B, P) float32: by how much the largest other of the outputs (B, P, C + 1) is above the background's."""
    if logits.dtype != torch.float32 or not in_use(logits.device, logits.dtype):
        return logits[..., 1:].amax(dim=-1).float() - logits[..., 0].float()
    margin = torch.empty(logits.shape[:-1])
    arrays = logits.detach().reshape(-1).numpy(), logits.shape[-1], margin.numpy().reshape(-1)
    parts = torch.get_num_threads()
    share_out(lambda part: loops.detections.margins(*arrays, part, parts), parts)
    return margin


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
    if in_use(boxes.device, boxes.dtype):
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
    starts = F.pad(counts.cumsum(0), (1, 0)).numpy()
    kept = torch.empty(len(boxes), dtype=torch.uint8)
    boxes = boxes.detach()
    arrays = boxes.t().contiguous().numpy(), areas(boxes).numpy(), starts
    parts = torch.get_num_threads()
    share_out(lambda part: loops.detections.suppress(*arrays, np.float32(threshold), kept.numpy(), part, parts), parts)
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
