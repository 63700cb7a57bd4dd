"""Winograd convolution F(2 x 2, 3 x 3), Lavin and Gray 2016 (https://arxiv.org/abs/1509.09308).

A tile of 2 x 2 outputs depends on a window of 4 x 4 inputs. Additions transform windows and filters to 16 points each.
At each point, a matrix product sums over the channels. Additions transform the 16 sums to the tile. This uses 16
multiplications instead of 36. All steps of a group of tiles run while they are in the cache.

Tensors are flat float32 views of (B, H, W, C) with a multiple of 16 channels.
"""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import entry_point, inlined
from bench.cpu.loops.depthwise import aligned_empty
from bench.cpu.loops.lanes import LANES, add, broadcast, clamp, load, load_masked, multiply_add, store, subtract
from bench.cpu.loops.products import PANEL, ROWS, multiply

__all__ = ["PANEL", "POINTS", "TILES", "forward", "lay_out"]

TILES = -(-40 // ROWS) * ROWS  # computed together: 1.3 MB with 512 channels
POINTS = 16
STAGGER = 4 * LANES  # elements between points, so that points written together do not share cache sets


@inlined()
def tile_position(tile, across, per_image):
    """The image, and the row and column of tiles, of a tile."""
    image, tile_in_image = tile // per_image, tile % per_image
    return image, tile_in_image // across, tile_in_image % across


@inlined()
def tile_grid(height, width):
    """The number of tiles in a row of an image, and in an image."""
    across = (width + 1) // 2
    return across, (height + 1) // 2 * across


@inlined()
def window_offsets(tile, height, width, channels):
    """The offsets of a window's rows and columns in x, and for each row the lanes to load from its four columns.

    Outside the image no lanes are loaded, but offsets must still be valid.
    """
    across, per_image = tile_grid(height, width)
    image, row, column = tile_position(tile, across, per_image)
    top, left, pitch = 2 * row - 1, 2 * column - 1, width * channels
    start = image * height * pitch
    rows = (
        start + max(top, 0) * pitch,
        start + (top + 1) * pitch,
        start + min(top + 2, height - 1) * pitch,
        start + min(top + 3, height - 1) * pitch,
    )
    columns = (
        max(left, 0) * channels,
        (left + 1) * channels,
        min(left + 2, width - 1) * channels,
        min(left + 3, width - 1) * channels,
    )
    whole = (
        LANES if left >= 0 else 0,
        LANES,
        LANES if left + 2 < width else 0,
        LANES if left + 3 < width else 0,
    )
    none = (0, 0, 0, 0)
    above = whole if top >= 0 else none
    below = whole if top + 2 < height else none
    last = whole if top + 3 < height else none
    return rows, columns, above, whole, below, last


@inlined()
def _window_row(x, row, columns, lanes):
    """Load a row of a window and transform it along the columns."""
    a, b, c, d = columns
    a_lanes, b_lanes, c_lanes, d_lanes = lanes
    x0, x1 = load_masked(x, row + a, a_lanes), load_masked(x, row + b, b_lanes)
    x2, x3 = load_masked(x, row + c, c_lanes), load_masked(x, row + d, d_lanes)
    return subtract(x0, x2), add(x1, x2), subtract(x2, x1), subtract(x1, x3)


@inlined()
def _store_column(windows, at, point_stride, x0, x1, x2, x3):
    """Transform a column of a window along the rows and store it."""
    store(windows, at, subtract(x0, x2))
    store(windows, at + 4 * point_stride, add(x1, x2))
    store(windows, at + 8 * point_stride, subtract(x2, x1))
    store(windows, at + 12 * point_stride, subtract(x1, x3))


@inlined()
def transform_window(x, channel, offsets, windows, to, point_stride):
    """Write 16 channels of a transformed window: 16 points, `point_stride` apart. The image is padded with zeros."""
    rows, columns, above, whole, below, last = offsets
    a0, a1, a2, a3 = _window_row(x, rows[0] + channel, columns, above)
    b0, b1, b2, b3 = _window_row(x, rows[1] + channel, columns, whole)
    c0, c1, c2, c3 = _window_row(x, rows[2] + channel, columns, below)
    d0, d1, d2, d3 = _window_row(x, rows[3] + channel, columns, last)
    _store_column(windows, to, point_stride, a0, b0, c0, d0)
    _store_column(windows, to + point_stride, point_stride, a1, b1, c1, d1)
    _store_column(windows, to + 2 * point_stride, point_stride, a2, b2, c2, d2)
    _store_column(windows, to + 3 * point_stride, point_stride, a3, b3, c3, d3)


@inlined()
def _column_of_sums(sums, at, point_stride):
    """Transform a column of a tile's sums along the rows, from four to two."""
    m1, m2 = load(sums, at + 4 * point_stride), load(sums, at + 8 * point_stride)
    return add(add(load(sums, at), m1), m2), subtract(subtract(m1, m2), load(sums, at + 12 * point_stride))


@inlined()
def _tile(sums, at, point_stride, offset, low, high, y, to, pitch, channels, has_right, has_below):
    """Transform a tile's 16 sums to its outputs and store them."""
    a0, a1 = _column_of_sums(sums, at, point_stride)
    b0, b1 = _column_of_sums(sums, at + point_stride, point_stride)
    c0, c1 = _column_of_sums(sums, at + 2 * point_stride, point_stride)
    d0, d1 = _column_of_sums(sums, at + 3 * point_stride, point_stride)
    store(y, to, clamp(add(offset, add(add(a0, b0), c0)), low, high))
    if has_right:
        store(y, to + channels, clamp(add(offset, subtract(subtract(b0, c0), d0)), low, high))
    if has_below:
        store(y, to + pitch, clamp(add(offset, add(add(a1, b1), c1)), low, high))
        if has_right:
            store(y, to + pitch + channels, clamp(add(offset, subtract(subtract(b1, c1), d1)), low, high))


@entry_point()
def forward(x, y, filters, bias, sizes, bounds, part, parts):
    """Write y = clamp(conv2d(x) + bias), with the height and width of x.

    filters: from `lay_out`, with the dtype of x and y. bias: (channels of y,).
    sizes: images, height, width, channels of x and of y, tiles per task. bounds: lowest and highest value of y.
    part, parts: do tasks part, part + parts, ...
    """
    images, height, width, channels_in, channels_out, tiles = sizes
    across, per_image = tile_grid(height, width)
    panels = (channels_out + PANEL - 1) // PANEL
    point_stride = tiles * channels_in + STAGGER
    windows, sums = aligned_empty(POINTS * point_stride, x.dtype), aligned_empty(POINTS * tiles * PANEL, np.float32)
    low, high = broadcast(bounds[0]), broadcast(bounds[1])
    no_bias, unbounded = np.zeros(PANEL, np.float32), (np.float32(-np.inf), np.float32(np.inf))
    for begin in range(part * tiles, images * per_image, parts * tiles):
        count = min(tiles, images * per_image - begin)
        for tile in range(count):
            offsets = window_offsets(begin + tile, height, width, channels_in)
            for channel in range(0, channels_in, LANES):
                transform_window(x, channel, offsets, windows, tile * channels_in + channel, point_stride)
        for panel in range(panels):
            first, valid = panel * PANEL, min(PANEL, channels_out - panel * PANEL)
            for point in range(POINTS):
                at = (point * panels + panel) * PANEL * channels_in
                multiply(count, windows, point * point_stride, channels_in, 1, channels_in,
                         filters[at : at + PANEL * channels_in], no_bias, unbounded, sums[:0], sums,
                         point * tiles * PANEL, PANEL, LANES, valid)  # fmt: skip
            for tile in range(count):
                image, row, column = tile_position(begin + tile, across, per_image)
                to = ((image * height + 2 * row) * width + 2 * column) * channels_out + first
                for block in range(0, valid, LANES):
                    _tile(sums, tile * PANEL + block, tiles * PANEL, load(bias, first + block), low, high, y,
                          to + block, width * channels_out, channels_out, 2 * column + 1 < width,
                          2 * row + 1 < height)  # fmt: skip


@inlined()
def _filter_column(taps, at, tap_stride):
    """Transform a column of filters, three taps `tap_stride` apart, along the rows."""
    half = broadcast(np.float32(0.5))
    w0, w1, w2 = load(taps, at), load(taps, at + tap_stride), load(taps, at + 2 * tap_stride)
    zero = subtract(w0, w0)
    ends = add(w0, w2)
    return w0, multiply_add(zero, half, add(ends, w1)), multiply_add(zero, half, subtract(ends, w1)), w2


@inlined()
def store_rows(rows, at, width, first, upper, lower):
    """Store 16 columns, from column `first`, of two rows of length `width`; the upper row starts at index `at`."""
    store(rows, at + first, upper)
    store(rows, at + first + width, lower)


@inlined()
def _store_row(filters, at, point_stride, lane, upper, lower):
    """Transform a row of the filters of two neighbouring input channels along the columns, and store it."""
    half = broadcast(np.float32(0.5))
    u0, u1, u2 = upper
    v0, v1, v2 = lower
    zero = subtract(u0, u0)
    u_ends, v_ends = add(u0, u2), add(v0, v2)
    store_rows(filters, at, PANEL, lane, u0, v0)
    store_rows(filters, at + point_stride, PANEL, lane, multiply_add(zero, half, add(u_ends, u1)),
               multiply_add(zero, half, add(v_ends, v1)))  # fmt: skip
    store_rows(filters, at + 2 * point_stride, PANEL, lane, multiply_add(zero, half, subtract(u_ends, u1)),
               multiply_add(zero, half, subtract(v_ends, v1)))  # fmt: skip
    store_rows(filters, at + 3 * point_stride, PANEL, lane, u2, v2)


@entry_point()
def lay_out(weights, filters, channels_in, channels_out, steps, part, parts):
    """Write the transformed filters in the layout of `multiply`, (16, panels, C, PANEL).

    weights: flat. steps: the index of the first weight, and the strides of output channels, input channels and taps.
    part, parts: do blocks part, part + parts, ... of 16 output channels. The last panel's padding is not written.
    """
    start, by_output, by_input, by_tap = steps
    panels = (channels_out + PANEL - 1) // PANEL
    point_stride, tap_stride = panels * PANEL * channels_in, channels_in * LANES
    taps = aligned_empty(9 * tap_stride, np.float32)
    for block in range(part, channels_out // LANES, parts):
        panel, lane = block * LANES // PANEL, block * LANES % PANEL
        for tap in range(9):
            for output in range(LANES):
                at = start + (block * LANES + output) * by_output + tap * by_tap
                for channel in range(channels_in):
                    taps[tap * tap_stride + channel * LANES + output] = weights[at + channel * by_input]
        for channel in range(0, channels_in, 2):
            at, below, to = channel * LANES, (channel + 1) * LANES, (panel * channels_in + channel) * PANEL
            u00, u10, u20, u30 = _filter_column(taps, at, 3 * tap_stride)
            u01, u11, u21, u31 = _filter_column(taps, at + tap_stride, 3 * tap_stride)
            u02, u12, u22, u32 = _filter_column(taps, at + 2 * tap_stride, 3 * tap_stride)
            v00, v10, v20, v30 = _filter_column(taps, below, 3 * tap_stride)
            v01, v11, v21, v31 = _filter_column(taps, below + tap_stride, 3 * tap_stride)
            v02, v12, v22, v32 = _filter_column(taps, below + 2 * tap_stride, 3 * tap_stride)
            _store_row(filters, to, point_stride, lane, (u00, u01, u02), (v00, v01, v02))
            _store_row(filters, to + 4 * point_stride, point_stride, lane, (u10, u11, u12), (v10, v11, v12))
            _store_row(filters, to + 8 * point_stride, point_stride, lane, (u20, u21, u22), (v20, v21, v22))
            _store_row(filters, to + 12 * point_stride, point_stride, lane, (u30, u31, u32), (v30, v31, v32))
