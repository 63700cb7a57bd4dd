"""From an arrangement to a photograph with boxes.

The canvas is painted twice, in colours and in object numbers, and both go through the same camera, so that boxes match
the pixels that show the object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from scipy import ndimage

from bench.data.scenes.knobs import SceneKnobs
from bench.data.scenes.packages import PACKAGES, texture
from bench.data.scenes.room import paint_room, screen_texture
from bench.data.scenes.shelf import Arrangement, arrange
from bench.data.scenes.stock import Facing, Product

VISIBLE = 0.4  # minimum visible share of an annotated object
UNOCCLUDED = 0.85
MAX_OBJECTS = 250  # object numbers are bytes; 0 is the background
SOLID = [255 * (alpha > 127) for alpha in range(256)]  # a half-covered pixel belongs to the object


@dataclass(frozen=True, kw_only=True, eq=False)
class Objects:
    """K annotated objects: boxes (K, 4) xyxy in pixels, labels, truncated and occluded (K,)."""

    boxes: NDArray[np.float64]
    labels: NDArray[np.int32]
    truncated: NDArray[np.int8]
    occluded: NDArray[np.int8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Photograph:
    """A drawn image with its K objects.

    picture: (H, W, 3) uint8. instances: (H, W) uint8, number (from 1) of the object visible at a pixel, 0 for none.
    labels: (K,) class of object k + 1. complete: (K,) its number of pixels without occlusion or image border.
    objects: the annotated ones.
    """

    picture: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    labels: NDArray[np.int32]
    complete: NDArray[np.float64]
    objects: Objects


def photograph(knobs: SceneKnobs, number: int) -> Photograph:
    """Image `number` of the set of `knobs`; it depends on nothing else."""
    rng = np.random.default_rng([knobs.seed, number])
    scene = arrange(knobs, rng)
    canvas = paint_room(scene, rng)
    numbers = Image.new("L", canvas.size, 0)
    labels, sizes, middles = _paint_goods(scene, canvas, numbers)
    lens = _camera(knobs, canvas.size, rng)
    shape = (knobs.width, knobs.height)
    instances = np.array(
        numbers.transform(shape, Image.Transform.PERSPECTIVE, lens.ravel()[:8].tolist(), Image.Resampling.NEAREST)
    )
    seen = canvas.transform(shape, Image.Transform.PERSPECTIVE, lens.ravel()[:8].tolist(), Image.Resampling.BILINEAR)
    complete = sizes * _magnification(lens, middles)
    return Photograph(
        picture=_expose(seen, rng),
        instances=instances,
        labels=labels,
        complete=complete,
        objects=annotate(instances, labels, complete),
    )


def annotate(instances: NDArray[np.uint8], labels: NDArray[np.int32], complete: NDArray[np.float64]) -> Objects:
    """The objects that are at least 40% visible; the arguments are those of `Photograph`.

    A box is the extent of the object's visible pixels, so it lies inside the image. `occluded`: less than 85% is
    visible, for any reason. `truncated`: the box touches the image border.
    """
    height, width = instances.shape
    visible = np.bincount(instances.ravel(), minlength=len(labels) + 1)[1 : len(labels) + 1]
    share = visible / np.maximum(complete, 1)
    kept = np.flatnonzero((share >= VISIBLE) & (visible > 0))
    extents = ndimage.find_objects(instances, max_label=len(labels))
    boxes = np.array(
        [(extents[k][1].start, extents[k][0].start, extents[k][1].stop, extents[k][0].stop) for k in kept],
        dtype=np.float64,
    ).reshape(-1, 4)
    cut = (boxes[:, :2] == 0).any(axis=1) | (boxes[:, 2] == width) | (boxes[:, 3] == height)
    return Objects(
        boxes=boxes,
        labels=labels[kept],
        truncated=cut.astype(np.int8),
        occluded=(share[kept] < UNOCCLUDED).astype(np.int8),
    )


def _paint_goods(
    scene: Arrangement, canvas: Image.Image, numbers: Image.Image
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """Paint all objects and the screens in front of them; returns (K,) labels, (K,) pixels and (K, 2) centres."""
    drawn: dict[int, Image.Image] = {}
    labels: list[int] = []
    sizes: list[int] = []
    middles: list[tuple[float, float]] = []

    def place(facing: Facing) -> None:
        left, top = facing.x, facing.base - facing.product.height
        outside = left > scene.width or top > scene.height or facing.base < 0 or left + facing.product.width < 0
        if outside or len(labels) == MAX_OBJECTS:
            return
        picture = _picture_of(facing, drawn)
        corner = (
            round(facing.x + (facing.product.width - picture.width) / 2),
            round(facing.base - (facing.product.height + picture.height) / 2),
        )
        solid = picture.getchannel("A").point(SOLID)
        canvas.paste(picture, corner, picture)
        labels.append(facing.product.label)
        numbers.paste(len(labels), (*corner, corner[0] + picture.width, corner[1] + picture.height), solid)
        sizes.append(solid.histogram()[255])
        middles.append((corner[0] + picture.width / 2, corner[1] + picture.height / 2))

    for row in scene.rows:
        for facing in row.facings:
            place(facing)
        for screen in row.screens:
            card = screen_texture(screen)
            corner = (round(screen.box[0]), round(screen.box[1]))
            canvas.paste(card, corner, card)
            solid = card.getchannel("A").point(SOLID)
            numbers.paste(0, (*corner, corner[0] + card.width, corner[1] + card.height), solid)
    for row in scene.rows:
        for tag in row.tags:
            place(tag)
    return (
        np.array(labels, dtype=np.int32),
        np.array(sizes, dtype=np.float64),
        np.array(middles, dtype=np.float64).reshape(-1, 2),
    )


def _picture_of(facing: Facing, drawn: dict[int, Image.Image]) -> Image.Image:
    product: Product = facing.product
    picture = drawn.get(product.seed)
    if picture is None:
        rng = np.random.default_rng(product.seed)
        picture = texture(PACKAGES[product.label], (product.width, product.height), product.palette, rng)
        drawn[product.seed] = picture
    if facing.scale != 1:
        smaller = (max(2, round(product.width * facing.scale)), max(2, round(product.height * facing.scale)))
        picture = picture.resize(smaller, Image.Resampling.BILINEAR)
    if abs(facing.tilt) > 0.3 and product.height > 40:
        picture = picture.rotate(facing.tilt, Image.Resampling.BILINEAR, expand=True)
    return ImageEnhance.Brightness(picture).enhance(facing.light)


def _camera(knobs: SceneKnobs, canvas: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """(3, 3) homography from the image to the canvas: a hand-held camera, slightly rolled and tilted."""
    width, height = knobs.width, knobs.height
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float64)
    roll = math.radians(float(np.clip(rng.normal(0, 1.2), -2.5, 2.5)))
    turn = np.array([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
    away = corners - (width / 2, height / 2)
    # One side of the image is farther away than the other: a keystone, not an arbitrary quadrilateral.
    keystone = 1 + (away / (width, height)) @ rng.uniform(-0.05, 0.05, 2)
    aim = away * keystone[:, None] @ turn.T * rng.uniform(0.97, 1.0) + np.array(canvas) / 2
    aim = np.clip(aim, 0, canvas)
    system = np.zeros((8, 8))
    for corner, ((x, y), (u, v)) in enumerate(zip(corners, aim, strict=True)):
        system[2 * corner] = (x, y, 1, 0, 0, 0, -u * x, -u * y)
        system[2 * corner + 1] = (0, 0, 0, x, y, 1, -v * x, -v * y)
    return np.append(np.linalg.solve(system, aim.ravel()), 1.0).reshape(3, 3)


def _magnification(lens: NDArray[np.float64], middles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K,) image pixels per canvas pixel, at (K, 2) points of the canvas."""
    ahead = np.column_stack([middles, np.ones(len(middles))]) @ np.linalg.inv(lens).T
    at = ahead[:, :2] / ahead[:, 2:]
    depth = at @ lens[2, :2] + 1
    return np.asarray(depth**3 / np.linalg.det(lens))


def _expose(seen: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add light fall-off, white balance, lens blur and grain."""
    width, height = seen.size
    light = np.array(seen.filter(ImageFilter.BoxBlur(rng.uniform(0.15, 0.7))), dtype=np.float32)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    slope = rng.uniform(-0.16, 0.16, 2).astype(np.float32)
    falloff = rng.uniform(0.98, 1.3) * (1 + slope[0] * x + slope[1] * y) * (1 - 0.06 * (x**2 + y**2))
    balance = rng.normal(1, 0.035, 3).astype(np.float32)
    light *= falloff[..., None].astype(np.float32) * balance
    # Camera processing leaves fine grey grain and coarser coloured grain.
    strength = np.float32(rng.uniform(1.0, 4.0))
    light += strength * rng.standard_normal((height, width, 1), dtype=np.float32) + 4
    colour = rng.standard_normal((height // 2 + 1, width // 2 + 1, 3), dtype=np.float32) * (0.5 * strength)
    light += colour.repeat(2, axis=0)[:height].repeat(2, axis=1)[:, :width]
    return np.clip(light, 0, 255, out=light).astype(np.uint8)
