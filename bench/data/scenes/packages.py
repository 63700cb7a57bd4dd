"""The classes of packaged goods and their textures: a drawn sheet, shaded as a solid object.

Classes differ only in shape and label layout. All products take their colours from `marks.draw_palette`, so the mean
colour says little about the class (a test checks this).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.scenes import designs
from bench.data.scenes.marks import Palette, Sheet


@dataclass(frozen=True, kw_only=True)
class Package:
    """A class. side: square root of its area in cm. ratio: natural width / height."""

    name: str
    side: float
    ratio: float
    solid: Literal["flat", "round", "soft"]
    design: designs.Design
    stacks: bool = False
    on_rail: bool = False  # clipped to the front edge instead of standing on the shelf


PACKAGES: tuple[Package, ...] = (
    Package(name="carton", side=20.0, ratio=0.68, solid="flat", design=designs.carton),
    Package(name="can", side=9.5, ratio=0.64, solid="round", design=designs.can),
    Package(name="bottle", side=14.5, ratio=0.29, solid="round", design=designs.bottle),
    Package(name="price tag", side=5.8, ratio=1.6, solid="flat", design=designs.price_tag, on_rail=True),
    Package(name="jar", side=10.5, ratio=0.76, solid="round", design=designs.jar),
    Package(name="bag", side=19.0, ratio=0.74, solid="soft", design=designs.bag),
    Package(name="tube", side=10.0, ratio=0.3, solid="round", design=designs.tube),
    Package(name="gable carton", side=15.0, ratio=0.46, solid="flat", design=designs.gable_carton),
    Package(name="tin", side=7.5, ratio=2.0, solid="round", design=designs.tin, stacks=True),
    Package(name="spray", side=15.5, ratio=0.42, solid="round", design=designs.spray),
    Package(name="bar", side=8.5, ratio=3.3, solid="soft", design=designs.bar, stacks=True),
    Package(name="cup", side=8.5, ratio=0.95, solid="round", design=designs.cup, stacks=True),
    Package(name="multipack", side=17.0, ratio=1.6, solid="flat", design=designs.multipack),
    Package(name="jug", side=20.0, ratio=0.74, solid="round", design=designs.jug),
    Package(name="egg box", side=12.5, ratio=2.4, solid="flat", design=designs.eggs, stacks=True),
    Package(name="roll", side=15.0, ratio=0.52, solid="round", design=designs.roll),
    Package(name="pouch", side=14.0, ratio=0.68, solid="soft", design=designs.pouch),
    Package(name="stick", side=9.0, ratio=0.34, solid="round", design=designs.stick),
)

# Textures are drawn larger by this factor and reduced, which smooths their edges.
OVERSAMPLING = 2.0
SMALLEST_SHEET = 48.0
LARGEST_SHEET = 640.0


def texture(package: Package, size: tuple[int, int], palette: Palette, rng: np.random.Generator) -> Image.Image:
    """RGBA image of a product of the class. size: width and height in pixels."""
    width, height = size
    scale = min(max(OVERSAMPLING, SMALLEST_SHEET / min(size)), max(1.0, LARGEST_SHEET / max(size)))
    sheet = Sheet(max(2, round(width * scale)), max(2, round(height * scale)), palette.base)
    package.design(sheet, palette, rng)
    colour = np.asarray(sheet.colour, dtype=np.float32)
    light = SHADINGS[package.solid](np.asarray(sheet.mask), rng)
    shaded = np.clip(colour * light[..., None], 0, 255).astype(np.uint8)
    drawn = Image.fromarray(shaded)
    drawn.putalpha(sheet.mask)
    return drawn.resize(size, Image.Resampling.BOX if scale >= 2 else Image.Resampling.BILINEAR)


def _flat(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    height, width = mask.shape
    down = np.linspace(1.04, 0.88, height, dtype=np.float32)
    across = np.linspace(1.0, 1.0 + rng.uniform(-0.08, 0.08), width, dtype=np.float32)
    return down[:, None] * across


def _round(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Light on a surface of revolution: each row of the silhouette is a circle seen from the side."""
    height, width = mask.shape
    solid = mask > 0
    left = np.argmax(solid, axis=1)
    right = width - 1 - np.argmax(solid[:, ::-1], axis=1)
    middle, half = (left + right) / 2, np.maximum((right - left) / 2, 1)
    x = np.clip((np.arange(width)[None] - middle[:, None]) / half[:, None], -1, 1).astype(np.float32)
    lamp = np.float32(rng.uniform(-0.45, 0.1))
    diffuse = 0.5 + 0.55 * np.sqrt(1 - np.square((x - lamp) / (1 + abs(lamp))))
    gloss = np.float32(rng.uniform(0.1, 0.45)) * np.exp(-np.square((x - lamp) / 0.12))
    down = np.linspace(1.02, 0.9, height, dtype=np.float32)[:, None]
    return ((diffuse + gloss) * down).astype(np.float32)


def _soft(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Foil or film: darker towards the edges, creased."""
    height, width = mask.shape
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    creases = Image.fromarray(rng.normal(0, 1, (7, 6)).astype(np.float32))
    wrinkled = np.asarray(creases.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    return 1.06 - 0.3 * x**4 - 0.2 * y**4 - 0.05 * x + 0.1 * wrinkled


SHADINGS = {"flat": _flat, "round": _round, "soft": _soft}
