"""One rectangle of a source image to the network's input: antialiased, its pixels touched once.

An image at a time with Pillow, or a whole batch on its device as products with matrices. The filter is the same:
a triangle as wide as the reduction (Pillow's BILINEAR).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    """Which pixels of an image a view needs, and where in the network's input they go.

    part: xyxy in whole pixels of the image, all that the filter reaches.
    box: (4,) xyxy within the part, what becomes the image in the input.
    inside: xyxy in whole pixels of the input, the part that is image and not fill; may be empty.
    mirrored: left and right exchanged.
    """

    part: Rectangle
    box: NDArray[np.float64]
    inside: Rectangle
    mirrored: bool

    def cut(self, image: Image) -> Image:
        """The part of the image (H, W, 3) that is needed."""
        left, top, right, bottom = self.part
        return image[top:bottom, left:right]


def placement(view: View, width: int, height: int, size: int) -> Placement:
    """Where a view of an image goes in an input of `size`. Pixels whose centre lies in the image are image."""
    extent = np.array([width, height], dtype=np.float64)
    low, span = view.rectangle[:2], view.rectangle[2:] - view.rectangle[:2]
    # Image borders in output pixels, then the output pixels whose centres lie between them
    first = np.maximum(np.ceil((0 - low) / span * size - 0.5), 0).astype(int)
    last = np.minimum(np.ceil((1 - low) / span * size - 0.5), size).astype(int)
    if (last <= first).any():  # a crop of nothing but the fill around a zoomed-out image
        return Placement((0, 0, 0, 0), np.zeros(4), (0, 0, 0, 0), view.mirrored)
    source = np.concatenate((low + first / size * span, low + last / size * span)).clip(0, 1) * np.tile(extent, 2)
    reach = np.ceil(span * extent / size) + 1
    corner = np.maximum(np.floor(source[:2] - reach), 0).astype(int)
    opposite = np.minimum(np.ceil(source[2:] + reach), extent).astype(int)
    left, right = int(first[0]), int(last[0])
    if view.mirrored:
        left, right = size - right, size - left
    part = (int(corner[0]), int(corner[1]), int(opposite[0]), int(opposite[1]))
    return Placement(part, source - np.tile(corner, 2), (left, int(first[1]), right, int(last[1])), view.mirrored)


def warp(image: Image, view: View, size: int) -> tuple[Image, Rectangle]:
    """The view of an image (H, W, 3) as (size, size, 3), and the part that is image; the rest is zero."""
    height, width = image.shape[:2]
    placed = placement(view, width, height, size)
    left, top, right, bottom = placed.inside
    result = np.zeros((size, size, 3), dtype=np.uint8)
    if right > left:
        part = Pillow.fromarray(placed.cut(image))
        box: tuple[float, float, float, float] = tuple(placed.box.tolist())
        resized = np.asarray(part.resize((right - left, bottom - top), Pillow.Resampling.BILINEAR, box=box))
        result[top:bottom, left:right] = resized[:, ::-1] if placed.mirrored else resized
    return result, placed.inside


def warp_together(parts: Sequence[Image], placements: Sequence[Placement], size: int, device: str) -> Tensor:
    """(B, 3, size, size) float32 of 0 to 255 on `device`: what `warp` gives, but for its roundings to whole numbers.

    parts: the pixels that each placement cuts out of its image. They travel to the device as they are.
    """
    height, width = (max(1, *(part.shape[axis] for part in parts)) for axis in (0, 1))
    packed = torch.zeros((len(parts), height, width, 3), dtype=torch.uint8, pin_memory=device != "cpu")
    for image, part in zip(packed.numpy(), parts, strict=True):
        image[: part.shape[0], : part.shape[1]] = part
    images = packed.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    box = torch.from_numpy(np.stack([each.box for each in placements])).float().to(device)
    inside = torch.tensor([each.inside for each in placements], dtype=torch.float32).to(device)
    sides = torch.tensor([part.shape[:2] for part in parts], dtype=torch.float32).to(device)
    mirrored = torch.tensor([each.mirrored for each in placements]).to(device)
    rows = _filters(
        box[:, 1::2], inside[:, 1::2], sides[:, 0], side=height, size=size, mirrored=torch.zeros_like(mirrored)
    )
    columns = _filters(box[:, ::2], inside[:, ::2], sides[:, 1], side=width, size=size, mirrored=mirrored)
    return rows[:, None] @ images @ columns.mT[:, None]


def _filters(box: Tensor, inside: Tensor, sides: Tensor, *, side: int, size: int, mirrored: Tensor) -> Tensor:
    """(B, size, side) weight of each line of a part, padded to `side`, in each line of the input; zero for fill.

    box: (B, 2) in lines of the part. inside: (B, 2) in lines of the input. sides: (B,) lines that a part has.
    mirrored: (B,) bool, whether the lines are counted from the other end.
    """
    low, high = box[..., None].unbind(1)
    first, last = inside[..., None].unbind(1)
    line = torch.arange(size, device=box.device)
    scale = (high - low) / (last - first).clamp(min=1)
    place = torch.where(mirrored[:, None], last - 1 - line, line - first)
    centre = low + (place + 0.5) * scale
    source = torch.arange(side, device=box.device)
    weights = 1 - (source + 0.5 - centre[..., None]).abs() / scale.clamp(min=1)[..., None]
    weights = weights.clamp_(min=0) * (source < sides[:, None])[:, None]
    weights *= ((line >= first) & (line < last))[..., None]
    return weights / weights.sum(dim=-1, keepdim=True).clamp_(min=torch.finfo(weights.dtype).tiny)


def whole_images(pixels: PixelSource, rows: Iterable[int], size: int, *, workers: int) -> Tensor:
    """Images at `rows` warped whole to (N, 3, size, size) uint8, channels last: what evaluation sees."""
    with ThreadPoolExecutor(workers) as pool:
        warped = list(pool.map(lambda row: warp(pixels[row], WHOLE, size)[0], rows))
    return torch.from_numpy(np.stack(warped)).permute(0, 3, 1, 2)
