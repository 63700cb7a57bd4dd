"""The training augmentation of SSD (Caffe's `ssd_pascal.py`), as one view of the source image.

Zoom-out, crop, mirror and warp are composed into one rectangle of the source, so each pixel is resampled once. The
photometric distortions follow on the network's 300 x 300 pixels. The fill around the image comes last, so that it is
not distorted.

Every draw depends only on (seed, epoch, image), not on the arm, the worker or the order of loading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.device.fast_paths import overridable
from bench.spec import AugmentSpec

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Colour = NDArray[np.float32]
AUGMENTATION_STREAM = 1  # first word of the seed, to separate the augmentation from the order


@dataclass(frozen=True)
class View:
    """The rectangle of an image that the network sees.

    rectangle: (4,) xyxy as fractions of the image; it may reach beyond 0 and 1 (zoom-out).
    mirrored: left and right are exchanged after the warp.
    """

    rectangle: Floats
    mirrored: bool


WHOLE = View(np.array([0.0, 0.0, 1.0, 1.0]), mirrored=False)


@dataclass(frozen=True)
class Photometric:
    """The photometric distortions of one view; a value of 0 (brightness, hue) or 1 (others) changes nothing."""

    brightness: float
    contrast: float
    saturation: float
    hue: float  # turns, -0.5 to 0.5
    contrast_first: bool


def generator_of(seed: int, epoch: int, image: int) -> np.random.Generator:
    """The random generator of one sample's augmentation."""
    return np.random.default_rng((AUGMENTATION_STREAM, seed, epoch, image))


def draw_view(generator: np.random.Generator, boxes: Floats, spec: AugmentSpec) -> View:
    """Draw zoom-out, crop and mirror for an image with boxes (G, 4), xyxy in fractions."""
    canvas = np.array([0.0, 0.0, 1.0, 1.0])
    if generator.random() < spec.expand_probability:
        ratio = generator.uniform(1.0, spec.expand_largest)
        low = -generator.uniform(0.0, ratio - 1.0, size=2)
        canvas = np.concatenate((low, low + ratio))
    side = canvas[2] - canvas[0]
    on_canvas = (boxes - np.tile(canvas[:2], 2)) / side
    crop = _draw_crop(generator, on_canvas, spec)
    rectangle = np.tile(canvas[:2], 2) + crop * side
    return View(rectangle, mirrored=bool(generator.random() < spec.mirror_probability))


def _draw_crop(generator: np.random.Generator, boxes: Floats, spec: AugmentSpec) -> Floats:
    """(4,) xyxy in [0, 1]: the whole image, or a crop that reaches its sampler's minimum IoU with some box.

    Each sampler gives its first successful trial. The choice among these and the whole image is uniform. The last
    sampler has no minimum.
    """
    whole = np.array([0.0, 0.0, 1.0, 1.0])
    if not spec.crop_trials:
        return whole
    samplers = len(spec.crop_overlaps) + 1
    shape = (samplers, spec.crop_trials)
    scale = generator.uniform(*spec.crop_scale, size=shape)
    lowest = np.maximum(spec.crop_ratio[0], scale**2)
    highest = np.minimum(spec.crop_ratio[1], 1 / scale**2)
    ratio = np.sqrt(lowest + (highest - lowest) * generator.random(shape))
    size = np.stack((scale * ratio, scale / ratio), axis=-1)
    low = generator.random((*shape, 2)) * (1 - size)
    crops = np.concatenate((low, low + size), axis=-1)
    smallest = np.array([*spec.crop_overlaps, 0.0])[:, None]
    success = _largest_overlap(crops, boxes) >= smallest
    candidates = [crops[sampler, success[sampler].argmax()] for sampler in np.flatnonzero(success.any(axis=1))]
    choice = int(generator.integers(len(candidates) + 1))
    return whole if choice == 0 else candidates[choice - 1]


def _largest_overlap(crops: Floats, boxes: Floats) -> Floats:
    """(...) the largest IoU of each crop (..., 4) with boxes (G, 4); 0 without boxes."""
    if not len(boxes):
        return np.zeros(crops.shape[:-1])
    shared = np.minimum(crops[..., None, 2:], boxes[:, 2:]) - np.maximum(crops[..., None, :2], boxes[:, :2])
    inter = np.clip(shared, 0, None).prod(axis=-1)
    area = (crops[..., 2:] - crops[..., :2]).prod(axis=-1)[..., None]
    union = area + (boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) - inter
    return np.asarray((inter / np.maximum(union, np.finfo(np.float64).tiny)).max(axis=-1))


def boxes_in_view(
    boxes: Floats, view: View, *, always: NDArray[np.bool_] | None = None
) -> tuple[Floats, NDArray[np.bool_]]:
    """Convert boxes (G, 4), xyxy in fractions of the image, to fractions of the view, and drop invisible ones.

    Returns the remaining boxes, clipped to the view, and (G,) bool, which remain: those with their centre in the view
    (Caffe: emit_constraint CENTER). always: (G,) boxes that remain if any part is visible, such as crowds.
    """
    low, high = view.rectangle[:2], view.rectangle[2:]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    stays = np.asarray(((centre >= low) & (centre < high)).all(axis=1))
    seen = np.clip((boxes - np.tile(low, 2)) / np.tile(high - low, 2), 0, 1)
    if always is not None:
        stays |= always
    if view.mirrored:
        seen = np.stack((1 - seen[:, 2], seen[:, 1], 1 - seen[:, 0], seen[:, 3]), axis=1)
    stays &= (seen[:, 2:] > seen[:, :2]).all(axis=1)
    return seen[stays], stays


def draw_photometric(generator: np.random.Generator, spec: AugmentSpec) -> Photometric:
    """Draw each distortion independently, and whether contrast comes before or after saturation and hue."""
    coins = generator.random(4) < spec.photometric_probability
    brightness = generator.uniform(-spec.brightness, spec.brightness)
    contrast = generator.uniform(*spec.contrast)
    saturation = generator.uniform(*spec.saturation)
    hue = generator.uniform(-spec.hue_degrees, spec.hue_degrees) / 360
    return Photometric(
        brightness=brightness if coins[0] else 0.0,
        contrast=contrast if coins[1] else 1.0,
        saturation=saturation if coins[2] else 1.0,
        hue=hue if coins[3] else 0.0,
        contrast_first=bool(generator.random() < 0.5),
    )


@overridable
def photometric(pixels: Pixels, draws: Photometric, inside: tuple[int, int, int, int], fill: Colour) -> Colour:
    """Change brightness, contrast, saturation and hue of one image, and fill the pixels around it.

    pixels: (S, S, 3) uint8 RGB. inside: xyxy in whole pixels, the image without fill. fill: (3,) float32.
    Returns (S, S, 3) float32 of 0 to 255, clamped after each distortion as 8-bit images are.
    """
    first, last = (draws.contrast, 1.0) if draws.contrast_first else (1.0, draws.contrast)
    planes = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float()
    planes = planes.add_(draws.brightness).clamp_(0, 255).mul_(first).clamp_(0, 255)
    if draws.saturation != 1.0 or draws.hue != 0.0:
        planes = _shift_colours(planes, draws.saturation, draws.hue)
    planes.mul_(last).clamp_(0, 255)
    left, top, right, bottom = inside
    result = np.empty(pixels.shape, dtype=np.float32)
    result[:] = fill
    result[top:bottom, left:right] = planes[:, top:bottom, left:right].permute(1, 2, 0).numpy()
    return result


def _shift_colours(image: Tensor, saturation: float, hue: float) -> Tensor:
    """Scale the saturation by a factor, and turn the hue by a share of the circle, of (3, S, S) RGB of 0 to 255."""
    red, green, blue = image.unbind(dim=0)
    value = torch.maximum(red, green).maximum(blue)
    chroma = value - torch.minimum(red, green).minimum(blue)
    scale = chroma.clamp(min=1e-6).reciprocal_()
    from_green = (blue - red).mul_(scale).add_(2)
    from_blue = (red - green).mul_(scale).add_(4)
    sector = torch.where(value == green, from_green, from_blue)
    sector = torch.where(value == red, (green - blue).mul_(scale), sector).add_(hue * 6)
    sector -= (sector / 6).floor_().mul_(6)
    chroma = torch.minimum(chroma.mul_(saturation), value)
    # Inverse transform in closed form (Smith 1978), on a circle of six sectors: a channel lacks chroma within two
    # sectors of its complement, which is at 3 for red, at 5 for green and at 1 for blue
    channels = []
    for turn in (0.0, -2.0, -4.0):
        lacking = (sector + turn).abs_().sub_(3).abs_().neg_().add_(2).clamp_(0, 1)
        channels.append(torch.addcmul(value, chroma, lacking, value=-1))
    return torch.stack(channels)
