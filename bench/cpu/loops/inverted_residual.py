"""The forward pass of an inverted residual block: expansion, depthwise convolution and projection in one loop.

The tensors between them have six times as many channels as those before and after. Here a ring buffer that fits the
cache holds the expanded rows of one output row. The depthwise convolution reads them there, and its row is projected at
once, so only the block's input and output go through memory.

Layouts and tuples are those of `depthwise.py` and `products.py`.
"""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import entry_point
from bench.cpu.loops.depthwise import (
    BLOCK,
    CACHE,
    COLUMNS,
    aligned_empty,
    convolve_columns,
    fill_ring,
    ring_width,
    round_up_columns,
)
from bench.cpu.loops.lanes import broadcast, clamp, load, store
from bench.cpu.loops.products import PANEL, multiply

__all__ = ["BLOCK", "PANEL", "forward"]


@entry_point()
def forward(kernel, stride, x, y, expansion, expansion_bias, weights, bias, projection, projection_bias, added, sizes,
            bounds, part, parts):  # fmt: skip
    """Write y, plus `added` unless it is empty.

    x, y, expansion, projection: all float32 or all bfloat16; so is the input of the projection.
    expansion: empty if the depthwise convolution reads x itself.
    sizes: height, width and channels of the depthwise convolution's input; height and width of y; rows of padding above
        and columns left; channels of x and of y; images; bands that the rows of y are divided into.
    bounds: lowest and highest value of the depthwise convolution's input, then of its output.
    part, parts: do tasks part, part + parts, ...; there is one task for each image and band.
    """
    side, step = len(kernel), len(stride)
    taps = side * side * BLOCK
    height, columns_in, channels, rows, columns_out, top, left, channels_in, channels_out, images, bands = sizes
    depthwise_sizes = (height, columns_in, channels, rows, columns_out, top, left, 0, 0, images)
    low, high, zero = broadcast(bounds[2]), broadcast(bounds[3]), broadcast(np.float32(0))
    unbounded = (np.float32(-np.inf), np.float32(np.inf))
    blocks = (channels + BLOCK - 1) // BLOCK
    width = ring_width(side, step, columns_in + left, columns_out)
    block_stride, pitch = side * width * BLOCK, blocks * BLOCK
    ring = aligned_empty(blocks * block_stride, np.float32)
    row_buffer = aligned_empty(round_up_columns(columns_out) * pitch, x.dtype)
    strip = COLUMNS if blocks * (taps + side * (3 * step + side) * BLOCK) <= CACHE else columns_out
    for task in range(part, images * bands, parts):
        image, band = task // bands, task % bands
        ring[:] = 0
        begin_row, end_row = rows * band // bands, rows * (band + 1) // bands
        filled = begin_row * step
        for row in range(begin_row, end_row):
            if expansion.size == 0:
                fill_ring(
                    kernel, ring, filled, row * step + side, x, image, 0, channels, width, depthwise_sizes, bounds
                )
            else:
                for padded in range(filled, row * step + side):
                    slot = padded % side * width * BLOCK
                    if top <= padded < top + height:
                        at = (image * height + padded - top) * columns_in * channels_in
                        multiply(columns_in, x, at, channels_in, 1, channels_in, expansion, expansion_bias,
                                 bounds[:2], x[:0], ring, slot + left * BLOCK, BLOCK, block_stride,
                                 channels)  # fmt: skip
                    else:
                        for block in range(blocks):
                            for cell in range(width):
                                store(ring, block * block_stride + slot + cell * BLOCK, zero)
            filled = row * step + side
            slot = row * step % side
            for begin in range(0, columns_out, strip):
                for block in range(blocks):
                    offset = load(bias, block * BLOCK)
                    for column in range(begin, min(begin + strip, columns_out), COLUMNS):
                        cell, to = block * block_stride + column * step * BLOCK, column * pitch + block * BLOCK
                        a0, a1, a2, a3 = convolve_columns(
                            kernel, stride, ring, cell, slot, width, weights, block * taps, offset
                        )
                        store(row_buffer, to, clamp(a0, low, high))
                        store(row_buffer, to + pitch, clamp(a1, low, high))
                        store(row_buffer, to + 2 * pitch, clamp(a2, low, high))
                        store(row_buffer, to + 3 * pitch, clamp(a3, low, high))
            to = (image * rows + row) * columns_out * channels_out
            multiply(columns_out, row_buffer, 0, pitch, 1, channels, projection, projection_bias, unbounded, added, y,
                     to, channels_out, BLOCK, channels_out)  # fmt: skip
