"""The photometric part of one sample as compiled loops, for the threads that prepare batches on a CPU.

`bench.data.augment.distort` does the same to a whole batch with torch, wherever that lies; a test compares. Its
operators pass over the batch twenty times in the thread that trains; here a row of an image is read once.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bench.data.augment import Photometric

_loop: Any = partial(njit, nogil=True, fastmath={"contract"}, cache=True)
_0, _1, _2, _3, _4, _6 = (np.float32(number) for number in (0, 1, 2, 3, 4, 6))
_255, _LEAST_CHROMA = np.float32(255), np.float32(1e-6)


def distorted(
    pixels: NDArray[np.uint8], draws: Photometric, inside: tuple[int, int, int, int], fill: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Brightness, contrast, saturation and hue of an image, then the fill where there is none.

    pixels: (S, S, 3) RGB. inside: xyxy in whole pixels, the part that is image. fill: (3,). Returns (S, S, 3) of 0
    to 255, clamped after each part, as 8-bit images are.
    """
    result = np.empty(pixels.shape, dtype=np.float32)
    result[:] = fill
    _distort(
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


@_loop()
def _distort(pixels, result, inside, brightness, first, last, saturation, turn, coloured):
    """Row by row: each channel by itself in memory, so that pixels of a row are computed together."""
    left, top, right, bottom = inside
    row = np.empty((3, max(0, right - left)), dtype=np.float32)
    for y in range(top, bottom):
        for x in range(left, right):
            for channel in range(3):
                value = min(max(np.float32(pixels[y, x, channel]) + brightness, _0), _255)
                row[channel, x - left] = min(max(value * first, _0), _255)
        if coloured:
            _shift_colours(row, saturation, turn)
        for x in range(left, right):
            for channel in range(3):
                result[y, x, channel] = min(max(row[channel, x - left] * last, _0), _255)


@_loop(no_cpython_wrapper=True, no_cfunc_wrapper=True)
def _shift_colours(row, saturation, turn):
    """Saturation scaled and hue turned in HSV; the formulas are explained in `bench.data.augment`."""
    for x in range(row.shape[1]):
        red, green, blue = row[0, x], row[1, x], row[2, x]
        value = max(red, green, blue)
        chroma = value - min(red, green, blue)
        scale = _1 / max(chroma, _LEAST_CHROMA)
        sector = (blue - red) * scale + _2 if value == green else (red - green) * scale + _4
        sector = (green - blue) * scale if value == red else sector
        sector += turn
        sector -= _6 * np.floor(sector / _6)
        chroma = min(chroma * saturation, value)
        row[0, x] = value - chroma * min(max(_2 - abs(abs(sector) - _3), _0), _1)
        row[1, x] = value - chroma * min(max(_2 - abs(abs(sector - _2) - _3), _0), _1)
        row[2, x] = value - chroma * min(max(_2 - abs(abs(sector - _4) - _3), _0), _1)
