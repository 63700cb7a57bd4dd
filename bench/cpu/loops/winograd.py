"""Winograd's convolutions on a CPU, compiled: F(2 x 2, 3 x 3) of Lavin and Gray 2016 (https://arxiv.org/abs/1509.09308).

A tile of 2 x 2 outputs is made of a window of 4 x 4 inputs. Windows and filters are transformed to 16 numbers by
additions; these are multiplied and summed over the channels, each of the 16 a product of matrices; additions make the
tile of the 16 sums. That is 16 multiplications where the convolution itself has 36. All three steps of some tiles are
done while they are in the cache: input, output and filters alone go through memory.

Tensors are flat views of (B, H, W, C), float32 or bfloat16, of whole vectors of channels.
"""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import inlined, outer
from bench.cpu.loops.depthwise import empty
from bench.cpu.loops.lanes import LANES, clamp, load, load_first, minus, plus, plus_product, spread, store
from bench.cpu.loops.products import PANEL, ROWS, WHOLE, multiply, store_rows

__all__ = ["PANEL", "POINTS", "TILES", "forward", "lay_out"]

TILES = -(-40 // ROWS) * ROWS  # that are done together: in bfloat16 with 512 channels 640 KB of a second-level cache
POINTS = 16
STAGGER = 4 * LANES  # numbers between points: what is written together does not lie in the same lines of a cache


@inlined()
def place_of(tile, across, per_image):
    """Image, row and column of tiles."""
    image, rest = tile // per_image, tile % per_image
    return image, rest // across, rest % across


@inlined()
def grid(height, width):
    """How many tiles are in a row of an image, and in all of it."""
    across = (width + 1) // 2
    return across, (height + 1) // 2 * across


@inlined()
def reach(tile, height, width, channels):
    """Where a window's rows and columns begin in x, and which of them are inside the image, as numbers to be read.

    What is outside is not read, but has to be an address.
    """
    across, per_image = grid(height, width)
    image, row, column = place_of(tile, across, per_image)
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
def _window_row(x, row, columns, inside):
    """A row of windows, by the columns of the transform."""
    a, b, c, d = columns
    a_inside, b_inside, c_inside, d_inside = inside
    x0, x1 = load_first(x, row + a, a_inside), load_first(x, row + b, b_inside)
    x2, x3 = load_first(x, row + c, c_inside), load_first(x, row + d, d_inside)
    return minus(x0, x2), plus(x1, x2), minus(x2, x1), minus(x1, x3)


@inlined()
def _store_column(windows, at, apart, x0, x1, x2, x3):
    """A column of the transformed windows, from the four rows."""
    store(windows, at, minus(x0, x2))
    store(windows, at + 4 * apart, plus(x1, x2))
    store(windows, at + 8 * apart, minus(x2, x1))
    store(windows, at + 12 * apart, minus(x1, x3))


@inlined()
def transform_window(x, channel, reached, windows, to, apart):
    """Sixteen channels of a window, transformed: 16 points `apart`. Around the image are zeros."""
    rows, columns, above, whole, below, last = reached
    a0, a1, a2, a3 = _window_row(x, rows[0] + channel, columns, above)
    b0, b1, b2, b3 = _window_row(x, rows[1] + channel, columns, whole)
    c0, c1, c2, c3 = _window_row(x, rows[2] + channel, columns, below)
    d0, d1, d2, d3 = _window_row(x, rows[3] + channel, columns, last)
    _store_column(windows, to, apart, a0, b0, c0, d0)
    _store_column(windows, to + apart, apart, a1, b1, c1, d1)
    _store_column(windows, to + 2 * apart, apart, a2, b2, c2, d2)
    _store_column(windows, to + 3 * apart, apart, a3, b3, c3, d3)


@inlined()
def _column_of_sums(sums, at, apart):
    """A column of a tile's 16 sums to two."""
    m1, m2 = load(sums, at + 4 * apart), load(sums, at + 8 * apart)
    return plus(plus(load(sums, at), m1), m2), minus(minus(m1, m2), load(sums, at + 12 * apart))


@inlined()
def _tile(sums, at, apart, offset, low, high, y, to, pitch, channels, has_right, has_below):
    """A tile of the output from its 16 sums."""
    a0, a1 = _column_of_sums(sums, at, apart)
    b0, b1 = _column_of_sums(sums, at + apart, apart)
    c0, c1 = _column_of_sums(sums, at + 2 * apart, apart)
    d0, d1 = _column_of_sums(sums, at + 3 * apart, apart)
    store(y, to, clamp(plus(offset, plus(plus(a0, b0), c0)), low, high))
    if has_right:
        store(y, to + channels, clamp(plus(offset, minus(minus(b0, c0), d0)), low, high))
    if has_below:
        store(y, to + pitch, clamp(plus(offset, plus(plus(a1, b1), c1)), low, high))
        if has_right:
            store(y, to + pitch + channels, clamp(plus(offset, minus(minus(b1, c1), d1)), low, high))


@outer()
def forward(x, y, filters, bias, sizes, bounds, part, parts):
    """Write y, of the height and width of x: clamped sums with `bias`, (channels of y,).

    filters: flat (16, panels, ...), as `lay_out` writes them, of the type of x and y.
    sizes: images, height, width, channels of x and of y, tiles of a task. bounds: lowest and highest value of y.
    part, parts: which of the tasks are to be done.
    """
    images, height, width, channels_in, channels_out, tiles = sizes
    across, per_image = grid(height, width)
    panels = (channels_out + PANEL - 1) // PANEL
    apart = tiles * channels_in + STAGGER
    windows, sums = empty(POINTS * apart, x.dtype), empty(POINTS * tiles * PANEL, np.float32)
    low, high = spread(bounds[0]), spread(bounds[1])
    nothing, free = np.zeros(PANEL, np.float32), (np.float32(-np.inf), np.float32(np.inf))
    for begin in range(part * tiles, images * per_image, parts * tiles):
        count = min(tiles, images * per_image - begin)
        for tile in range(count):
            reached = reach(begin + tile, height, width, channels_in)
            for channel in range(0, channels_in, LANES):
                transform_window(x, channel, reached, windows, tile * channels_in + channel, apart)
        for panel in range(panels):
            first, inside = panel * PANEL, min(PANEL, channels_out - panel * PANEL)
            for point in range(POINTS):
                at = (point * panels + panel) * PANEL * channels_in
                multiply(WHOLE, count, windows, point * apart, channels_in, 1, 0, channels_in,
                         filters[at : at + PANEL * channels_in], nothing, free, sums[:0], sums, point * tiles * PANEL,
                         PANEL, LANES, inside)  # fmt: skip
            for tile in range(count):
                image, row, column = place_of(begin + tile, across, per_image)
                to = ((image * height + 2 * row) * width + 2 * column) * channels_out + first
                for block in range(0, inside, LANES):
                    _tile(sums, tile * PANEL + block, tiles * PANEL, load(bias, first + block), low, high, y,
                          to + block, width * channels_out, channels_out, 2 * column + 1 < width,
                          2 * row + 1 < height)  # fmt: skip


@inlined()
def _filter_column(taps, at, apart):
    """A column of filters, three taps `apart`, by the rows of the transform."""
    half = spread(np.float32(0.5))
    w0, w1, w2 = load(taps, at), load(taps, at + apart), load(taps, at + 2 * apart)
    nothing = minus(w0, w0)
    ends = plus(w0, w2)
    return w0, plus_product(nothing, half, plus(ends, w1)), plus_product(nothing, half, minus(ends, w1)), w2


@inlined()
def _store_row(filters, at, apart, lane, upper, lower):
    """A row of the transformed filters of two neighbouring input channels, from their three columns."""
    half = spread(np.float32(0.5))
    u0, u1, u2 = upper
    v0, v1, v2 = lower
    nothing = minus(u0, u0)
    u_ends, v_ends = plus(u0, u2), plus(v0, v2)
    store_rows(filters, at, PANEL, lane, u0, v0)
    store_rows(filters, at + apart, PANEL, lane, plus_product(nothing, half, plus(u_ends, u1)),
               plus_product(nothing, half, plus(v_ends, v1)))  # fmt: skip
    store_rows(filters, at + 2 * apart, PANEL, lane, plus_product(nothing, half, minus(u_ends, u1)),
               plus_product(nothing, half, minus(v_ends, v1)))  # fmt: skip
    store_rows(filters, at + 3 * apart, PANEL, lane, u2, v2)


@outer()
def lay_out(weights, filters, channels_in, channels_out, steps, part, parts):
    """Write the transformed filters as `multiply` wants them, float32 or bfloat16: (16, panels, C, PANEL).

    weights: flat. steps: where it begins, and how far apart in it are output channels, input channels and taps.
    part, parts: which blocks of 16 output channels are to be done; what fills up the last panel is not written.
    """
    start, by_output, by_input, by_tap = steps
    panels = (channels_out + PANEL - 1) // PANEL
    apart, tap_apart = panels * PANEL * channels_in, channels_in * LANES
    taps = empty(9 * tap_apart, np.float32)
    for block in range(part, channels_out // LANES, parts):
        panel, lane = block * LANES // PANEL, block * LANES % PANEL
        for tap in range(9):
            for output in range(LANES):
                at = start + (block * LANES + output) * by_output + tap * by_tap
                for channel in range(channels_in):
                    taps[tap * tap_apart + channel * LANES + output] = weights[at + channel * by_input]
        for channel in range(0, channels_in, 2):
            at, below, to = channel * LANES, (channel + 1) * LANES, (panel * channels_in + channel) * PANEL
            u00, u10, u20, u30 = _filter_column(taps, at, 3 * tap_apart)
            u01, u11, u21, u31 = _filter_column(taps, at + tap_apart, 3 * tap_apart)
            u02, u12, u22, u32 = _filter_column(taps, at + 2 * tap_apart, 3 * tap_apart)
            v00, v10, v20, v30 = _filter_column(taps, below, 3 * tap_apart)
            v01, v11, v21, v31 = _filter_column(taps, below + tap_apart, 3 * tap_apart)
            v02, v12, v22, v32 = _filter_column(taps, below + 2 * tap_apart, 3 * tap_apart)
            _store_row(filters, to, apart, lane, (u00, u01, u02), (v00, v01, v02))
            _store_row(filters, to + 4 * apart, apart, lane, (u10, u11, u12), (v10, v11, v12))
            _store_row(filters, to + 8 * apart, apart, lane, (u20, u21, u22), (v20, v21, v22))
            _store_row(filters, to + 12 * apart, apart, lane, (u30, u31, u32), (v30, v31, v32))
