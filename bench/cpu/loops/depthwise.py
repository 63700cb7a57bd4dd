"""Loops of depthwise convolution on a CPU, compiled: forward, and gradients of input and weights, with what is
clamped (ReLU6 and its like) before and after.

torch's CPU library needs four times the time of the forward pass for the gradients of 5 x 5 weights, and each
activation beside them is a pass over the network's largest tensors. Here the rows of an image that a row of the
output needs lie in a ring that fits the cache, blocks of 16 channels apart; they are clamped on the way in, and
everything that is wanted of them is computed while they are there.

Kernel and stride come as tuples of so many elements: the length of a tuple is known when a function is compiled, and
loops over it are unrolled. Tensors are flat views of (B, H, W, C), float32 or bfloat16; weights are float32, and so is
all arithmetic. Sums over images are the caller's, so that results do not depend on how images are shared out among
threads.
"""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import inlined, outer
from bench.cpu.loops.lanes import (
    LANES,
    clamp,
    load,
    load_constant,
    load_up_to,
    plus_product,
    spread,
    store,
    store_up_to,
    where_between,
)

BLOCK = LANES  # channels that are computed together
COLUMNS = 4  # of the output that are computed together: what fits the registers
CACHE = 6144  # floats, half of a first-level cache


@inlined()
def empty(cells, dtype):
    """So many numbers, from the beginning of a line of the cache."""
    numbers = np.empty(cells + 64, dtype)
    begin = -(numbers.ctypes.data // numbers.itemsize) % (64 // numbers.itemsize)
    return numbers[begin : begin + cells]


@inlined()
def fill(kernel, ring, begin, end, x, image, first, inside, width, sizes, bounds):
    """Rows `begin` to `end` of the padded image into their places in the ring, clamped."""
    side = len(kernel)
    height, columns, channels, _, _, top, left, _, _, _ = sizes
    low, high, nothing = spread(bounds[0]), spread(bounds[1]), spread(np.float32(0))
    blocks = (inside + BLOCK - 1) // BLOCK
    apart = side * width * BLOCK
    for row in range(begin, end):
        slot = (row % side * width + left) * BLOCK
        at = (image * height + row - top) * columns * channels + first * BLOCK
        for column in range(columns):
            for block in range(blocks):
                to = slot + column * BLOCK + block * apart
                if top <= row < top + height:
                    value = load_up_to(x, at + column * channels + block * BLOCK, inside - block * BLOCK)
                    store(ring, to, clamp(value, low, high))
                else:
                    store(ring, to, nothing)


@inlined()
def convolve(kernel, stride, ring, cell, slot, width, weights, begin, offset):
    """Neighbours in a row of the output, of a block."""
    side, next_ = len(kernel), len(stride) * BLOCK
    a0 = a1 = a2 = a3 = offset
    for i in range(side):
        x = cell + slot * width * BLOCK
        for j in range(side):
            w, at = load_constant(weights, begin + (i * side + j) * BLOCK), x + j * BLOCK
            a0 = plus_product(a0, w, load(ring, at))
            a1 = plus_product(a1, w, load(ring, at + next_))
            a2 = plus_product(a2, w, load(ring, at + 2 * next_))
            a3 = plus_product(a3, w, load(ring, at + 3 * next_))
        slot = slot + 1 if slot + 1 < side else 0
    return a0, a1, a2, a3


@inlined()
def _mask_row(y, gradient, at, columns, pitch, inside, low, high, arrived, apart):
    """A row of gradients into blocks that lie `apart`, where what was clamped is strictly within its bounds."""
    for column in range(columns):
        for block in range((inside + BLOCK - 1) // BLOCK):
            a, count = at + column * pitch + block * BLOCK, inside - block * BLOCK
            kept = where_between(load_up_to(y, a, count), low, high, load_up_to(gradient, a, count))
            store(arrived, block * apart + column * BLOCK, kept)


@inlined()
def _to_weights(kernel, stride, ring, start, row, width, gradient, begin, sums, to, columns):
    """What a block's row of gradients and the rows that it came from add to the weights' gradient."""
    side, step = len(kernel), len(stride)
    next_ = step * BLOCK
    slot = row % side
    for i in range(side):
        for column in range(0, columns, COLUMNS):
            g = begin + column * BLOCK
            g0, g1 = load(gradient, g), load(gradient, g + BLOCK)
            g2, g3 = load(gradient, g + 2 * BLOCK), load(gradient, g + 3 * BLOCK)
            cell = start + (slot * width + column * step) * BLOCK
            for j in range(side):
                x, w = cell + j * BLOCK, to + (i * side + j) * BLOCK
                total = plus_product(load(sums, w), g0, load(ring, x))
                total = plus_product(total, g1, load(ring, x + next_))
                total = plus_product(total, g2, load(ring, x + 2 * next_))
                store(sums, w, plus_product(total, g3, load(ring, x + 3 * next_)))
        slot = slot + 1 if slot + 1 < side else 0


@inlined()
def _to_input(kernel, stride, back, start, row, width, weights, begin, gradient, arrived, columns):
    """What a block's row of gradients adds to those of the rows that it came from."""
    side, step = len(kernel), len(stride)
    next_ = step * BLOCK
    slot = row % side
    for i in range(side):
        line = begin + i * side * BLOCK
        for column in range(0, columns, COLUMNS):
            g = arrived + column * BLOCK
            g0, g1 = load(gradient, g), load(gradient, g + BLOCK)
            g2, g3 = load(gradient, g + 2 * BLOCK), load(gradient, g + 3 * BLOCK)
            cell = start + (slot * width + column * step) * BLOCK
            for j in range(3 * step + side):
                w = line + j * BLOCK
                value = load(back, cell + j * BLOCK)
                if j < side:
                    value = plus_product(value, g0, load_constant(weights, w))
                if step <= j < side + step:
                    value = plus_product(value, g1, load_constant(weights, w - next_))
                if 2 * step <= j < side + 2 * step:
                    value = plus_product(value, g2, load_constant(weights, w - 2 * next_))
                if j >= 3 * step:
                    value = plus_product(value, g3, load_constant(weights, w - 3 * next_))
                store(back, cell + j * BLOCK, value)
        slot = slot + 1 if slot + 1 < side else 0


@inlined()
def _store_masked_row(back, start, apart, width, x, to_x, at, columns, pitch, inside, low, high):
    """A row of gradients to the tensor, where x is strictly within its bounds."""
    for column in range(columns):
        for block in range((inside + BLOCK - 1) // BLOCK):
            a, count = at + column * pitch + block * BLOCK, inside - block * BLOCK
            arrived = load(back, start + block * apart + column * BLOCK)
            store_up_to(to_x, a, where_between(load_up_to(x, a, count), low, high, arrived), count)


@outer()
def in_groups(values, channels, each, group, out):
    """(channels, each) as (groups, each, group): the channels of a group side by side, zeros where none is left."""
    for first in range(0, channels, group):
        for place in range(each):
            to = first * each + place * group
            for channel in range(group):
                value = np.float32(0)
                if first + channel < channels:
                    value = values[(first + channel) * each + place]
                out[to + channel] = value


@outer()
def in_groups_of_pairs(values, channels, each, group, out):
    """The same of bfloat16, of which `each` is even, with neighbours side by side: (groups, each / 2, group, 2)."""
    for first in range(0, channels, group):
        for place in range(each):
            to = first * each + place // 2 * 2 * group + place % 2
            for channel in range(group):
                value = np.int16(0)
                if first + channel < channels:
                    value = values[(first + channel) * each + place]
                out[to + 2 * channel] = value


@outer()
def forward(kernel, stride, x, y, weights, bias, sizes, bounds, part, parts):
    """Write y. The bias, (blocks, BLOCK), and the weights, (blocks, taps, BLOCK), have zeros for channels that fill up.

    kernel, stride: tuples of so many elements.
    sizes: height, width and channels of x, height and width of y, rows and columns of zeros above and left of x,
        groups of blocks, blocks of a group, images.
    bounds: lowest and highest value of x, and of y.
    part, parts: which of the tasks, one for each image and group, are to be done.
    """
    side, step = len(kernel), len(stride)
    taps = side * side * BLOCK
    _, columns_in, channels, rows, columns_out, _, left, groups, per_group, images = sizes
    low, high = spread(bounds[2]), spread(bounds[3])
    width = width_in_ring(side, step, columns_in + left, columns_out)
    apart = side * width * BLOCK
    ring = empty(per_group * apart, np.float32)
    # Channels one after another, so that y is written as it lies, where all their weights and cells fit the cache
    strip = COLUMNS if per_group * (taps + side * (3 * step + side) * BLOCK) <= CACHE else columns_out
    for task in range(part, images * groups, parts):
        image, first = task // groups, task % groups * per_group
        inside = min(per_group * BLOCK, channels - first * BLOCK)
        blocks = (inside + BLOCK - 1) // BLOCK
        ring[:] = 0
        filled = 0
        for row in range(rows):
            fill(kernel, ring, filled, row * step + side, x, image, first, inside, width, sizes, bounds)
            filled = row * step + side
            at = (image * rows + row) * columns_out * channels + first * BLOCK
            slot = row * step % side
            for begin in range(0, columns_out, strip):
                for block in range(blocks):
                    w, count = (first + block) * taps, inside - block * BLOCK
                    offset = load(bias, (first + block) * BLOCK)
                    for column in range(begin, min(begin + strip, columns_out), COLUMNS):
                        cell, to = block * apart + column * step * BLOCK, at + block * BLOCK + column * channels
                        a0, a1, a2, a3 = convolve(kernel, stride, ring, cell, slot, width, weights, w, offset)
                        store_up_to(y, to, clamp(a0, low, high), count)
                        if column + 1 < columns_out:
                            store_up_to(y, to + channels, clamp(a1, low, high), count)
                        if column + 2 < columns_out:
                            store_up_to(y, to + 2 * channels, clamp(a2, low, high), count)
                        if column + 3 < columns_out:
                            store_up_to(y, to + 3 * channels, clamp(a3, low, high), count)


@outer()
def backward(kernel, stride, x, y, gradient, weights, to_x, sums, sizes, bounds, part, parts):
    """Write the gradient of x to `to_x` and add each image's gradient of the weights to `sums`, (images, blocks, taps,
    BLOCK), except to one that is empty. The rest as for `forward`.
    """
    side, step = len(kernel), len(stride)
    taps = side * side * BLOCK
    height, columns_in, channels, rows, columns_out, top, left, groups, per_group, images = sizes
    low_in, high_in, low, high = spread(bounds[0]), spread(bounds[1]), spread(bounds[2]), spread(bounds[3])
    width = width_in_ring(side, step, columns_in + left, columns_out)
    apart, line = side * width * BLOCK, whole_groups(columns_out) * BLOCK
    ring, back = empty(per_group * apart, np.float32), empty(per_group * apart, np.float32)
    arrived = empty(per_group * line, np.float32)
    nothing = spread(np.float32(0))
    back[:] = 0
    arrived[:] = 0
    for task in range(part, images * groups, parts):
        image, first = task // groups, task % groups * per_group
        inside = min(per_group * BLOCK, channels - first * BLOCK)
        blocks = (inside + BLOCK - 1) // BLOCK
        ring[:] = 0
        filled = stored = 0
        for row in range(rows):
            at = (image * rows + row) * columns_out * channels + first * BLOCK
            _mask_row(y, gradient, at, columns_out, channels, inside, low, high, arrived, line)
            if sums.size > 0:
                fill(kernel, ring, filled, row * step + side, x, image, first, inside, width, sizes, bounds)
                filled = row * step + side
                for block in range(blocks):
                    to = (image * ((channels + BLOCK - 1) // BLOCK) + first + block) * taps
                    g, start = block * line, block * apart
                    _to_weights(kernel, stride, ring, start, row * step, width, arrived, g, sums, to, columns_out)
            if to_x.size > 0:
                for block in range(blocks):
                    w, g, start = (first + block) * taps, block * line, block * apart
                    _to_input(kernel, stride, back, start, row * step, width, weights, w, arrived, g, columns_out)
                # Rows that no later row of the output reaches; after the last one, all that are left
                complete = (row + 1) * step if row + 1 < rows else max(row * step + side, top + height)
                while stored < complete:
                    slot = stored % side * width * BLOCK
                    if top <= stored < top + height:
                        at = (image * height + stored - top) * columns_in * channels + first * BLOCK
                        start = slot + left * BLOCK
                        _store_masked_row(
                            back, start, apart, width, x, to_x, at, columns_in, channels, inside, low_in, high_in
                        )
                    for block in range(blocks):
                        for cell in range(width):
                            store(back, block * apart + slot + cell * BLOCK, nothing)
                    stored += 1


@inlined()
def whole_groups(columns):
    """Columns, filled up to those that are computed together."""
    return (columns + COLUMNS - 1) // COLUMNS * COLUMNS


@inlined()
def width_in_ring(side, step, padded, columns_out):
    """Cells of a row in the ring: those of x, and what the last columns computed together reach beyond them."""
    return max(padded, (whole_groups(columns_out) - 1) * step + side)
