"""Inverted residual blocks on a CPU, forward, compiled: expansion, depthwise convolution and projection in one.

Between the three lie the largest tensors of a network that is made of such blocks, six times as many channels as before
and after them. Here the rows of the expansion that a row of the output needs are computed from the input into a ring
that fits the cache, the depthwise convolution takes them from there, and its row is projected at once: input and output
alone go through memory.

Layouts and tuples are those of `depthwise.py`, and of `products.py`.
"""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import outer
from bench.cpu.loops.depthwise import BLOCK, CACHE, COLUMNS, convolve, empty, fill, whole_groups, width_in_ring
from bench.cpu.loops.lanes import clamp, load, spread, store
from bench.cpu.loops.products import PANEL, WHOLE, multiply

__all__ = ["BLOCK", "PANEL", "forward"]


@outer()
def forward(kernel, stride, x, y, expansion, expansion_bias, weights, bias, projection, projection_bias, added, sizes,
            bounds, part, parts):  # fmt: skip
    """Write y, plus `added` where it is not empty.

    x and y are float32 or bfloat16, and as they are the weights of expansion and projection, and what is projected.
    expansion: of the input to the channels of the depthwise convolution; empty where that takes the input itself.
    sizes: height, width and channels of what is convolved, height and width of y, rows and columns of zeros above and
        left of what is convolved, channels of x and of y, images, parts that the rows of y fall into.
    bounds: lowest and highest value of what is convolved, and of what comes of it.
    part, parts: which of the tasks, one for each image and part of its rows, are to be done.
    """
    side, step = len(kernel), len(stride)
    taps = side * side * BLOCK
    height, columns_in, channels, rows, columns_out, top, left, channels_in, channels_out, images, bands = sizes
    like_depthwise = (height, columns_in, channels, rows, columns_out, top, left, 0, 0, images)
    low, high, nothing = spread(bounds[2]), spread(bounds[3]), spread(np.float32(0))
    free = (np.float32(-np.inf), np.float32(np.inf))
    blocks = (channels + BLOCK - 1) // BLOCK
    width = width_in_ring(side, step, columns_in + left, columns_out)
    apart, pitch = side * width * BLOCK, blocks * BLOCK
    ring, line = empty(blocks * apart, np.float32), empty(whole_groups(columns_out) * pitch, x.dtype)
    strip = COLUMNS if blocks * (taps + side * (3 * step + side) * BLOCK) <= CACHE else columns_out
    for task in range(part, images * bands, parts):
        image, band = task // bands, task % bands
        ring[:] = 0
        begin_row, end_row = rows * band // bands, rows * (band + 1) // bands
        filled = begin_row * step
        for row in range(begin_row, end_row):
            if expansion.size == 0:
                fill(kernel, ring, filled, row * step + side, x, image, 0, channels, width, like_depthwise, bounds)
            else:
                for padded in range(filled, row * step + side):
                    slot = padded % side * width * BLOCK
                    if top <= padded < top + height:
                        at = (image * height + padded - top) * columns_in * channels_in
                        multiply(WHOLE, columns_in, x, at, channels_in, 1, 0, channels_in, expansion, expansion_bias,
                                 bounds[:2], x[:0], ring, slot + left * BLOCK, BLOCK, apart, channels)  # fmt: skip
                    else:
                        for block in range(blocks):
                            for cell in range(width):
                                store(ring, block * apart + slot + cell * BLOCK, nothing)
            filled = row * step + side
            slot = row * step % side
            for begin in range(0, columns_out, strip):
                for block in range(blocks):
                    offset = load(bias, block * BLOCK)
                    for column in range(begin, min(begin + strip, columns_out), COLUMNS):
                        cell, to = block * apart + column * step * BLOCK, column * pitch + block * BLOCK
                        a0, a1, a2, a3 = convolve(
                            kernel, stride, ring, cell, slot, width, weights, block * taps, offset
                        )
                        store(line, to, clamp(a0, low, high))
                        store(line, to + pitch, clamp(a1, low, high))
                        store(line, to + 2 * pitch, clamp(a2, low, high))
                        store(line, to + 3 * pitch, clamp(a3, low, high))
            to = (image * rows + row) * columns_out * channels_out
            multiply(WHOLE, columns_out, line, 0, pitch, 1, 0, channels, projection, projection_bias, free, added, y,
                     to, channels_out, BLOCK, channels_out)  # fmt: skip
