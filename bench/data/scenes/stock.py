"""The goods on a shelf: products in groups of facings, their price tags, and what occludes them.

Lengths are in pixels of the canvas (see shelf.py); `unit` is the number of canvas pixels per centimetre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from bench.data.scenes.knobs import SceneKnobs
from bench.data.scenes.marks import Box, Palette, draw_palette
from bench.data.scenes.packages import PACKAGES, Package

NETWORK = 300  # side of the network's input, to which the knobs' pixels refer
RAIL = 4.2  # height of a shelf's front edge, cm
LIP = 0.8  # visible depth of the shelf in front of the goods, cm
SMALLEST, LARGEST = 11.0, 245.0  # limits of the objects' sides at 300, in pixels


@dataclass(frozen=True, kw_only=True)
class Product:
    """A product: its class, colours, size in canvas pixels, and the seed of its texture."""

    label: int
    width: int
    height: int
    palette: Palette
    seed: int


@dataclass(frozen=True, kw_only=True)
class Facing:
    """One object: a product with its lower left corner at (x, base). Darker ones stand further back."""

    product: Product
    x: float
    base: float
    scale: float = 1.0
    tilt: float = 0.0  # degrees
    light: float = 1.0
    contact: bool = True  # stands on the shelf itself, not on another object


@dataclass(frozen=True, kw_only=True)
class Screen:
    """Something that occludes objects without being one: a hanging sign, or the lip of a cardboard tray."""

    kind: str  # "sign" or "tray"
    box: Box
    palette: Palette
    seed: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """Facings of one product side by side, with their tags and screens."""

    facings: list[Facing]
    tags: list[Facing]
    screens: list[Screen]


@dataclass(frozen=True, kw_only=True)
class Stock:
    """Fills rows from `left` to `right` as set by the knobs. zoom: pixels per centimetre at 300."""

    knobs: SceneKnobs
    zoom: float
    unit: float
    left: float
    right: float
    rng: np.random.Generator

    def product(self, label: int) -> Product:
        """A new product of the class, with slightly varied proportions."""
        rng = self.rng
        stretched = math.exp(float(np.clip(rng.normal(0, 0.06), -0.18, 0.18)))
        width, height = self._extent(PACKAGES[label], grown=rng.uniform(0.92, 1.08), stretched=stretched)
        return Product(
            label=label,
            width=max(3, round(width)),
            height=max(3, round(height)),
            palette=draw_palette(rng),
            seed=int(rng.integers(2**31)),
        )

    def fill(self, base: float) -> tuple[list[Group], tuple[Box, ...], float]:
        """Fill a row at `base`; returns its groups, storage, and the height of the compartment."""
        rng, unit = self.rng, self.unit
        standing = [label for label in range(self.knobs.classes) if not PACKAGES[label].on_rail]
        groups: list[Group] = []
        storage: list[Box] = []
        deck: list[int] = []
        x = self.left + rng.uniform(0.5, 3) * unit
        while x < self.right - 3 * unit:
            chance = rng.random()
            if chance < 0.12:
                x += rng.uniform(2, 9) * unit
            elif chance < 0.18:
                across, tall = rng.uniform(12, 22) * unit, rng.uniform(7, 12) * unit
                if x + across < self.right:
                    storage.append((x, base - tall, x + across, base))
                    x += across + unit
                else:
                    break
            else:
                deck = deck or rng.permutation(standing).tolist()
                group, end = self._group(deck.pop(), x, base)
                if end > self.right and groups:
                    break
                groups.append(group)
                x = end + rng.uniform(0.4, 2.5) * unit
        tallest = max((base - top_of(facing) for group in groups for facing in group.facings), default=18 * unit)
        # Leave room for the tags of the row above.
        room = max(0.0, self._tallest_tag() - RAIL * unit) + rng.uniform(1.5, 5) * unit
        return groups, tuple(storage), tallest + room

    def _tallest_tag(self) -> float:
        """Upper bound of the height of price tags."""
        tags = [package for package in PACKAGES[: self.knobs.classes] if package.on_rail]
        return max((self._extent(tag, grown=1.08, stretched=math.exp(-0.2))[1] for tag in tags), default=0.0)

    def _extent(self, package: Package, *, grown: float, stretched: float) -> tuple[float, float]:
        """Width and height of a product of the class, with its area times `grown` and its ratio times `stretched`."""
        knobs = self.knobs
        natural = package.ratio * stretched * knobs.height / knobs.width
        ratio = float(np.clip(natural ** (2 * knobs.shapes), 0.2, 5.0))
        side = knobs.size * math.sqrt(grown) if knobs.size else package.side * self.zoom * grown
        side = float(np.clip(side, SMALLEST, LARGEST))
        return side * math.sqrt(ratio) * knobs.width / NETWORK, side / math.sqrt(ratio) * knobs.height / NETWORK

    def _group(self, label: int, x: float, base: float) -> tuple[Group, float]:
        """Facings of one product from `x` to the right, and their right end."""
        rng, unit, knobs = self.rng, self.unit, self.knobs
        product = self.product(label)
        package = PACKAGES[label]
        count = int(rng.choice([1, 2, 3, 4], p=[0.3, 0.32, 0.24, 0.14]))
        count = min(count, max(1, int(0.5 * knobs.width / product.width)))
        crowded = rng.random() < 0.7 * knobs.occlusion
        levels = 1
        if package.stacks:
            levels = min(int(rng.integers(1, 4)), max(1, int(20 * unit / product.height)), max(1, 6 // count))
        columns: list[list[Facing]] = []
        end = x
        for place in range(count):
            # If they overlap, later ones are nearer to the camera.
            columns.append(self._column(product, x, base + 0.4 * unit * place * crowded, levels))
            end = x + product.width
            if crowded:
                x += product.width * rng.uniform(0.5, 0.85)
            else:
                x = end + max(1.0, product.height * 0.035) + rng.uniform(0.1, 0.8) * unit
        if crowded and rng.random() < 0.5:
            bases = [base + 0.4 * unit * (count - 1 - place) for place in range(count)]
            columns = [_standing_at(column, at) for column, at in zip(columns, bases, strict=True)][::-1]
        facings = [facing for column in columns for facing in column]
        if levels == 1 and rng.random() < 0.6 * knobs.occlusion:
            facings = [self._behind(facing) for facing in facings] + facings
        first = min(facing.x for facing in facings)
        return Group(facings=facings, tags=self._tag(first, end, base), screens=self._screens(facings, end)), end

    def _column(self, product: Product, x: float, base: float, levels: int) -> list[Facing]:
        """Facings on top of each other, the lowest first; only a single one may lean."""
        rng = self.rng
        column = []
        for level in range(levels):
            sway = rng.uniform(-0.04, 0.04) * product.width if level else 0.0
            facing = Facing(
                product=product,
                x=x + sway,
                base=base - level * (product.height + 1),
                tilt=float(rng.normal(0, 0.8)) if levels == 1 else 0.0,
                light=rng.uniform(0.94, 1.05),
                contact=level == 0,
            )
            column.append(facing)
        return column

    def _behind(self, facing: Facing) -> Facing:
        """The same product further back, not quite hidden by the one in front."""
        shift = self.rng.uniform(-0.3, 0.3) * facing.product.width
        return replace(
            facing,
            x=facing.x + shift,
            base=facing.base - 1.2 * self.unit,
            scale=0.95,
            light=0.72,
            contact=False,
        )

    def _tag(self, left: float, right: float, base: float) -> list[Facing]:
        """The price tag on the rail below the group, or none."""
        labels = [label for label in range(self.knobs.classes) if PACKAGES[label].on_rail]
        if not labels or self.rng.random() > 0.55:
            return []
        tag = self.product(labels[0])
        # A tag wider than its goods would cover the next group's tag.
        if tag.width > right - left + 0.4 * self.unit:
            return []
        x = self.rng.uniform(left, max(left, right - tag.width))
        return [Facing(product=tag, x=x, base=base + (LIP + 0.1) * self.unit + tag.height)]

    def _screens(self, facings: list[Facing], right: float) -> list[Screen]:
        """What occludes part of the group: a tray's lip at the bottom, a sign at the top, or nothing."""
        rng, unit, chance = self.rng, self.unit, self.knobs.occlusion
        left, base = min(facing.x for facing in facings), max(facing.base for facing in facings)
        tall = base - min(top_of(facing) for facing in facings)
        if rng.random() < 0.35 * chance:
            lip = rng.uniform(0.12, 0.4) * facings[0].product.height
            box = (left - 0.4 * unit, base - lip, right + 0.4 * unit, base + 0.5 * unit)
            return [Screen(kind="tray", box=box, palette=draw_palette(rng), seed=int(rng.integers(2**31)))]
        if rng.random() < 0.3 * chance:
            across = min(rng.uniform(8, 14) * unit, 0.9 * (right - left))
            x = rng.uniform(left, right - across)
            top = base - tall * rng.uniform(1.05, 1.2)
            box = (x, top, x + across, top + rng.uniform(0.3, 0.5) * tall)
            return [Screen(kind="sign", box=box, palette=draw_palette(rng), seed=int(rng.integers(2**31)))]
        return []


def _standing_at(column: list[Facing], base: float) -> list[Facing]:
    return [replace(facing, base=facing.base + base - column[0].base) for facing in column]


def top_of(facing: Facing) -> float:
    """The upper edge of a facing."""
    return facing.base - facing.product.height * facing.scale
