"""The subsets of objects that AP is also reported for: COCO's sizes, and truncated or occluded objects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZES = ("small", "medium", "large")
SIZE_SIDES = (32, 96)  # pixels; side of the square whose area separates two sizes
NETWORK_SIZES = tuple(f"{size}_network" for size in SIZES)  # the same limits, at the network's resolution
CONDITIONS = ("truncated", "untruncated", "occluded", "unoccluded")


def size_of_area(areas: NDArray[np.float64]) -> NDArray[np.int64]:
    """(M,) index into SIZES for areas in pixels squared; an area on a limit belongs to the larger size.

    COCO's evaluation counts such an object in both sizes.
    """
    return np.digitize(areas, [side**2 for side in SIZE_SIDES])
