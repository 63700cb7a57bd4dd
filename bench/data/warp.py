"""Resample a rectangle of an image to the network's input, once, with antialiasing (Pillow's BILINEAR)."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from bench.data.augment import WHOLE, View
from bench.data.pixels import Image, PixelSource

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class Placement:
    """The pixels of an image that a view needs, and their place in the network's input.

    source: xyxy in whole pixels of the image: all pixels that the filter reads.
    box: (4,) xyxy within `source`: the area that is resampled to `inside`.
    inside: xyxy in whole pixels of the input: image, not fill; may be empty.
    mirrored: left and right are exchanged.
    """

    source: Rectangle
    box: NDArray[np.float64]
    inside: Rectangle
    mirrored: bool

    def cut(self, image: Image) -> Image:
        """The pixels of `source` of the image (H, W, 3)."""
        left, top, right, bottom = self.source
        return image[top:bottom, left:right]


def placement(view: View, width: int, height: int, size: int) -> Placement:
    """The placement of a view in an input of `size`. Pixels whose centre is outside the image are fill."""
    extent = np.array([width, height], dtype=np.float64)
    low, span = view.rectangle[:2], view.rectangle[2:] - view.rectangle[:2]
    # Image borders in output pixels, then the output pixels whose centres lie between them
    first = np.maximum(np.ceil((0 - low) / span * size - 0.5), 0).astype(int)
    last = np.minimum(np.ceil((1 - low) / span * size - 0.5), size).astype(int)
    if (last <= first).any():  # the crop holds only fill around a zoomed-out image
        return Placement((0, 0, 0, 0), np.zeros(4), (0, 0, 0, 0), view.mirrored)
    area = np.concatenate((low + first / size * span, low + last / size * span)).clip(0, 1) * np.tile(extent, 2)
    reach = np.ceil(span * extent / size) + 1
    corner = np.maximum(np.floor(area[:2] - reach), 0).astype(int)
    opposite = np.minimum(np.ceil(area[2:] + reach), extent).astype(int)
    left, right = int(first[0]), int(last[0])
    if view.mirrored:
        left, right = size - right, size - left
    source = (int(corner[0]), int(corner[1]), int(opposite[0]), int(opposite[1]))
    return Placement(source, area - np.tile(corner, 2), (left, int(first[1]), right, int(last[1])), view.mirrored)


def warp(image: Image, view: View, size: int) -> tuple[Image, Rectangle]:
    """The view of an image (H, W, 3) as (size, size, 3), and the rectangle that is image; the rest is zero."""
    height, width = image.shape[:2]
    placed = placement(view, width, height, size)
    left, top, right, bottom = placed.inside
    result = np.zeros((size, size, 3), dtype=np.uint8)
    if right > left:
        pixels = Pillow.fromarray(placed.cut(image))
        box: tuple[float, float, float, float] = tuple(placed.box.tolist())
        resized = np.asarray(pixels.resize((right - left, bottom - top), Pillow.Resampling.BILINEAR, box=box))
        result[top:bottom, left:right] = resized[:, ::-1] if placed.mirrored else resized
    return result, placed.inside


def whole_images(pixels: PixelSource, rows: Iterable[int], size: int, *, workers: int) -> Tensor:
    """The whole images at `rows`, warped to (N, 3, size, size) uint8, channels last, as in evaluation."""
    with ThreadPoolExecutor(workers) as pool:
        warped = list(pool.map(lambda row: warp(pixels[row], WHOLE, size)[0], rows))
    return torch.from_numpy(np.stack(warped)).permute(0, 3, 1, 2)
