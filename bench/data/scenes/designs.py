"""The design of each class of package: its silhouette and the layout of its label.

A design cuts the silhouette out of a sheet and draws on it. The shape and the positions of the marks define the class;
the colours come from the palette. Small jitter makes products of a class differ. Coordinates are fractions of the
package's width and height, x to the right and y down.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from bench.data.scenes.marks import (
    Palette,
    Point,
    Sheet,
    barcode,
    price,
    shade,
    small_print,
    standing_word,
    word,
)

Design: TypeAlias = Callable[[Sheet, Palette, np.random.Generator], None]

METAL = (176, 179, 184)
METAL_DARK = (112, 115, 120)
WHOLE: tuple[Point, ...] = ((0, 0), (1, 0), (1, 1), (0, 1))


def carton(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Upright box: title band above, a large round picture below, one side face visible."""
    fold = rng.uniform(0.82, 0.9)
    sheet.cut(WHOLE)
    band = rng.uniform(0.22, 0.3)
    sheet.area((0, 0.07, fold, band), ink.accent)
    word(sheet, (0.08, 0.105, fold - 0.08, band - 0.03), ink.paper, rng)
    x, y = fold / 2 + rng.uniform(-0.04, 0.04), rng.uniform(0.57, 0.63)
    sheet.disc((x, y), 0.36, ink.paper)
    sheet.disc((x, y), 0.27, ink.accent)
    for angle in rng.uniform(0, 2 * math.pi, 6).tolist():
        sheet.disc((x + 0.14 * math.cos(angle), y + 0.1 * math.sin(angle)), 0.07, ink.paper)
    small_print(sheet, (0.06, 0.9, 0.5 * fold, 0.97), ink.ink, rng, lines=2)
    sheet.area((fold, 0, 1, 1), shade(ink.base, 0.6))
    small_print(sheet, (fold + 0.025, 0.3, 0.98, 0.6), shade(ink.paper, 0.7), rng, lines=7)


def can(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Food can: metal rims, round lid seen from above, two bands and an oval emblem between them."""
    sheet.cut(((0, 0.06), (1, 0.06), (1, 0.95), (0, 0.95)))
    sheet.cut_ellipse((0, 0, 1, 0.12))
    sheet.cut_ellipse((0, 0.9, 1, 1))
    for y0, y1 in ((0.17, 0.24), (0.78, 0.85)):
        sheet.area((0, y0, 1, y1), ink.accent)
    x = 0.5 + rng.uniform(-0.12, 0.12)
    sheet.ellipse((x - 0.3, 0.28, x + 0.3, 0.74), ink.paper)
    word(sheet, (x - 0.22, 0.44, x + 0.22, 0.56), ink.ink, rng)
    sheet.ellipse((-0.05, 0.9, 1.05, 1.04), METAL_DARK)
    sheet.area((0, 0.06, 1, 0.12), METAL)
    sheet.ellipse((0, 0, 1, 0.12), METAL)
    sheet.ellipse((0.07, 0.02, 0.93, 0.1), METAL_DARK)


def bottle(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Tall bottle: cap, neck, sloping shoulders, label with a wave on the lower half."""
    shoulder = rng.uniform(0.36, 0.42)
    half: list[Point] = [(0.15, 0), (0.15, 0.08), (0.13, 0.08), (0.14, 0.2)]
    half += [(0.15 + 0.35 * math.sin(t * math.pi / 2) ** 1.4, 0.2 + (shoulder - 0.2) * t) for t in LINEAR]
    half += [(0.5, 0.95), (0.44, 0.99), (0.4, 1.0)]
    sheet.cut(_mirrored(half))
    sheet.area((0, 0, 1, 0.08), ink.accent)
    sheet.area((0.3, 0.105, 0.7, 0.12), shade(ink.base, 0.6))
    top = rng.uniform(0.5, 0.54)
    sheet.area((0, top, 1, 0.86), ink.paper)
    wave = [(x, 0.76 + 0.025 * math.sin(7 * x + 1)) for x in LINEAR]
    sheet.polygon([*wave, (1, 0.86), (0, 0.86)], ink.accent)
    word(sheet, (0.14, top + 0.06, 0.86, top + 0.14), ink.ink, rng)


def jar(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Preserving jar: ridged wide lid, glass with pieces in it, a small oval label."""
    lid = rng.uniform(0.17, 0.22)
    half: list[Point] = [(0.44, 0.02), (0.46, 0), (0.46, lid), (0.41, lid), (0.41, lid + 0.03)]
    half += [(0.5, lid + 0.1), (0.5, 0.93), (0.45, 1.0)]
    sheet.cut(_mirrored(half))
    for x, y in rng.uniform((0.02, lid + 0.06), (0.98, 0.97), (26, 2)).tolist():
        sheet.disc((x, y), rng.uniform(0.04, 0.09), shade(ink.base, rng.uniform(0.6, 1.35)))
    sheet.area((0, lid, 1, lid + 0.045), shade(ink.base, 1.5))
    sheet.area((0, 0, 1, lid), ink.accent)
    for x in np.linspace(0.08, 0.92, 12).tolist():
        sheet.line(((x, 0.03), (x, lid)), shade(ink.accent, 0.65), 0.015)
    sheet.ellipse((0.2, 0.42, 0.8, 0.8), ink.paper)
    word(sheet, (0.3, 0.54, 0.7, 0.68), ink.ink, rng)


def price_tag(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Shelf label: small print above, large digits right, barcode in the lower left corner."""
    ground = ink.paper if rng.random() < 0.5 else ink.accent
    light = 0.3 * ground[0] + 0.59 * ground[1] + 0.11 * ground[2] > 110
    sheet.cut(WHOLE)
    sheet.area((0, 0, 1, 1), ground)
    figures = (28, 26, 30) if light else (248, 246, 240)
    small_print(sheet, (0.05, 0.07, 0.75, 0.26), figures, rng, lines=2)
    price(sheet, (0.42, 0.33, 0.97, 0.92), figures, rng)
    barcode(sheet, (0.05, 0.5, 0.36, 0.9), rng)


def bag(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Pillow bag of crisps: serrated ends, bulging sides, a diagonal swoosh under a star."""
    teeth = 18
    top = [(0.03 + 0.94 * i / teeth, 0.0 if i % 2 else 0.018) for i in range(teeth + 1)]
    bottom = [(0.97 - 0.94 * i / teeth, 1.0 if i % 2 else 0.982) for i in range(teeth + 1)]
    right = [(0.955 + 0.045 * math.sin(math.pi * t), 0.04 + 0.92 * t) for t in LINEAR]
    sheet.cut([*top, *right, *bottom, *[(1 - x, y) for x, y in reversed(right)]])
    lean = rng.uniform(0.12, 0.2)
    sheet.polygon(((0, 0.5 + lean), (1, 0.5 - lean), (1, 0.74 - lean), (0, 0.78 + lean)), ink.accent)
    star = [(0.5 + (0.34, 0.22)[i % 2] * math.cos(i * math.pi / 10), i) for i in range(20)]
    y = rng.uniform(0.28, 0.33)
    reach = sheet.width / sheet.height
    points = [(x, y + reach * (0.34, 0.22)[i % 2] * math.sin(i * math.pi / 10)) for x, i in star]
    sheet.polygon(points, ink.paper)
    word(sheet, (0.27, y - 0.05, 0.73, y + 0.05), ink.ink, rng)
    for x, y in rng.uniform((0.15, 0.76), (0.85, 0.9), (7, 2)).tolist():
        sheet.ellipse((x - 0.08, y - 0.035, x + 0.08, y + 0.035), shade(ink.paper, 0.85))
    for y in (0.025, 0.045, 0.955, 0.975):
        sheet.line(((0, y), (1, y)), shade(ink.base, 0.7), 0.008)


def tube(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Tube standing on its cap: flat crimp above, title from top to bottom, three rings below."""
    half: list[Point] = [(0.5, 0), (0.49, 0.1), (0.42, 0.78), (0.26, 0.84), (0.26, 0.85)]
    sheet.cut(_mirrored([*half, (0.31, 0.86), (0.34, 1.0)]))
    for y in (0.02, 0.04, 0.06):
        sheet.line(((0, y), (1, y)), shade(ink.base, 0.6), 0.025)
    standing_word(sheet, (0.33, 0.12, 0.67, rng.uniform(0.54, 0.6)), ink.paper, rng)
    for y in (0.64, 0.69, 0.74):
        sheet.area((0, y, 1, y + 0.028), ink.accent)
    sheet.area((0, 0.845, 1, 1), ink.paper)
    for x in np.linspace(0.2, 0.8, 8).tolist():
        sheet.line(((x, 0.87), (x, 1)), shade(ink.paper, 0.7), 0.02)


def gable_carton(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Milk carton: fin and sloping roof, a drop above a field of waves."""
    roof = rng.uniform(0.2, 0.25)
    sheet.cut(((0.1, 0), (0.9, 0), (0.9, 0.07), (1, roof), (1, 1), (0, 1), (0, roof), (0.1, 0.07)))
    sheet.area((0, 0, 1, 0.07), shade(ink.paper, 0.9))
    sheet.polygon(((0.1, 0.07), (0.9, 0.07), (1, roof), (0, roof)), ink.accent)
    sheet.polygon(((0.3, 0.07), (0.7, 0.07), (0.5, roof)), shade(ink.accent, 0.75))
    sheet.area((0, roof, 1, 1), ink.paper)
    wave = [(x, 0.66 + 0.03 * math.sin(9 * x)) for x in LINEAR]
    sheet.polygon([*wave, (1, 1), (0, 1)], ink.base)
    word(sheet, (0.12, roof + 0.05, 0.78, roof + 0.13), ink.ink, rng)
    sheet.polygon(((0.45, roof + 0.17), (0.6, 0.56), (0.3, 0.56)), ink.base)
    sheet.disc((0.45, 0.56), 0.16, ink.base)
    sheet.polygon(((0.87, roof), (1, roof), (1, 1), (0.87, 1)), shade(ink.base, 0.6))


def tin(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Flat fish tin: rounded, metal rims, a pull ring, three diamonds in a row."""
    sheet.cut_ellipse((0, 0, 0.24, 1))
    sheet.cut_ellipse((0.76, 0, 1, 1))
    sheet.cut(((0.12, 0), (0.88, 0), (0.88, 1), (0.12, 1)))
    sheet.area((0, 0, 1, 0.24), METAL)
    sheet.area((0, 0.24, 1, 0.3), METAL_DARK)
    sheet.ellipse((0.4, 0.03, 0.62, 0.21), METAL_DARK)
    sheet.ellipse((0.45, 0.08, 0.57, 0.17), METAL)
    y = rng.uniform(0.56, 0.62)
    for x in (0.22, 0.5, 0.78):
        sheet.polygon(((x, y - 0.22), (x + 0.11, y), (x, y + 0.22), (x - 0.11, y)), ink.paper)
        sheet.polygon(((x, y - 0.11), (x + 0.055, y), (x, y + 0.11), (x - 0.055, y)), ink.accent)
    sheet.area((0, 0.9, 1, 1), METAL)


def spray(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Cleaner with a trigger: nozzle and lever to one side, waisted body, shield-shaped label."""
    sheet.cut(((0.02, 0.02), (0.7, 0), (0.74, 0.1), (0.62, 0.13), (0.62, 0.2), (0.4, 0.2), (0.4, 0.13)))
    sheet.cut(((0.02, 0.02), (0.4, 0.13), (0.05, 0.08)))
    sheet.cut(((0.3, 0.1), (0.4, 0.1), (0.24, 0.24), (0.16, 0.22)))
    body: list[Point] = [(0.13, 0.19), (0.14, 0.24), (0.46, 0.36), (0.42, 0.58), (0.5, 0.78)]
    sheet.cut(_mirrored([*body, (0.5, 0.96), (0.46, 1.0)]))
    sheet.area((0, 0, 1, 0.2), ink.accent)
    sheet.area((0, 0.17, 1, 0.2), shade(ink.accent, 0.6))
    y = rng.uniform(0.4, 0.44)
    shield = ((0.16, y), (0.84, y), (0.84, 0.72), (0.5, 0.93), (0.16, 0.72))
    sheet.polygon(shield, ink.paper)
    word(sheet, (0.24, y + 0.05, 0.76, y + 0.14), ink.ink, rng)
    sheet.polygon(((0.5, y + 0.2), (0.7, 0.76), (0.3, 0.76)), ink.accent)


def bar(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Chocolate bar lying on its edge: serrated ends, slanted stripes beside a large title."""
    teeth = 8
    left = [(0.0 if i % 2 else 0.025, i / teeth) for i in range(teeth, -1, -1)]
    sheet.cut([*left, *[(1 - x, y) for x, y in reversed(left)]])
    for start in (0.05, 0.11, 0.17, 0.73, 0.79, 0.85):
        sheet.polygon(((start + 0.06, 0), (start + 0.09, 0), (start + 0.04, 1), (start + 0.01, 1)), ink.accent)
    top = rng.uniform(0.2, 0.28)
    word(sheet, (0.28, top, 0.72, top + 0.42), ink.paper, rng)
    small_print(sheet, (0.3, 0.8, 0.66, 0.92), shade(ink.paper, 0.85), rng, lines=1)
    for x in (0.035, 0.965):
        sheet.line(((x, 0), (x, 1)), shade(ink.base, 0.6), 0.05)


def cup(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Yoghurt cup: narrower below, overhanging foil lid with a tab, fruit under the title."""
    taper = rng.uniform(0.1, 0.15)
    sheet.cut(((0.04, 0.08), (0.96, 0.08), (1 - taper, 1), (taper, 1)))
    sheet.cut(((0, 0), (1, 0), (1, 0.1), (0, 0.1)))
    sheet.cut(((0.72, 0.08), (0.92, 0.08), (0.86, 0.19), (0.76, 0.19)))
    word(sheet, (0.2, 0.25, 0.8, 0.44), ink.paper, rng)
    for x, y in ((0.35, 0.68), (0.65, 0.68), (0.5, 0.8)):
        sheet.disc((x, y), 0.15, ink.accent)
        sheet.disc((x - 0.05, y - 0.05), 0.05, shade(ink.accent, 1.5))
    sheet.polygon(((0.72, 0.08), (0.92, 0.08), (0.86, 0.19), (0.76, 0.19)), shade(ink.paper, 0.8))
    sheet.area((0, 0, 1, 0.1), shade(ink.paper, 0.95))
    sheet.area((0, 0.075, 1, 0.1), shade(ink.paper, 0.6))


def multipack(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Wide carrier: a handle slot, a window showing six round lids, title at the left."""
    sheet.cut(((0.04, 0), (0.96, 0), (1, 0.12), (1, 1), (0, 1), (0, 0.12)))
    sheet.area((0.38, 0.06, 0.62, 0.12), (22, 22, 24))
    left = rng.uniform(0.4, 0.44)
    sheet.area((left, 0.24, 0.95, 0.9), (40, 40, 44))
    for row in (0.4, 0.73):
        for x in np.linspace(left + 0.1, 0.86, 3).tolist():
            sheet.disc((x, row), 0.14, METAL)
            sheet.disc((x, row), 0.09, ink.accent)
    word(sheet, (0.06, 0.34, left - 0.04, 0.54), ink.paper, rng)
    small_print(sheet, (0.06, 0.66, left - 0.06, 0.88), ink.paper, rng, lines=3)


def jug(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Washing liquid: off-centre cap, a handle with a hole, a round label."""
    sheet.cut(((0.14, 0), (0.42, 0), (0.42, 0.14), (0.14, 0.14)))
    sheet.cut(((0.18, 0.1), (0.38, 0.1), (0.5, 0.17), (0.9, 0.19), (1, 0.3), (1, 0.97), (0.94, 1), (0.06, 1)))
    sheet.cut(((0.18, 0.1), (0.06, 1), (0, 0.96), (0, 0.28)))
    sheet.cut(((0.62, 0.28), (0.82, 0.3), (0.86, 0.36), (0.86, 0.56), (0.7, 0.44)), inside=False)
    sheet.area((0, 0, 0.44, 0.13), ink.accent)
    y = rng.uniform(0.64, 0.68)
    sheet.disc((0.44, y), 0.34, ink.paper)
    sheet.disc((0.44, y), 0.28, ink.accent)
    word(sheet, (0.24, y - 0.06, 0.64, y + 0.06), ink.paper, rng)


def eggs(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Egg box: five domes above, scalloped tray below, a paper label in the middle."""
    sheet.cut(((0.02, 0.25), (0.98, 0.25), (1, 0.5), (0.96, 0.9), (0.04, 0.9), (0, 0.5)))
    for x in np.linspace(0.02, 0.79, 5).tolist():
        sheet.cut_ellipse((x, 0, x + 0.19, 0.6))
        sheet.cut_ellipse((x + 0.02, 0.7, x + 0.17, 1.0))
        sheet.ellipse((x, 0, x + 0.19, 0.6), shade(ink.base, 1.12))
    sheet.area((0, 0.5, 1, 0.56), shade(ink.base, 0.55))
    left = rng.uniform(0.24, 0.3)
    sheet.area((left, 0.14, left + 0.45, 0.86), ink.paper)
    word(sheet, (left + 0.05, 0.24, left + 0.4, 0.46), ink.accent, rng)
    small_print(sheet, (left + 0.06, 0.6, left + 0.39, 0.8), ink.ink, rng, lines=2)


def roll(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Kitchen roll on its end: spiral seen from above, a lattice all over, a collar below."""
    sheet.cut(((0, 0.08), (1, 0.08), (1, 0.94), (0, 0.94)))
    sheet.cut_ellipse((0, 0, 1, 0.16))
    sheet.cut_ellipse((0, 0.88, 1, 1))
    sheet.area((0, 0, 1, 1), ink.paper)
    for start in np.linspace(-0.8, 1.0, 7).tolist():
        sheet.line(((start, 0.08), (start + 0.8, 1)), ink.accent, 0.02)
        sheet.line(((start + 0.8, 0.08), (start, 1)), ink.accent, 0.02)
    top = rng.uniform(0.6, 0.64)
    sheet.area((0, top, 1, top + 0.2), ink.base)
    word(sheet, (0.2, top + 0.05, 0.8, top + 0.15), ink.paper, rng)
    sheet.ellipse((0, 0, 1, 0.16), shade(ink.paper, 0.95))
    for inset in (0.12, 0.24, 0.36):
        sheet.ellipse((inset, 0.16 * inset, 1 - inset, 0.16 * (1 - inset)), shade(ink.paper, 0.85 - inset))


def pouch(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Stand-up pouch: spout in one corner, swelling foot, a round window showing the contents."""
    foot = [(0.93 + 0.07 * math.sin(math.pi * t), 0.55 + 0.4 * t) for t in LINEAR]
    sheet.cut(((0.07, 0.07), (0.6, 0.07), (0.93, 0.22), *foot, (0.85, 1), (0.15, 1), *_flipped(foot)))
    sheet.cut(((0.66, 0.02), (0.8, 0), (0.95, 0.1), (0.93, 0.2), (0.75, 0.16)))
    sheet.polygon(((0.62, 0.0), (0.95, 0.0), (1, 0.12), (0.9, 0.17), (0.68, 0.09)), ink.accent)
    sheet.line(((0, 0.12), (0.7, 0.12)), shade(ink.base, 0.65), 0.015)
    word(sheet, (0.15, 0.2, 0.72, 0.33), ink.paper, rng)
    y = rng.uniform(0.63, 0.67)
    sheet.disc((0.5, y), 0.3, (58, 52, 46))
    for angle in np.linspace(0, 2 * math.pi, 9).tolist():
        sheet.disc((0.5 + 0.18 * math.cos(angle), y + 0.12 * math.sin(angle)), 0.08, ink.accent)
    small_print(sheet, (0.2, 0.9, 0.8, 0.96), ink.ink, rng, lines=1)


def stick(sheet: Sheet, ink: Palette, rng: np.random.Generator) -> None:
    """Deodorant: domed cap of another colour, a line down the body, a small ring."""
    split = rng.uniform(0.36, 0.42)
    half = [(0.46 * math.sin(t * math.pi / 2), 0.22 * (1 - math.cos(t * math.pi / 2))) for t in LINEAR]
    sheet.cut(_mirrored([*half, (0.46, split), (0.5, split), (0.5, 1)]))
    sheet.area((0, 0, 1, split), ink.accent)
    sheet.area((0, split, 1, split + 0.02), shade(ink.base, 0.5))
    sheet.area((0.16, split + 0.06, 0.26, 0.96), ink.paper)
    sheet.disc((0.62, split + 0.2), 0.22, ink.paper)
    sheet.disc((0.62, split + 0.2), 0.13, ink.base)
    small_print(sheet, (0.36, 0.78, 0.88, 0.93), ink.ink, rng, lines=3)


LINEAR: list[float] = np.linspace(0, 1, 13).tolist()


def _mirrored(half: list[Point]) -> list[Point]:
    """A silhouette symmetric about x = 0.5, from (distance to the axis, y) points of its right side."""
    return [(0.5 + x, y) for x, y in half] + [(0.5 - x, y) for x, y in reversed(half)]


def _flipped(side: list[Point]) -> list[Point]:
    return [(1 - x, y) for x, y in reversed(side)]
