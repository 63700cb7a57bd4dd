"""Marks on packages: letter-like strokes, small print, digits and barcodes, without a font.

Coordinates are fractions of the sheet's width and height; a box is x0, y0, x1, y1.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

Colour: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]

# Strokes in a unit cell, y down. They only need to look like writing.
LETTERS: tuple[tuple[tuple[Point, ...], ...], ...] = (
    (((0, 0), (0, 1), (1, 1)),),
    (((0, 1), (0, 0), (1, 1), (1, 0)),),
    (((0, 0), (0.5, 1), (1, 0)),),
    (((0, 1), (0.5, 0), (1, 1)), ((0.2, 0.65), (0.8, 0.65))),
    (((0, 0), (1, 0)), ((0.5, 0), (0.5, 1))),
    (((1, 0), (0, 0), (0, 1), (1, 1)), ((0, 0.5), (0.8, 0.5))),
    (((0, 0), (1, 0), (1, 1), (0, 1), (0, 0)),),
    (((0, 0), (1, 0), (0, 1), (1, 1)),),
    (((0, 1), (0, 0), (0.5, 0.6), (1, 0), (1, 1)),),
    (((1, 0), (0, 0.25), (1, 0.7), (0, 1)),),
    (((0, 0), (0, 1)), ((1, 0), (0, 0.5), (1, 1))),
    (((0, 1), (0, 0), (1, 0.1), (1, 0.45), (0, 0.5)),),
)
DIGITS: tuple[tuple[Point, ...], ...] = (
    ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0)),
    ((0.2, 0.2), (0.6, 0), (0.6, 1)),
    ((0, 0.15), (1, 0), (1, 0.45), (0, 1), (1, 1)),
    ((0, 0), (1, 0), (0.4, 0.45), (1, 0.6), (1, 1), (0, 1)),
    ((0.7, 1), (0.7, 0), (0, 0.65), (1, 0.65)),
    ((1, 0), (0, 0), (0, 0.45), (1, 0.5), (1, 1), (0, 1)),
    ((1, 0), (0, 0.2), (0, 1), (1, 1), (1, 0.5), (0, 0.5)),
    ((0, 0), (1, 0), (0.3, 1)),
    ((0, 0), (1, 0), (0, 1), (1, 1), (0, 0)),
    ((1, 0.5), (0, 0.5), (0, 0), (1, 0), (1, 0.8), (0, 1)),
)


@dataclass(frozen=True)
class Palette:
    """The colours of one product: background, second colour, ink on both, and label paper."""

    base: Colour
    accent: Colour
    ink: Colour
    paper: Colour


def draw_palette(rng: np.random.Generator) -> Palette:
    """Random colours from one distribution for all classes, so that no class has its own colour."""
    hue = rng.random()
    base = _hsv(hue, rng.uniform(0.1, 0.85), rng.uniform(0.3, 0.95))
    accent = _hsv(hue + rng.uniform(0.25, 0.75), rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.92))
    paper = _hsv(rng.random(), rng.uniform(0.0, 0.3), rng.uniform(0.82, 0.98))
    ink = _hsv(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.08, 0.35))
    return Palette(base, accent, ink, paper)


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor below 1) or lighter."""
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    # Printing inks have no neon green or cyan, so dull these hues, more at higher saturation.
    dull = 1 - 0.35 * saturation * max(0.0, 1 - abs(hue % 1.0 - 0.42) / 0.22)
    parts = colorsys.hsv_to_rgb(hue % 1.0, saturation * dull, value * dull)
    red, green, blue = (round(255 * part) for part in parts)
    return red, green, blue


class Sheet:
    """A texture being drawn: `colour` (RGB) and `mask` (L, 255 on the object)."""

    def __init__(self, width: int, height: int, paper: Colour) -> None:
        self.width, self.height = width, height
        self.colour = Image.new("RGB", (width, height), paper)
        self.mask = Image.new("L", (width, height), 0)
        self._pen = ImageDraw.Draw(self.colour)
        self._knife = ImageDraw.Draw(self.mask)

    def cut(self, points: Sequence[Point], inside: bool = True) -> None:
        """Add the polygon to the object, or cut it out as a hole."""
        self._knife.polygon(self._pixels(points), fill=255 if inside else 0)

    def cut_ellipse(self, box: Box, inside: bool = True) -> None:
        """Like `cut`, for an ellipse."""
        self._knife.ellipse(self._box(box), fill=255 if inside else 0)

    def area(self, box: Box, ink: Colour) -> None:
        """A filled rectangle."""
        self._pen.rectangle(self._box(box), fill=ink)

    def ellipse(self, box: Box, ink: Colour) -> None:
        """A filled ellipse."""
        self._pen.ellipse(self._box(box), fill=ink)

    def polygon(self, points: Sequence[Point], ink: Colour) -> None:
        """A filled polygon."""
        self._pen.polygon(self._pixels(points), fill=ink)

    def line(self, points: Sequence[Point], ink: Colour, thickness: float) -> None:
        """A line; thickness is a fraction of the sheet's shorter side."""
        pixels = max(1, round(thickness * min(self.width, self.height)))
        self._pen.line(self._pixels(points), fill=ink, width=pixels, joint="curve" if pixels > 3 else None)

    def disc(self, centre: Point, radius: float, ink: Colour) -> None:
        """A true circle; the radius is a fraction of the sheet's shorter side."""
        x, y, r = centre[0] * self.width, centre[1] * self.height, radius * min(self.width, self.height)
        self._pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)

    def _pixels(self, points: Sequence[Point]) -> list[tuple[float, float]]:
        return [(x * self.width, y * self.height) for x, y in points]

    def _box(self, box: Box) -> tuple[float, float, float, float]:
        return box[0] * self.width, box[1] * self.height, box[2] * self.width, box[3] * self.height


def word(sheet: Sheet, box: Box, ink: Colour, rng: np.random.Generator) -> None:
    """1 to 9 letter-like glyphs that fill the box, depending on its aspect ratio."""
    across, down = (box[2] - box[0]) * sheet.width, (box[3] - box[1]) * sheet.height
    count = int(np.clip(round(across / (0.85 * max(down, 1e-6))), 1, 9))
    cell = (box[2] - box[0]) / count
    for place, letter in enumerate(rng.integers(0, len(LETTERS), count).tolist()):
        x0 = box[0] + place * cell
        _glyph(sheet, LETTERS[letter], (x0 + 0.12 * cell, box[1], x0 + 0.85 * cell, box[3]), ink)


def standing_word(sheet: Sheet, box: Box, ink: Colour, rng: np.random.Generator) -> None:
    """Like `word`, from top to bottom."""
    across, down = (box[2] - box[0]) * sheet.width, (box[3] - box[1]) * sheet.height
    count = int(np.clip(round(down / max(across, 1e-6)), 1, 9))
    cell = (box[3] - box[1]) / count
    for place, letter in enumerate(rng.integers(0, len(LETTERS), count).tolist()):
        y0 = box[1] + place * cell
        _glyph(sheet, LETTERS[letter], (box[0], y0 + 0.12 * cell, box[2], y0 + 0.85 * cell), ink)


def price(sheet: Sheet, box: Box, ink: Colour, rng: np.random.Generator) -> None:
    """One or two large digits, then two raised ones."""
    count = int(rng.integers(1, 3))
    cell = (box[2] - box[0]) / (count + 1.35)
    for place, digit in enumerate(rng.integers(0, 10, count).tolist()):
        x0 = box[0] + place * cell
        _glyph(sheet, (DIGITS[digit],), (x0 + 0.12 * cell, box[1], x0 + 0.85 * cell, box[3]), ink)
    middle = (box[1] + box[3]) / 2
    for place, digit in enumerate(rng.integers(0, 10, 2).tolist()):
        x0 = box[0] + (count + 0.1 + 0.62 * place) * cell
        _glyph(sheet, (DIGITS[digit],), (x0, box[1], x0 + 0.45 * cell, middle), ink)


def small_print(sheet: Sheet, box: Box, ink: Colour, rng: np.random.Generator, *, lines: int = 4) -> None:
    """Lines of dashes that look like text too small to read."""
    pitch = (box[3] - box[1]) / lines
    for row in range(lines):
        y0, x = box[1] + row * pitch, box[0]
        end = box[2] if row < lines - 1 else box[0] + (box[2] - box[0]) * rng.uniform(0.3, 0.9)
        while x < end:
            dash = min((box[2] - box[0]) * rng.uniform(0.1, 0.3), end - x)
            sheet.area((x, y0, x + dash, y0 + 0.42 * pitch), ink)
            x += dash + 0.05 * (box[2] - box[0])


def barcode(sheet: Sheet, box: Box, rng: np.random.Generator) -> None:
    """Dark bars of various widths on white."""
    sheet.area(box, (245, 245, 245))
    edges = np.cumsum(rng.integers(1, 4, 24))
    edges = box[0] + (box[2] - box[0]) * edges / edges[-1]
    for left, right in zip(edges[:-1:2].tolist(), edges[1::2].tolist(), strict=True):
        sheet.area((left, box[1], left + 0.7 * (right - left), box[3]), (25, 25, 28))


def _glyph(sheet: Sheet, strokes: Sequence[Sequence[Point]], box: Box, ink: Colour) -> None:
    across, down = box[2] - box[0], box[3] - box[1]
    thickness = 0.2 * min(across * sheet.width, down * sheet.height) / min(sheet.width, sheet.height)
    for stroke in strokes:
        sheet.line([(box[0] + x * across, box[1] + y * down) for x, y in stroke], ink, thickness)
