"""A kernel for `bench.data.augment.photometric`: one pass over an image instead of twenty, equal up to rounding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.cpu import loops
from bench.data import augment
from bench.data.augment import Photometric
from bench.device.fast_paths import override


@override(augment.photometric)
def photometric(
    pixels: NDArray[np.uint8], draws: Photometric, inside: tuple[int, int, int, int], fill: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Distort (S, S, 3) RGB pixels; the result is float32 of 0 to 255, with `fill` outside `inside`."""
    result = np.empty(pixels.shape, dtype=np.float32)
    result[:] = fill
    loops.distortion.distort(
        pixels,
        result,
        inside,
        np.float32(draws.brightness),
        np.float32(draws.contrast if draws.contrast_first else 1.0),
        np.float32(1.0 if draws.contrast_first else draws.contrast),
        np.float32(draws.saturation),
        np.float32(6 * draws.hue),
        draws.saturation != 1.0 or draws.hue != 0.0,
    )
    return result
