"""The photometric part of one sample as compiled loops, for the threads that prepare batches on a CPU.

`bench.data.augment.distort` does the same to a whole batch with torch, wherever that lies; a test compares. Its
operators pass over the batch twenty times in the thread that trains; here a row of an image is read once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.cpu import loops
from bench.data.augment import Photometric


def distorted(
    pixels: NDArray[np.uint8], draws: Photometric, inside: tuple[int, int, int, int], fill: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Brightness, contrast, saturation and hue of an image, then the fill where there is none.

    pixels: (S, S, 3) RGB. inside: xyxy in whole pixels, the part that is image. fill: (3,). Returns (S, S, 3) of 0
    to 255, clamped after each part, as 8-bit images are.
    """
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
