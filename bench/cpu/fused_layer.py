"""Layers that compiled loops compute on a CPU: one for all images of a batch, or several image by image.

The first layers of a network make more of a batch than the cache holds. Image by image, what lies between two of them
stays there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from bench.cpu.depthwise import Numbers, empty_like, flat, numbers
from bench.cpu.threads import share_out


class Given(NamedTuple):
    """What a layer is given: images of a shape (C, H, W), a type and a device."""

    shape: tuple[int, int, int]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, x: Tensor) -> Given:
        """What images (B, C, H, W) are."""
        _, channels, height, width = x.shape
        return cls((channels, height, width), x.dtype, x.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """A layer for images of one size.

    loops: compute flat y of flat x. After these they are told the number of images in them, the parts that the rows of
        one fall into, which part of this work is to be done, and of how many.
    shape, dtype: (C, H, W) of an image of y, and its type.
    """

    loops: Callable[[Numbers, Numbers, int, int, int, int], object]
    shape: tuple[int, int, int]
    dtype: torch.dtype


def through(x: Tensor, passes: Sequence[Pass]) -> Tensor:
    """Images (B, C, H, W) through one layer or several, which each take what the one before gives; channels last."""
    x = x.contiguous(memory_format=torch.channels_last)
    last, threads = passes[-1], torch.get_num_threads()
    y = empty_like(x, (len(x), *last.shape), last.dtype)
    if len(passes) > 1:
        with torch.profiler.record_function(f"{len(passes)} layers image by image"):
            _image_by_image(x, y, passes, max(1, min(threads, len(x))))
        return y
    # Whole images for each thread; few images are parted by rows
    images = len(x)
    bands = min(last.shape[1], -(-threads // images)) if images % threads else 1
    parts = max(1, min(threads, images * bands))
    source, target = flat(x), flat(y)
    share_out(lambda part: last.loops(source, target, images, bands, part, parts), parts)
    return y


def _image_by_image(x: Tensor, y: Tensor, passes: Sequence[Pass], parts: int) -> None:
    sources, targets = flat(x).reshape(len(x), -1), flat(y).reshape(len(y), -1)
    sizes = [prod(each.shape) for each in passes[:-1]]

    def do(part: int) -> None:
        # Two are enough, in turn: the fewer, the more of them stays in the cache
        between = [numbers(torch.empty(max(sizes[first::2], default=0), dtype=passes[0].dtype)) for first in (0, 1)]
        for image in range(part, len(sources), parts):
            here = sources[image]
            for place, each in enumerate(passes):
                there = between[place % 2][: sizes[place]] if place < len(sizes) else targets[image]
                each.loops(here, there, 1, 1, 0, 1)
                here = there

    share_out(do, parts)
