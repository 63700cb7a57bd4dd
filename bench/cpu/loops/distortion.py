"""The photometric part of a sample, compiled; `bench.cpu.photometric` says what is what."""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import inner, outer

_0, _1, _2, _3, _4, _6 = (np.float32(number) for number in (0, 1, 2, 3, 4, 6))
_255, _LEAST_CHROMA = np.float32(255), np.float32(1e-6)
_CONTRACT = {"contract"}


@outer(fastmath=_CONTRACT)
def distort(pixels, result, inside, brightness, first, last, saturation, turn, coloured):
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


@inner(fastmath=_CONTRACT)
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
