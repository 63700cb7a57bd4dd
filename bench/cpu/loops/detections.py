"""From outputs to final boxes on a CPU, compiled: the first pass over all of them, and greedy suppression.

`bench.detector.postprocess` does the same with torch, wherever the tensors lie; tests compare to the bit.
"""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import outer
from bench.cpu.loops.lanes import LANES, largest, load_else, maximum, spread


@outer(error_model="numpy")
def margins(logits, outputs, margin, part, parts):
    """Write to `margin`, (N,), how far the largest of the other outputs is above the first, for a part of the rows.

    logits: flat (N, outputs) float32. A row's numbers after the first that are not numbers are passed over.
    """
    rows = len(margin)
    least = spread(np.float32(-np.inf))
    for row in range(rows * part // parts, rows * (part + 1) // parts):
        at, best = row * outputs, least
        for place in range(1, outputs, LANES):
            best = maximum(best, load_else(logits, at + place, outputs - place, least))
        margin[row] = largest(best) - logits[at]


@outer(error_model="numpy")
def suppress(sides, area, starts, threshold, kept, part, parts):
    """Greedily, set `kept`, (N,) uint8, to 1 or 0, each kept box against all after it; for the groups whose turn it is.

    sides: (4, N) left, top, right and bottom, in each group by falling score. area: (N,). starts: (G + 1,) of the
    groups, and the end of the last one. part, parts: which of the groups are to be done.
    """
    left, top, right, bottom = sides[0], sides[1], sides[2], sides[3]
    nothing, tiny = np.float32(0), np.finfo(np.float32).tiny
    for group in range(part, len(starts) - 1, parts):
        begin, end = starts[group], starts[group + 1]
        kept[begin:end] = 1
        for best in range(begin, end):
            if kept[best]:
                x0, y0, x1, y1, own = left[best], top[best], right[best], bottom[best], area[best]
                for other in range(best + 1, end):
                    width = max(min(x1, right[other]) - max(x0, left[other]), nothing)
                    height = max(min(y1, bottom[other]) - max(y0, top[other]), nothing)
                    shared = width * height
                    union = max(own + area[other] - shared, tiny)
                    kept[other] &= shared / union <= threshold
