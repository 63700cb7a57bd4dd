"""Loops of depthwise convolution on a CPU, compiled: forward, and gradients of input and weights, with what is
clamped (ReLU6 and its like) before and after.

torch's CPU library needs four times the time of the forward pass for the gradients of 5 x 5 weights, and each
activation beside them is a pass over the network's largest tensors. Here the rows of an image that a row of the
output needs lie in a ring that fits the cache, blocks of 32 channels apart; they are clamped on the way in, and
everything that is wanted of them is computed while they are there.

All integers are unsigned: a signed index may count from the end, and loops with such an index are not turned into
vector instructions. Kernel and stride come as tuples of so many elements: the length of a tuple is known when a
function is compiled, and loops over it are unrolled. Tensors are flat views of (B, H, W, C) float32. Sums over images
are the caller's, so that results do not depend on how images are shared out among threads.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba import njit

BLOCK = 32  # channels that are computed together
COLUMNS = 4  # of the output that are computed together: what fits the registers

_0, _1, _2, _3 = (np.uintp(number) for number in range(4))
_B, _GROUP = np.uintp(BLOCK), np.uintp(COLUMNS)
_NOTHING = np.float32(0)
# Contraction: a product and a sum may be rounded once
_outer: Any = partial(njit, nogil=True, fastmath={"contract"}, cache=True)
_inner: Any = _outer(no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_inner
def _clamp_row(source, at, columns, pitch, channels, low, high, ring, to, apart):
    """A row of `channels` channels into blocks that lie `apart`, clamped."""
    for column in range(_0, columns):
        for first in range(_0, channels, _B):
            a, b = at + column * pitch + first, to + first // _B * apart + column * _B
            if first + _B <= channels:
                for c in range(_0, _B):
                    value = source[a + c]
                    value = low if value < low else value
                    ring[b + c] = high if value > high else value
            else:
                for c in range(_0, channels - first):
                    value = source[a + c]
                    value = low if value < low else value
                    ring[b + c] = high if value > high else value


@_inner
def _clear_row(ring, start, apart, blocks, cells):
    """Zeros in a row of each block."""
    for block in range(_0, blocks):
        for at in range(_0, cells):
            ring[start + block * apart + at] = _NOTHING


@_inner
def _mask_row(source, gradient, at, columns, pitch, channels, low, high, blocks, apart):
    """A row of gradients into blocks, where the value that was clamped is strictly within its bounds."""
    for column in range(_0, columns):
        for first in range(_0, channels, _B):
            a, b = at + column * pitch + first, first // _B * apart + column * _B
            for c in range(_0, min(_B, channels - first)):
                value, arrived = source[a + c], gradient[a + c]
                arrived = arrived if value > low else _NOTHING
                blocks[b + c] = arrived if value < high else _NOTHING


@_inner
def _store_row(ring, start, apart, target, at, columns, pitch, channels, low, high):
    """Blocks of a row to the tensor, clamped."""
    for column in range(_0, columns):
        for first in range(_0, channels, _B):
            a, b = at + column * pitch + first, start + first // _B * apart + column * _B
            if first + _B <= channels:
                for c in range(_0, _B):
                    value = ring[b + c]
                    value = low if value < low else value
                    target[a + c] = high if value > high else value
            else:
                for c in range(_0, channels - first):
                    value = ring[b + c]
                    value = low if value < low else value
                    target[a + c] = high if value > high else value


@_inner
def _store_masked_row(ring, start, apart, source, target, at, columns, pitch, channels, low, high):
    """Blocks of a row of gradients to the tensor, where `source` is strictly within its bounds."""
    for column in range(_0, columns):
        for first in range(_0, channels, _B):
            a, b = at + column * pitch + first, start + first // _B * apart + column * _B
            for c in range(_0, min(_B, channels - first)):
                value, arrived = source[a + c], ring[b + c]
                arrived = arrived if value > low else _NOTHING
                target[a + c] = arrived if value < high else _NOTHING


@_inner
def _convolve(kernel, stride, ring, block, row, width, weights, begin, out, columns):
    """A row of the output: `out` is added to."""
    side, step = np.uintp(len(kernel)), np.uintp(len(stride))
    line = side * _B
    next_, second, third = step * _B, _2 * step * _B, _3 * step * _B
    for i in range(_0, side):
        start = (block * side + (row + i) % side) * width
        for column in range(_0, columns, _GROUP):
            x, y = (start + column * step) * _B, column * _B
            for c in range(_0, _B):
                a0, a1, a2, a3 = out[y + c], out[y + _B + c], out[y + _2 * _B + c], out[y + _3 * _B + c]
                for j in range(_0, side):
                    w, at = weights[begin + i * line + j * _B + c], x + j * _B + c
                    a0 += w * ring[at]
                    a1 += w * ring[at + next_]
                    a2 += w * ring[at + second]
                    a3 += w * ring[at + third]
                out[y + c], out[y + _B + c], out[y + _2 * _B + c], out[y + _3 * _B + c] = a0, a1, a2, a3


@_inner
def _to_weights(kernel, stride, ring, block, row, width, gradient, begin, sums, to, columns):
    """What a row of gradients and the rows that it came from add to the weights' gradient."""
    side, step = np.uintp(len(kernel)), np.uintp(len(stride))
    line = side * _B
    next_, second, third = step * _B, _2 * step * _B, _3 * step * _B
    for i in range(_0, side):
        start = (block * side + (row + i) % side) * width
        for column in range(_0, columns, _GROUP):
            x, y = (start + column * step) * _B, begin + column * _B
            for c in range(_0, _B):
                g0, g1 = gradient[y + c], gradient[y + _B + c]
                g2, g3 = gradient[y + _2 * _B + c], gradient[y + _3 * _B + c]
                for j in range(_0, side):
                    at = x + j * _B + c
                    first = g0 * ring[at] + g1 * ring[at + next_]
                    sums[to + i * line + j * _B + c] += first + (g2 * ring[at + second] + g3 * ring[at + third])


@_inner
def _to_input(kernel, stride, ring, block, row, width, weights, begin, gradient, arrived, columns):
    """What a row of gradients adds to those of the rows that it came from."""
    side, step = np.uintp(len(kernel)), np.uintp(len(stride))
    line, cells = side * _B, _3 * step + side
    next_, second, third = step * _B, _2 * step * _B, _3 * step * _B
    for i in range(_0, side):
        start = (block * side + (row + i) % side) * width
        for column in range(_0, columns, _GROUP):
            x, y = (start + column * step) * _B, arrived + column * _B
            for c in range(_0, _B):
                g0, g1 = gradient[y + c], gradient[y + _B + c]
                g2, g3 = gradient[y + _2 * _B + c], gradient[y + _3 * _B + c]
                for j in range(_0, cells):
                    at, w = x + j * _B + c, begin + i * line + j * _B + c
                    value = ring[at]
                    if j < side:
                        value += g0 * weights[w]
                    if step <= j < side + step:
                        value += g1 * weights[w - next_]
                    if _2 * step <= j < side + _2 * step:
                        value += g2 * weights[w - second]
                    if j >= _3 * step:
                        value += g3 * weights[w - third]
                    ring[at] = value


@_inner
def _fill(kernel, ring, begin, end, x, image, first, inside, width, sizes, bounds):
    """Rows `begin` to `end` of the padded image into their places in the ring."""
    side = np.uintp(len(kernel))
    height, columns, channels, _, _, top, left, _, _, _ = sizes
    apart = side * _B * width
    for row in range(begin, end):
        slot = row % side * width * _B
        if top <= row < top + height:
            at = (image * height + row - top) * columns * channels + first * _B
            _clamp_row(x, at, columns, channels, inside, bounds[0], bounds[1], ring, slot + left * _B, apart)
        else:
            _clear_row(ring, slot, apart, (inside + _B - _1) // _B, width * _B)


@_outer()
def forward(kernel, stride, x, y, weights, bias, sizes, bounds, part, parts):
    """Write y. The bias, (blocks, BLOCK), and the weights, (blocks, taps, BLOCK), have zeros for channels that fill up.

    kernel, stride: tuples of so many elements.
    sizes: height, width and channels of x, height and width of y, rows and columns of zeros above and left of x,
        groups of blocks, blocks of a group, images.
    bounds: lowest and highest value of x, and of y.
    part, parts: which of the tasks, one for each image and group, are to be done.
    """
    side, step = np.uintp(len(kernel)), np.uintp(len(stride))
    line, taps = side * _B, side * side * _B
    _, columns_in, channels, rows, columns_out, _, left, groups, per_group, images = sizes
    _, _, low, high = bounds
    columns = (columns_out + _3) // _GROUP * _GROUP
    width = max(columns_in + left, (columns - _1) * step + side)
    ring = np.empty(per_group * line * width, np.float32)
    out = np.empty(per_group * columns * _B, np.float32)
    for task in range(part, images * groups, parts):
        image, first = task // groups, task % groups * per_group
        inside = min(per_group * _B, channels - first * _B)
        blocks = (inside + _B - _1) // _B
        ring[:] = _NOTHING
        filled = _0
        for row in range(_0, rows):
            _fill(kernel, ring, filled, row * step + side, x, image, first, inside, width, sizes, bounds)
            filled = row * step + side
            for block in range(_0, blocks):
                for column in range(_0, columns):
                    for c in range(_0, _B):
                        out[(block * columns + column) * _B + c] = bias[(first + block) * _B + c]
                part_of_line = out[block * columns * _B : (block + _1) * columns * _B]
                _convolve(
                    kernel,
                    stride,
                    ring,
                    block,
                    row * step,
                    width,
                    weights,
                    (first + block) * taps,
                    part_of_line,
                    columns,
                )
            at = (image * rows + row) * columns_out * channels + first * _B
            _store_row(out, _0, columns * _B, y, at, columns_out, channels, inside, low, high)


@_outer()
def backward(kernel, stride, x, y, gradient, weights, to_x, sums, sizes, bounds, part, parts):
    """Write the gradient of x to `to_x` and add each image's gradient of the weights to `sums`, (images, blocks, taps,
    BLOCK), except to one that is empty. The rest as for `forward`.
    """
    side, step = np.uintp(len(kernel)), np.uintp(len(stride))
    line, taps = side * _B, side * side * _B
    height, columns_in, channels, rows, columns_out, top, left, groups, per_group, images = sizes
    low_in, high_in, low, high = bounds
    columns = (columns_out + _3) // _GROUP * _GROUP
    width = max(columns_in + left, (columns - _1) * step + side)
    apart = line * width
    ring = np.empty(per_group * apart, np.float32)
    back = np.zeros(per_group * apart, np.float32)
    arrived = np.zeros(per_group * columns * _B, np.float32)
    all_taps = (channels + _B - _1) // _B * taps
    for task in range(part, images * groups, parts):
        image, first = task // groups, task % groups * per_group
        inside = min(per_group * _B, channels - first * _B)
        blocks = (inside + _B - _1) // _B
        ring[:] = _NOTHING
        filled = stored = _0
        for row in range(_0, rows):
            at = (image * rows + row) * columns_out * channels + first * _B
            _mask_row(y, gradient, at, columns_out, channels, inside, low, high, arrived, columns * _B)
            if sums.size > 0:
                _fill(kernel, ring, filled, row * step + side, x, image, first, inside, width, sizes, bounds)
                filled = row * step + side
                for block in range(_0, blocks):
                    to = image * all_taps + (first + block) * taps
                    _to_weights(
                        kernel, stride, ring, block, row * step, width, arrived, block * columns * _B, sums, to, columns
                    )
            if to_x.size > 0:
                for block in range(_0, blocks):
                    begin = (first + block) * taps
                    _to_input(
                        kernel,
                        stride,
                        back,
                        block,
                        row * step,
                        width,
                        weights,
                        begin,
                        arrived,
                        block * columns * _B,
                        columns,
                    )
                # Rows that no later row of the output reaches; after the last one, all that are left
                complete = (row + _1) * step if row + _1 < rows else max(row * step + side, top + height)
                while stored < complete:
                    slot = stored % side * width * _B
                    if top <= stored < top + height:
                        at = (image * height + stored - top) * columns_in * channels + first * _B
                        start = slot + left * _B
                        _store_masked_row(
                            back, start, apart, x, to_x, at, columns_in, channels, inside, low_in, high_in
                        )
                    _clear_row(back, slot, apart, blocks, width * _B)
                    stored += _1
