"""Layers that a kernel computes without gradients: one layer for a whole batch, or several layers image by image.

The first layers of a network produce more activations per batch than the cache holds. Image by image, the activations
between two layers stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from bench.cpu.arrays import Array, as_array, as_flat, empty_like
from bench.cpu.threads import parallel_for


class InputSpec(NamedTuple):
    """The input of a layer: images of shape (C, H, W), their dtype and device."""

    shape: tuple[int, int, int]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, x: Tensor) -> InputSpec:
        """The specification of a batch (B, C, H, W)."""
        _, channels, height, width = x.shape
        return cls((channels, height, width), x.dtype, x.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class FusedLayer:
    """A layer for images of one size.

    compute: from a flat input to a flat output; further arguments: the number of images, the number of bands that the
        rows of an image are divided into, the part of this work to do, and the number of parts.
    shape, dtype: (C, H, W) of one image of the output, and its dtype.
    """

    compute: Callable[[Array, Array, int, int, int, int], object]
    shape: tuple[int, int, int]
    dtype: torch.dtype


def run_layers(x: Tensor, layers: Sequence[FusedLayer]) -> Tensor:
    """Images (B, C, H, W) through one layer, or through several in sequence; the output is channels last."""
    x = x.contiguous(memory_format=torch.channels_last)
    last, threads = layers[-1], torch.get_num_threads()
    y = empty_like(x, (len(x), *last.shape), last.dtype)
    if len(layers) > 1:
        with torch.profiler.record_function(f"{len(layers)} layers image by image"):
            _image_by_image(x, y, layers, max(1, min(threads, len(x))))
        return y
    # Each thread takes whole images; few images are divided by rows
    images = len(x)
    bands = min(last.shape[1], -(-threads // images)) if images % threads else 1
    parts = max(1, min(threads, images * bands))
    source, target = as_flat(x), as_flat(y)
    parallel_for(lambda part: last.compute(source, target, images, bands, part, parts), parts)
    return y


def _image_by_image(x: Tensor, y: Tensor, layers: Sequence[FusedLayer], parts: int) -> None:
    sources, targets = as_flat(x).reshape(len(x), -1), as_flat(y).reshape(len(y), -1)
    sizes = [prod(each.shape) for each in layers[:-1]]

    def do(part: int) -> None:
        # Two buffers in turn are enough, and stay in the cache
        between = [as_array(torch.empty(max(sizes[first::2], default=0), dtype=layers[0].dtype)) for first in (0, 1)]
        for image in range(part, len(sources), parts):
            here = sources[image]
            for place, each in enumerate(layers):
                there = between[place % 2][: sizes[place]] if place < len(sizes) else targets[image]
                each.compute(here, there, 1, 1, 0, 1)
                here = there

    parallel_for(do, parts)
