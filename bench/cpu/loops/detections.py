"""Post-processing: the first pass over all logits, and greedy suppression.

Results equal those of `bench.detector.postprocess` to the bit.
"""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import entry_point
from bench.cpu.loops.lanes import LANES, broadcast, load_masked_or, maximum, reduce_max


@entry_point(error_model="numpy")
def margins(logits, outputs, margin, part, parts):
    """Write to `margin`, (N,), the largest logit of an object minus that of the background, for one part of the rows.

    logits: flat (N, outputs) float32, the background first. NaN logits of objects are ignored.
    """
    rows = len(margin)
    lowest = broadcast(np.float32(-np.inf))
    for row in range(rows * part // parts, rows * (part + 1) // parts):
        at, best = row * outputs, lowest
        for column in range(1, outputs, LANES):
            best = maximum(best, load_masked_or(logits, at + column, outputs - column, lowest))
        margin[row] = reduce_max(best) - logits[at]


@entry_point(error_model="numpy")
def suppress(sides, area, starts, threshold, kept, part, parts):
    """Write to `kept`, (N,) uint8, whether a box survives greedy suppression within its group.

    sides: (4, N) left, top, right and bottom, sorted by descending score within each group. area: (N,).
    starts: (G + 1,) the first box of each group, and N. part, parts: do groups part, part + parts, ...
    """
    left, top, right, bottom = sides[0], sides[1], sides[2], sides[3]
    zero, tiny = np.float32(0), np.finfo(np.float32).tiny
    for group in range(part, len(starts) - 1, parts):
        begin, end = starts[group], starts[group + 1]
        kept[begin:end] = 1
        for best in range(begin, end):
            if kept[best]:
                x0, y0, x1, y1, own_area = left[best], top[best], right[best], bottom[best], area[best]
                for other in range(best + 1, end):
                    width = max(min(x1, right[other]) - max(x0, left[other]), zero)
                    height = max(min(y1, bottom[other]) - max(y0, top[other]), zero)
                    intersection = width * height
                    union = max(own_area + area[other] - intersection, tiny)
                    kept[other] &= intersection / union <= threshold
