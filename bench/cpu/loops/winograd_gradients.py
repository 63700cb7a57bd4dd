"""The gradients of weights and biases of Winograd's convolutions on a CPU, compiled: F(3 x 3, 2 x 2).

The gradient at each of the 16 points of a transformed filter is the sum over all tiles of the transformed window there,
times the transformed tile of the output's gradient. So these are products of matrices too, with 16 multiplications
where the gradient itself has 36; additions make the 3 x 3 of the 16 sums.

Tiles are gone through in rounds, as many as a cache holds the transforms of. Within a round threads share out the
tiles, then the points: every sum is made in the order of the tiles, however many threads there are.
"""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import inlined, outer
from bench.cpu.loops.depthwise import empty
from bench.cpu.loops.lanes import LANES, load, load_first, minus, plus, plus_product, spread, store
from bench.cpu.loops.products import PANEL, ROWS, WHOLE, multiply, store_rows
from bench.cpu.loops.winograd import POINTS, STAGGER, grid, place_of, reach, transform_window

__all__ = ["PANEL", "POINTS", "STAGGER", "filter_sums", "sum_products", "transform"]

_SUM_OF_TILE = 5  # the point at which all four pixels of a tile are added up


@inlined()
def _store_ends(tile, to, apart, e0, e1):
    """Two rows or columns of a tile to four."""
    store(tile, to, e0)
    store(tile, to + apart, plus(e0, e1))
    store(tile, to + 2 * apart, minus(e0, e1))
    store(tile, to + 3 * apart, minus(minus(e1, e1), e1))


@inlined()
def _transform_tile(gradient, at, pitch, channels, right, below, tile, to):
    """Sixteen channels of a tile of the gradient, transformed: 16 points, LANES apart. Around the image are zeros."""
    e00, e01 = load_first(gradient, at, LANES), load_first(gradient, at + right * channels, LANES if right else 0)
    under = at + below * pitch
    e10 = load_first(gradient, under, LANES if below else 0)
    e11 = load_first(gradient, under + right * channels, LANES if below and right else 0)
    row = 4 * LANES
    _store_ends(tile, to, LANES, e00, e01)
    _store_ends(tile, to + row, LANES, plus(e00, e10), plus(e01, e11))
    _store_ends(tile, to + 2 * row, LANES, minus(e00, e10), minus(e01, e11))
    _store_ends(tile, to + 3 * row, LANES, minus(minus(e10, e10), e10), minus(minus(e11, e11), e11))


@outer()
def transform(x, gradient, windows, tiles, sizes, begin, end, part, parts):
    """Windows of x and tiles of the gradient of y, from number `begin` to `end`, transformed for `sum_products`.

    windows: (16, panels of channels of x, tiles of a round, PANEL). tiles: (16, tiles of a round, channels of y). Both
        have the type of x and of the gradient; of bfloat16 two neighbouring tiles are side by side in each column.
    sizes: height, width, channels of x and of y, tiles of a round, which is even; how far the 16 points are apart in
        windows and in tiles.
    """
    height, width, channels_in, channels_out, round_, windows_apart, tiles_apart = sizes
    across, per_image = grid(height, width)
    two, half = empty(2 * POINTS * LANES, np.float32), POINTS * LANES
    pairs = (end - begin + 1) // 2
    for pair in range(pairs * part // parts, pairs * (part + 1) // parts):
        upper, lower = begin + 2 * pair, begin + 2 * pair + 1
        if lower == end:
            two[half:] = 0
        reached = (reach(upper, height, width, channels_in), reach(min(lower, end - 1), height, width, channels_in))
        for channel in range(0, channels_in, LANES):
            transform_window(x, channel, reached[0], two, 0, LANES)
            if lower < end:
                transform_window(x, channel, reached[1], two, half, LANES)
            panel, lane = channel // PANEL, channel % PANEL
            for point in range(POINTS):
                to = point * windows_apart + (panel * round_ + 2 * pair) * PANEL
                store_rows(windows, to, PANEL, lane, load(two, point * LANES), load(two, half + point * LANES))
        for channel in range(0, channels_out, LANES):
            for which in range(min(2, end - upper)):
                image, row, column = place_of(upper + which, across, per_image)
                at = ((image * height + 2 * row) * width + 2 * column) * channels_out + channel
                right, below = 1 if 2 * column + 1 < width else 0, 1 if 2 * row + 1 < height else 0
                _transform_tile(gradient, at, width * channels_out, channels_out, right, below, two, which * half)
            for point in range(POINTS):
                to = point * tiles_apart + 2 * pair * channels_out
                store_rows(tiles, to, channels_out, channel, load(two, point * LANES), load(two, half + point * LANES))


@outer()
def sum_products(windows, tiles, sums, of_tiles, sizes, count, part, parts):
    """Add to sums, (16, channels of y, channels of x), float32, the products of so many tiles of a round.

    Threads take points, and panels of channels of x. The other arguments are those of `transform`.
    of_tiles: (channels of y, 1, or 2 where tiles are side by side), float32, to which the tiles themselves are added,
        all four of their pixels.
    """
    _, _, channels_in, channels_out, round_, windows_apart, tiles_apart = sizes
    panels = (channels_in + PANEL - 1) // PANEL
    side_by_side = windows.itemsize == 2
    pitch, depth = (2, count + count % 2) if side_by_side else (1, count)
    nothing, free = np.zeros(PANEL, np.float32), (np.float32(-np.inf), np.float32(np.inf))
    in_tiles = channels_out // ROWS * ROWS
    for column in range(part * LANES, channels_out * pitch, parts * LANES):
        total = load(of_tiles, column)
        for row in range(depth // pitch):
            total = plus(total, load(tiles, _SUM_OF_TILE * tiles_apart + row * pitch * channels_out + column))
        store(of_tiles, column, total)
    for task in range(POINTS * panels * part // parts, POINTS * panels * (part + 1) // parts):
        point, panel = task // panels, task % panels
        from_, at = point * tiles_apart, point * windows_apart + panel * round_ * PANEL
        to, inside = point * channels_out * channels_in + panel * PANEL, min(PANEL, channels_in - panel * PANEL)
        # Rows after the last whole tile in a call of their own: `multiply` would add some twice
        for first, last in ((0, in_tiles), (in_tiles, channels_out)):
            there = to + first * channels_in
            multiply(WHOLE, last - first, tiles, from_ + first * pitch, pitch, channels_out, 0, depth,
                     windows[at : at + round_ * PANEL], nothing, free, sums, sums, there, channels_in, LANES,
                     inside)  # fmt: skip


@inlined()
def _three_of_four(sums, at, apart):
    """A row or column of four points to three taps."""
    half = spread(np.float32(0.5))
    m0, m1, m2 = load(sums, at), load(sums, at + apart), load(sums, at + 2 * apart)
    both, nothing = plus(m1, m2), minus(m0, m0)
    return (
        plus_product(m0, half, both),
        plus_product(nothing, half, minus(m1, m2)),
        plus_product(load(sums, at + 3 * apart), half, both),
    )


@outer()
def filter_sums(sums, to_weights, channels_in, channels_out, part, parts):
    """The gradient of the weights, (channels of y, 3, 3, channels of x), float32, from the sums of `sum_products`."""
    apart = channels_out * channels_in
    lines = empty(12 * LANES, np.float32)
    for output in range(part, channels_out, parts):
        for channel in range(0, channels_in, LANES):
            at = output * channels_in + channel
            for row in range(4):
                a, b, c = _three_of_four(sums, at + 4 * row * apart, apart)
                store(lines, row * LANES, a)
                store(lines, (4 + row) * LANES, b)
                store(lines, (8 + row) * LANES, c)
            for column in range(3):
                a, b, c = _three_of_four(lines, 4 * column * LANES, LANES)
                to = (output * 9 + column) * channels_in + channel
                store(to_weights, to, a)
                store(to_weights, to + 3 * channels_in, b)
                store(to_weights, to + 6 * channels_in, c)
