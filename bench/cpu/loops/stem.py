"""The first convolution of a network on a CPU, compiled: from the pixels of images, normalised on the way.

What one row of the output needs is a few rows of an image, normalised once into a strip that fits the cache. There each
window is as many pieces as the kernel has rows, with the channels of neighbouring pixels side by side: a product with
the weights as they are, of 16 output channels and ten windows at a time.
"""

from __future__ import annotations

import numpy as np

from bench.cpu.loops.compiled import outer
from bench.cpu.loops.depthwise import empty
from bench.cpu.loops.lanes import LANES, load, load_up_to, plus_product, store_up_to
from bench.cpu.loops.products import PANEL, multiply

__all__ = ["LANES", "PANEL", "forward"]


@outer()
def forward(kernel, x, y, weights, bias, factor, offset, sizes, stride, part, parts):
    """Write y, float32 or bfloat16, and as it is the weights: (panels, K, `depth`, PANEL), see `products.py`.

    kernel: a tuple of K elements. x: pixels, uint8 or float32.
    factor, offset: of a pixel's channels, repeated until they fill whole vectors: (channels * LANES,).
    sizes: height, width and channels of x, height, width and channels of y, rows and columns of zeros above and left of
        what is convolved, values of a window's row (K * channels, or one more), images, parts that the rows of y fall
        into. The zeros are around the normalised image.
    part, parts: which of the tasks, one for each image and part of its rows, are to be done.
    """
    side = len(kernel)
    height, width, channels, rows, columns, channels_out, top, left, depth, images, bands = sizes
    line = width * channels
    reached = (columns - 1) * stride * channels + depth
    apart = max(left * channels + line, reached) + 2 * LANES
    strip = empty(side * apart, y.dtype)
    strip[:] = 0
    free = (np.float32(-np.inf), np.float32(np.inf))
    for task in range(part, images * bands, parts):
        image, band = task // bands, task % bands
        for row in range(rows * band // bands, rows * (band + 1) // bands):
            for i in range(side):
                source = row * stride + i - top
                begin = i * apart + left * channels
                if 0 <= source < height:
                    at = (image * height + source) * line
                    for place in range(0, line, LANES):
                        pattern = place % (channels * LANES)
                        pixels = load_up_to(x, at + place, line - place)
                        value = plus_product(load(offset, pattern), pixels, load(factor, pattern))
                        store_up_to(strip, begin + place, value, line - place)
                else:
                    strip[begin : begin + line] = 0
            multiply(kernel, columns, strip, 0, stride * channels, 1, apart, depth, weights, bias, free, y[:0], y,
                     (image * rows + row) * columns * channels_out, channels_out, LANES, channels_out)  # fmt: skip
