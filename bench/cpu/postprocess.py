"""Kernels for `bench.detector.postprocess`, equal to the plain functions to the bit."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cpu import loops
from bench.cpu.arrays import kernels_apply
from bench.cpu.threads import parallel_for
from bench.detector import postprocess
from bench.detector.boxes import areas
from bench.device.fast_paths import override


@override(postprocess.margins)
def margins(logits: Tensor) -> Tensor:
    """(B, P) float32: the largest logit of an object minus that of the background; logits are (B, P, C + 1)."""
    if logits.dtype != torch.float32 or not kernels_apply(logits.device, logits.dtype):
        return NotImplemented
    margin = torch.empty(logits.shape[:-1])
    arrays = logits.detach().reshape(-1).numpy(), logits.shape[-1], margin.numpy().reshape(-1)
    parts = torch.get_num_threads()
    parallel_for(lambda part: loops.detections.margins(*arrays, part, parts), parts)
    return margin


@override(postprocess.suppress)
def suppress(boxes: Tensor, group: Tensor, threshold: float) -> Tensor:
    """(N,) bool: greedy suppression within each group."""
    if boxes.dtype != torch.float32 or not kernels_apply(boxes.device, boxes.dtype):
        return NotImplemented
    _, counts = torch.unique_consecutive(group, return_counts=True)
    starts = F.pad(counts.cumsum(0), (1, 0)).numpy()
    kept = torch.empty(len(boxes), dtype=torch.uint8)
    boxes = boxes.detach()
    arrays = boxes.t().contiguous().numpy(), areas(boxes).numpy(), starts
    parts = torch.get_num_threads()
    parallel_for(
        lambda part: loops.detections.suppress(*arrays, np.float32(threshold), kept.numpy(), part, parts), parts
    )
    return kept.bool()
