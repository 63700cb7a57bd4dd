"""The photometric distortions of one image; `bench.data.augment` explains the formulas."""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import entry_point, internal

_0, _1, _2, _3, _4, _6 = (np.float32(number) for number in (0, 1, 2, 3, 4, 6))
_255, _LEAST_CHROMA = np.float32(255), np.float32(1e-6)
_CONTRACT = {"contract"}


@entry_point(fastmath=_CONTRACT)
def distort(pixels, result, inside, brightness, first, last, saturation, turn, coloured):
    """Distort `pixels` (S, S, 3) within `inside`. Channels of a row are separate, so that the compiler can use vectors.

    first, last: contrast factors before and after the shift of colours. turn: hue shift in sixths of the circle.
    """
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


@internal(fastmath=_CONTRACT)
def _shift_colours(row, saturation, turn):
    """Scale the saturation and turn the hue of a row (3, columns), in HSV."""
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
