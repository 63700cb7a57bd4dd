"""Depthwise convolution with a clamp (ReLU6 and the like) before and after: forward, and both gradients.

In torch the gradients of 5 x 5 weights take four times as long as the forward pass, and each activation is another pass
over the network's largest tensors. Here a ring buffer that fits the cache holds the input rows of one output row, in
blocks of 16 channels. Rows are clamped as they enter the buffer, and everything is computed while they are in it.

Kernel size and stride are the lengths of tuples: these are known at compile time, so loops over them are unrolled.
Tensors are flat views of (B, H, W, C), float32 or bfloat16; weights and arithmetic are float32. The caller sums weight
gradients over images, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import entry_point, inlined
from bench.cpu.loops.lanes import (
    LANES,
    broadcast,
    clamp,
    load,
    load_constant,
    load_partial,
    multiply_add,
    select_between,
    store,
    store_partial,
)

BLOCK = LANES  # channels computed together
COLUMNS = 4  # output columns computed together; more do not fit the registers
CACHE = 6144  # float32 values, half of a first-level cache


@inlined()
def aligned_empty(size, dtype):
    """An uninitialised array of `size` elements that starts on a cache line."""
    array = np.empty(size + 64, dtype)
    begin = -(array.ctypes.data // array.itemsize) % (64 // array.itemsize)
    return array[begin : begin + size]


@inlined()
def fill_ring(kernel, ring, begin, end, x, image, first, valid, width, sizes, bounds):
    """Clamp rows `begin` to `end` of the padded image and write them to the ring."""
    side = len(kernel)
    height, columns, channels, _, _, top, left, _, _, _ = sizes
    low, high, zero = broadcast(bounds[0]), broadcast(bounds[1]), broadcast(np.float32(0))
    blocks = (valid + BLOCK - 1) // BLOCK
    block_stride = side * width * BLOCK
    for row in range(begin, end):
        slot = (row % side * width + left) * BLOCK
        at = (image * height + row - top) * columns * channels + first * BLOCK
        for column in range(columns):
            for block in range(blocks):
                to = slot + column * BLOCK + block * block_stride
                if top <= row < top + height:
                    value = load_partial(x, at + column * channels + block * BLOCK, valid - block * BLOCK)
                    store(ring, to, clamp(value, low, high))
                else:
                    store(ring, to, zero)


@inlined()
def convolve_columns(kernel, stride, ring, cell, slot, width, weights, begin, offset):
    """Four neighbouring output columns of one block of channels."""
    side, next_column = len(kernel), len(stride) * BLOCK
    a0 = a1 = a2 = a3 = offset
    for i in range(side):
        x = cell + slot * width * BLOCK
        for j in range(side):
            w, at = load_constant(weights, begin + (i * side + j) * BLOCK), x + j * BLOCK
            a0 = multiply_add(a0, w, load(ring, at))
            a1 = multiply_add(a1, w, load(ring, at + next_column))
            a2 = multiply_add(a2, w, load(ring, at + 2 * next_column))
            a3 = multiply_add(a3, w, load(ring, at + 3 * next_column))
        slot = slot + 1 if slot + 1 < side else 0
    return a0, a1, a2, a3


@inlined()
def _load_gradient_row(y, grad_y, at, columns, pitch, valid, low, high, grad_row, block_stride):
    """Read a row of output gradients into blocks, and zero those whose output was clamped."""
    for column in range(columns):
        for block in range((valid + BLOCK - 1) // BLOCK):
            a, count = at + column * pitch + block * BLOCK, valid - block * BLOCK
            masked = select_between(load_partial(y, a, count), low, high, load_partial(grad_y, a, count))
            store(grad_row, block * block_stride + column * BLOCK, masked)


@inlined()
def _add_weight_gradients(kernel, stride, ring, start, row, width, grad_row, grad_start, grad_weights, to, columns):
    """Add the products of a row of output gradients and its input rows to the gradient of one block's weights."""
    side, step = len(kernel), len(stride)
    next_column = step * BLOCK
    slot = row % side
    for i in range(side):
        for column in range(0, columns, COLUMNS):
            g = grad_start + column * BLOCK
            g0, g1 = load(grad_row, g), load(grad_row, g + BLOCK)
            g2, g3 = load(grad_row, g + 2 * BLOCK), load(grad_row, g + 3 * BLOCK)
            cell = start + (slot * width + column * step) * BLOCK
            for j in range(side):
                x, w = cell + j * BLOCK, to + (i * side + j) * BLOCK
                total = multiply_add(load(grad_weights, w), g0, load(ring, x))
                total = multiply_add(total, g1, load(ring, x + next_column))
                total = multiply_add(total, g2, load(ring, x + 2 * next_column))
                store(grad_weights, w, multiply_add(total, g3, load(ring, x + 3 * next_column)))
        slot = slot + 1 if slot + 1 < side else 0


@inlined()
def _add_input_gradients(
    kernel, stride, grad_ring, start, row, width, weights, weights_start, grad_row, grad_start, columns
):
    """Add a row of output gradients, times the weights, to the gradients of its input rows, for one block."""
    side, step = len(kernel), len(stride)
    next_column = step * BLOCK
    slot = row % side
    for i in range(side):
        first_tap = weights_start + i * side * BLOCK
        for column in range(0, columns, COLUMNS):
            g = grad_start + column * BLOCK
            g0, g1 = load(grad_row, g), load(grad_row, g + BLOCK)
            g2, g3 = load(grad_row, g + 2 * BLOCK), load(grad_row, g + 3 * BLOCK)
            cell = start + (slot * width + column * step) * BLOCK
            for j in range(3 * step + side):
                w = first_tap + j * BLOCK
                value = load(grad_ring, cell + j * BLOCK)
                if j < side:
                    value = multiply_add(value, g0, load_constant(weights, w))
                if step <= j < side + step:
                    value = multiply_add(value, g1, load_constant(weights, w - next_column))
                if 2 * step <= j < side + 2 * step:
                    value = multiply_add(value, g2, load_constant(weights, w - 2 * next_column))
                if j >= 3 * step:
                    value = multiply_add(value, g3, load_constant(weights, w - 3 * next_column))
                store(grad_ring, cell + j * BLOCK, value)
        slot = slot + 1 if slot + 1 < side else 0


@inlined()
def _store_input_gradients(grad_ring, start, block_stride, width, x, grad_x, at, columns, pitch, valid, low, high):
    """Write a row of input gradients to the tensor, zero where x was clamped."""
    for column in range(columns):
        for block in range((valid + BLOCK - 1) // BLOCK):
            a, count = at + column * pitch + block * BLOCK, valid - block * BLOCK
            grad = load(grad_ring, start + block * block_stride + column * BLOCK)
            store_partial(grad_x, a, select_between(load_partial(x, a, count), low, high, grad), count)


@entry_point()
def pack_channels(values, channels, count, group, out):
    """Copy (channels, count) to (groups, count, group), padded with zeros to whole groups."""
    for first in range(0, channels, group):
        for place in range(count):
            to = first * count + place * group
            for channel in range(group):
                value = np.float32(0)
                if first + channel < channels:
                    value = values[(first + channel) * count + place]
                out[to + channel] = value


@entry_point()
def pack_channel_pairs(values, channels, count, group, out):
    """Copy bfloat16 (channels, count) with an even count to (groups, count / 2, group, 2), padded with zeros."""
    for first in range(0, channels, group):
        for place in range(count):
            to = first * count + place // 2 * 2 * group + place % 2
            for channel in range(group):
                value = np.int16(0)
                if first + channel < channels:
                    value = values[(first + channel) * count + place]
                out[to + 2 * channel] = value


@entry_point()
def forward(kernel, stride, x, y, weights, bias, sizes, bounds, part, parts):
    """Write y.

    kernel, stride: tuples whose lengths are the kernel size and the stride.
    weights: (blocks, taps, BLOCK). bias: (blocks, BLOCK). Both are padded with zeros to whole blocks.
    sizes: height, width and channels of x; height and width of y; rows of padding above and columns left of x; groups
        of blocks; blocks per group; images.
    bounds: lowest and highest value of x, then of y.
    part, parts: do tasks part, part + parts, ...; there is one task for each image and group.
    """
    side, step = len(kernel), len(stride)
    taps = side * side * BLOCK
    _, columns_in, channels, rows, columns_out, _, left, groups, per_group, images = sizes
    low, high = broadcast(bounds[2]), broadcast(bounds[3])
    width = ring_width(side, step, columns_in + left, columns_out)
    block_stride = side * width * BLOCK
    ring = aligned_empty(per_group * block_stride, np.float32)
    # If the weights and inputs of all blocks fit the cache, go through y in memory order
    strip = COLUMNS if per_group * (taps + side * (3 * step + side) * BLOCK) <= CACHE else columns_out
    for task in range(part, images * groups, parts):
        image, first = task // groups, task % groups * per_group
        valid = min(per_group * BLOCK, channels - first * BLOCK)
        blocks = (valid + BLOCK - 1) // BLOCK
        ring[:] = 0
        filled = 0
        for row in range(rows):
            fill_ring(kernel, ring, filled, row * step + side, x, image, first, valid, width, sizes, bounds)
            filled = row * step + side
            at = (image * rows + row) * columns_out * channels + first * BLOCK
            slot = row * step % side
            for begin in range(0, columns_out, strip):
                for block in range(blocks):
                    w, count = (first + block) * taps, valid - block * BLOCK
                    offset = load(bias, (first + block) * BLOCK)
                    for column in range(begin, min(begin + strip, columns_out), COLUMNS):
                        cell, to = block * block_stride + column * step * BLOCK, at + block * BLOCK + column * channels
                        a0, a1, a2, a3 = convolve_columns(kernel, stride, ring, cell, slot, width, weights, w, offset)
                        store_partial(y, to, clamp(a0, low, high), count)
                        if column + 1 < columns_out:
                            store_partial(y, to + channels, clamp(a1, low, high), count)
                        if column + 2 < columns_out:
                            store_partial(y, to + 2 * channels, clamp(a2, low, high), count)
                        if column + 3 < columns_out:
                            store_partial(y, to + 3 * channels, clamp(a3, low, high), count)


@entry_point()
def backward(kernel, stride, x, y, grad_y, weights, grad_x, grad_weights, sizes, bounds, part, parts):
    """Write the gradient of x, and add each image's gradient of the weights to (images, blocks, taps, BLOCK).

    An empty `grad_x` or `grad_weights` is not computed. The other arguments are those of `forward`.
    """
    side, step = len(kernel), len(stride)
    taps = side * side * BLOCK
    height, columns_in, channels, rows, columns_out, top, left, groups, per_group, images = sizes
    low_in, high_in, low, high = broadcast(bounds[0]), broadcast(bounds[1]), broadcast(bounds[2]), broadcast(bounds[3])
    width = ring_width(side, step, columns_in + left, columns_out)
    block_stride, grad_stride = side * width * BLOCK, round_up_columns(columns_out) * BLOCK
    ring = aligned_empty(per_group * block_stride, np.float32)
    grad_ring = aligned_empty(per_group * block_stride, np.float32)
    grad_row = aligned_empty(per_group * grad_stride, np.float32)
    zero = broadcast(np.float32(0))
    grad_ring[:] = 0
    grad_row[:] = 0
    for task in range(part, images * groups, parts):
        image, first = task // groups, task % groups * per_group
        valid = min(per_group * BLOCK, channels - first * BLOCK)
        blocks = (valid + BLOCK - 1) // BLOCK
        ring[:] = 0
        filled = stored = 0
        for row in range(rows):
            at = (image * rows + row) * columns_out * channels + first * BLOCK
            _load_gradient_row(y, grad_y, at, columns_out, channels, valid, low, high, grad_row, grad_stride)
            if grad_weights.size > 0:
                fill_ring(kernel, ring, filled, row * step + side, x, image, first, valid, width, sizes, bounds)
                filled = row * step + side
                for block in range(blocks):
                    to = (image * ((channels + BLOCK - 1) // BLOCK) + first + block) * taps
                    g, start = block * grad_stride, block * block_stride
                    _add_weight_gradients(
                        kernel, stride, ring, start, row * step, width, grad_row, g, grad_weights, to, columns_out
                    )
            if grad_x.size > 0:
                for block in range(blocks):
                    w, g, start = (first + block) * taps, block * grad_stride, block * block_stride
                    _add_input_gradients(
                        kernel, stride, grad_ring, start, row * step, width, weights, w, grad_row, g, columns_out
                    )
                # Input rows that no later output row reaches; after the last output row, all remaining rows
                complete = (row + 1) * step if row + 1 < rows else max(row * step + side, top + height)
                while stored < complete:
                    slot = stored % side * width * BLOCK
                    if top <= stored < top + height:
                        at = (image * height + stored - top) * columns_in * channels + first * BLOCK
                        start = slot + left * BLOCK
                        _store_input_gradients(
                            grad_ring,
                            start,
                            block_stride,
                            width,
                            x,
                            grad_x,
                            at,
                            columns_in,
                            channels,
                            valid,
                            low_in,
                            high_in,
                        )
                    for block in range(blocks):
                        for cell in range(width):
                            store(grad_ring, block * block_stride + slot + cell * BLOCK, zero)
                    stored += 1


@inlined()
def round_up_columns(columns):
    """The number of columns rounded up to a multiple of COLUMNS."""
    return (columns + COLUMNS - 1) // COLUMNS * COLUMNS


@inlined()
def ring_width(side, step, padded, columns_out):
    """Columns of a row in the ring: the padded row of x, and what the last output columns read beyond it."""
    return max(padded, (round_up_columns(columns_out) - 1) * step + side)
