"""The gradients of weights and biases of Winograd convolutions: F(3 x 3, 2 x 2).

At each of the 16 points of a transformed filter, the gradient is a sum over all tiles: the transformed window times the
transformed tile of the output's gradient. These are matrix products with 16 multiplications instead of 36. Additions
transform the 16 sums to the 3 x 3 gradient.

Tiles are processed in rounds whose transforms fit a cache. In a round, threads divide the tiles, then the points. Each
sum is in the order of the tiles, whatever the number of threads.
"""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import entry_point, inlined
from bench.cpu.loops.depthwise import aligned_empty
from bench.cpu.loops.lanes import LANES, add, broadcast, load, load_masked, multiply_add, store, subtract
from bench.cpu.loops.products import PANEL, ROWS, multiply
from bench.cpu.loops.winograd import (
    POINTS,
    STAGGER,
    store_rows,
    tile_grid,
    tile_position,
    transform_window,
    window_offsets,
)

__all__ = ["PANEL", "POINTS", "STAGGER", "sum_products", "transform", "transform_sums"]

_SUM_OF_TILE = 5  # this point of a transformed tile is the sum of its four pixels


@inlined()
def _store_ends(tile, to, point_stride, e0, e1):
    """Transform two rows or columns of a tile to four, and store them."""
    store(tile, to, e0)
    store(tile, to + point_stride, add(e0, e1))
    store(tile, to + 2 * point_stride, subtract(e0, e1))
    store(tile, to + 3 * point_stride, subtract(subtract(e1, e1), e1))


@inlined()
def _transform_tile(grad_y, at, pitch, channels, right, below, tile, to):
    """Write 16 channels of a transformed tile of the gradient: 16 points, LANES apart. Pixels outside are zero."""
    e00, e01 = load_masked(grad_y, at, LANES), load_masked(grad_y, at + right * channels, LANES if right else 0)
    under = at + below * pitch
    e10 = load_masked(grad_y, under, LANES if below else 0)
    e11 = load_masked(grad_y, under + right * channels, LANES if below and right else 0)
    row = 4 * LANES
    _store_ends(tile, to, LANES, e00, e01)
    _store_ends(tile, to + row, LANES, add(e00, e10), add(e01, e11))
    _store_ends(tile, to + 2 * row, LANES, subtract(e00, e10), subtract(e01, e11))
    _store_ends(tile, to + 3 * row, LANES, subtract(subtract(e10, e10), e10), subtract(subtract(e11, e11), e11))


@entry_point()
def transform(x, grad_y, windows, tiles, sizes, begin, end, part, parts):
    """Transform the windows of x and the gradients of y of tiles `begin` to `end`, for `sum_products`.

    windows: (16, panels of channels of x, tiles of a round, PANEL). tiles: (16, tiles of a round, channels of y).
    sizes: height; width; channels of x and of y; tiles of a round, an even number; the strides of the 16 points in
        windows and in tiles.
    """
    height, width, channels_in, channels_out, round_, windows_stride, tiles_stride = sizes
    across, per_image = tile_grid(height, width)
    buffer, half = aligned_empty(2 * POINTS * LANES, np.float32), POINTS * LANES
    pairs = (end - begin + 1) // 2
    for pair in range(pairs * part // parts, pairs * (part + 1) // parts):
        upper, lower = begin + 2 * pair, begin + 2 * pair + 1
        if lower == end:
            buffer[half:] = 0
        offsets = window_offsets(upper, height, width, channels_in)
        lower_offsets = window_offsets(min(lower, end - 1), height, width, channels_in)
        for channel in range(0, channels_in, LANES):
            transform_window(x, channel, offsets, buffer, 0, LANES)
            if lower < end:
                transform_window(x, channel, lower_offsets, buffer, half, LANES)
            panel, lane = channel // PANEL, channel % PANEL
            for point in range(POINTS):
                to = point * windows_stride + (panel * round_ + 2 * pair) * PANEL
                store_rows(windows, to, PANEL, lane, load(buffer, point * LANES), load(buffer, half + point * LANES))
        for channel in range(0, channels_out, LANES):
            for which in range(min(2, end - upper)):
                image, row, column = tile_position(upper + which, across, per_image)
                at = ((image * height + 2 * row) * width + 2 * column) * channels_out + channel
                right, below = 1 if 2 * column + 1 < width else 0, 1 if 2 * row + 1 < height else 0
                _transform_tile(grad_y, at, width * channels_out, channels_out, right, below, buffer, which * half)
            for point in range(POINTS):
                to = point * tiles_stride + 2 * pair * channels_out
                store_rows(
                    tiles, to, channels_out, channel, load(buffer, point * LANES), load(buffer, half + point * LANES)
                )


@entry_point()
def sum_products(windows, tiles, sums, bias_sums, sizes, count, part, parts):
    """Add the products of the first `count` tiles of a round to `sums`, (16, channels of y, channels of x), float32.

    Threads divide the points and the panels of channels of x. The other arguments are those of `transform`.
    bias_sums: (channels of y,): the pixels of the tiles are added to it.
    """
    _, _, channels_in, channels_out, round_, windows_stride, tiles_stride = sizes
    panels = (channels_in + PANEL - 1) // PANEL
    no_bias, unbounded = np.zeros(PANEL, np.float32), (np.float32(-np.inf), np.float32(np.inf))
    tiled_rows = channels_out // ROWS * ROWS
    for column in range(part * LANES, channels_out, parts * LANES):
        total = load(bias_sums, column)
        for row in range(count):
            total = add(total, load(tiles, _SUM_OF_TILE * tiles_stride + row * channels_out + column))
        store(bias_sums, column, total)
    for task in range(POINTS * panels * part // parts, POINTS * panels * (part + 1) // parts):
        point, panel = task // panels, task % panels
        tiles_start, at = point * tiles_stride, point * windows_stride + panel * round_ * PANEL
        to, valid = point * channels_out * channels_in + panel * PANEL, min(PANEL, channels_in - panel * PANEL)
        # The rows after the last whole tile need their own call: `multiply` would add some rows twice
        for first, last in ((0, tiled_rows), (tiled_rows, channels_out)):
            sums_start = to + first * channels_in
            multiply(last - first, tiles, tiles_start + first, 1, channels_out, count,
                     windows[at : at + round_ * PANEL], no_bias, unbounded, sums, sums, sums_start, channels_in, LANES,
                     valid)  # fmt: skip


@inlined()
def _three_of_four(sums, at, point_stride):
    """Transform a row or column of four sums to three taps."""
    half = broadcast(np.float32(0.5))
    m0, m1, m2 = load(sums, at), load(sums, at + point_stride), load(sums, at + 2 * point_stride)
    both, zero = add(m1, m2), subtract(m0, m0)
    return (
        multiply_add(m0, half, both),
        multiply_add(zero, half, subtract(m1, m2)),
        multiply_add(load(sums, at + 3 * point_stride), half, both),
    )


@entry_point()
def transform_sums(sums, grad_weights, channels_in, channels_out, part, parts):
    """Transform the sums of `sum_products` to weight gradients, (channels of y, 3, 3, channels of x), float32."""
    point_stride = channels_out * channels_in
    rows_buffer = aligned_empty(12 * LANES, np.float32)
    for output in range(part, channels_out, parts):
        for channel in range(0, channels_in, LANES):
            at = output * channels_in + channel
            for row in range(4):
                a, b, c = _three_of_four(sums, at + 4 * row * point_stride, point_stride)
                store(rows_buffer, row * LANES, a)
                store(rows_buffer, (4 + row) * LANES, b)
                store(rows_buffer, (8 + row) * LANES, c)
            for column in range(3):
                a, b, c = _three_of_four(rows_buffer, 4 * column * LANES, LANES)
                to = (output * 9 + column) * channels_in + channel
                store(grad_weights, to, a)
                store(grad_weights, to + 3 * channels_in, b)
                store(grad_weights, to + 6 * channels_in, c)
