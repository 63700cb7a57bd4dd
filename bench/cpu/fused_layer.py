"""A layer without gradients, prepared once for images of one size and then run many times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bench.cpu.arrays import Array, as_flat, empty_like
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

    def run(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) through the layer; the output is channels last."""
        x = x.contiguous(memory_format=torch.channels_last)
        images, threads = len(x), torch.get_num_threads()
        y = empty_like(x, (images, *self.shape), self.dtype)
        # Each thread takes whole images; few images are divided by rows
        bands = min(self.shape[1], -(-threads // images)) if images % threads else 1
        parts = max(1, min(threads, images * bands))
        source, target = as_flat(x), as_flat(y)
        parallel_for(lambda part: self.compute(source, target, images, bands, part, parts), parts)
        return y
