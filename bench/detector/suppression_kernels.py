"""Greedy non-maximum suppression on a CPU, compiled: group by group, each kept box against all that come after it.

`bench.detector.detections.suppress` does the same with torch, wherever the boxes lie; a test compares to the bit.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import njit

_loop: Any = partial(njit, nogil=True, cache=True, error_model="numpy")


@_loop()
def suppress(sides, area, starts, threshold, kept, part, parts):
    """Set `kept`, (N,) uint8, to 1 or 0, for the groups whose turn it is.

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
