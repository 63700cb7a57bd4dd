"""The shop around the goods: wall, rack, boards, lights, posters, storage and shadows; none of them is an object."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from bench.data.scenes.marks import Box, Colour, Palette, Sheet, draw_palette, shade, small_print, word
from bench.data.scenes.shelf import Arrangement
from bench.data.scenes.stock import LIP, RAIL, Facing, Screen

Floats = NDArray[np.float32]


def paint_room(scene: Arrangement, rng: np.random.Generator) -> Image.Image:
    """RGB canvas with everything behind the goods, including their shadows."""
    ground = _wall_and_floor(scene, rng)
    _back_panels(ground, scene, rng)
    room = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8))
    _uprights_and_poster(room, scene, rng)
    _boards(room, scene, rng)
    for row in scene.rows:
        for box in row.storage:
            _paste_at(room, _stored(box, rng), box)
    shadow = np.asarray(_shadows(scene), dtype=np.float32)[..., None] / 255
    return Image.fromarray((np.asarray(room, dtype=np.float32) * shadow).astype(np.uint8))


def screen_texture(screen: Screen) -> Image.Image:
    """RGBA image of a hanging sign or the lip of a cardboard tray, as large as its box."""
    rng, ink = np.random.default_rng(screen.seed), screen.palette
    width, height = _extent(screen.box)
    sheet = Sheet(2 * width, 2 * height, ink.paper if screen.kind == "sign" else ink.base)
    if screen.kind == "sign":
        sheet.cut(((0.03, 0), (0.97, 0), (1, 0.05), (1, 0.95), (0.95, 1), (0.05, 1), (0, 0.95), (0, 0.05)))
        sheet.area((0, 0, 1, 0.3), ink.accent)
        word(sheet, (0.1, 0.08, 0.9, 0.22), ink.paper, rng)
        small_print(sheet, (0.12, 0.42, 0.88, 0.9), shade(ink.ink, 2.0), rng, lines=4)
    else:
        sheet.cut(((0, 0), (0.06, 0.25), (0.94, 0.25), (1, 0), (1, 1), (0, 1)))
        sheet.area((0, 0.9, 1, 1), shade(ink.base, 0.7))
        small_print(sheet, (0.1, 0.5, 0.9, 0.75), shade(ink.base, 0.75), rng, lines=1)
    picture = sheet.colour.copy()
    picture.putalpha(sheet.mask)
    return picture.resize((width, height), Image.Resampling.BOX)


def _wall_and_floor(scene: Arrangement, rng: np.random.Generator) -> Floats:
    """A plain, boarded or tiled wall, and the floor if visible below the lowest row."""
    wall = np.asarray(_muted(rng, 120, 215), dtype=np.float32)
    down = np.linspace(rng.uniform(0.9, 1.1), rng.uniform(0.65, 0.9), scene.height, dtype=np.float32)
    across = np.linspace(rng.uniform(0.85, 1.05), rng.uniform(0.85, 1.05), scene.width, dtype=np.float32)
    light = down[:, None] * across
    style, pitch = rng.integers(3), max(6, round(rng.uniform(9, 15) * scene.unit))
    if style:
        light[:, ::pitch] *= 0.82
    if style == 2:
        light[:: max(6, pitch // 2)] *= 0.86
    ground = light[..., None] * wall
    foot = round(scene.rows[0].base + (LIP + RAIL + 9) * scene.unit)
    if foot < scene.height:
        floor = np.asarray(_muted(rng, 80, 170), dtype=np.float32)
        fade = np.linspace(0.6, 1.05, scene.height - foot, dtype=np.float32)
        ground[foot:] = fade[:, None, None] * floor
        ground[foot : foot + max(1, round(0.4 * scene.unit))] *= 0.5
    return ground


def _back_panels(ground: Floats, scene: Arrangement, rng: np.random.Generator) -> None:
    """The back of each compartment: dark under the board above, lighter below, darker towards the sides."""
    panel = np.asarray(_muted(rng, 90, 205), dtype=np.float32)
    left, right = max(0, round(scene.left)), min(scene.width, round(scene.right))
    x = np.linspace(-1, 1, right - left, dtype=np.float32)
    across = 1 - 0.12 * x**4
    holes = rng.random() < 0.35
    pitch = max(5, round(2.5 * scene.unit))
    highest = scene.rows[-1]
    for row in scene.rows:
        top = row.top if row is not highest else max(row.top, -scene.height)
        rows = np.arange(max(0, round(top)), min(scene.height, round(row.base)))
        if not len(rows):
            continue
        depth = (rows - top).astype(np.float32) / scene.unit
        down = 0.82 - 0.42 * np.exp(-depth / 4.5) - 0.12 * np.exp(-(row.base - rows) / scene.unit / 3)
        block = (down[:, None] * across)[..., None] * panel
        if holes:
            block[pitch // 2 :: pitch, pitch // 2 :: pitch] *= 0.6
        ground[rows[0] : rows[-1] + 1, left:right] = block


def _boards(room: Image.Image, scene: Arrangement, rng: np.random.Generator) -> None:
    """The shelf of each row: its upper side, and the front edge with the price rail."""
    pen = ImageDraw.Draw(room)
    unit, left, right = scene.unit, scene.left, scene.right
    board = _muted(rng, 120, 225)
    rail = _muted(rng, 130, 235) if rng.random() < 0.6 else draw_palette(rng).base
    top = scene.rows[-1].top
    for edge in [row.base + LIP * unit for row in scene.rows] + [top - RAIL * unit]:
        if edge < scene.rows[-1].base - 1:
            # The top board is seen from below, so its upper side is hidden.
            pen.rectangle((left, edge, right, edge + RAIL * unit), fill=shade(rail, 0.92))
        else:
            steps = max(2, round((LIP + 2.2) * unit))
            for step in range(steps):
                y = edge - step
                inset = 0.35 * step * (1 if left > 0 else 0)
                pen.line((left + inset, y, right - inset, y), fill=shade(board, 1.0 - 0.45 * step / steps))
            pen.rectangle((left, edge, right, edge + RAIL * unit), fill=rail)
        thin = max(1, round(0.25 * unit))
        pen.rectangle((left, edge, right, edge + thin), fill=shade(rail, 1.25))
        pen.rectangle((left, edge + 0.55 * unit, right, edge + 0.55 * unit + thin / 2), fill=shade(rail, 0.8))
        low = edge + RAIL * unit
        pen.rectangle((left, low - 2 * thin, right, low), fill=shade(rail, 0.72))
    foot = scene.rows[0].base + (LIP + RAIL) * unit
    pen.rectangle((left, foot, right, foot + 9 * unit), fill=shade(board, 0.42))


def _uprights_and_poster(room: Image.Image, scene: Arrangement, rng: np.random.Generator) -> None:
    """Slotted metal posts beside and in the rack; above it, if there is room, a poster and a lamp."""
    pen = ImageDraw.Draw(room)
    unit = scene.unit
    metal = _muted(rng, 90, 200)
    ceiling = scene.rows[-1].top - RAIL * unit
    posts = [scene.left - 1.2 * unit, scene.right - 0.8 * unit]
    posts += [scene.left + at * unit for at in (rng.uniform(28, 50), rng.uniform(70, 95))]
    for x in posts:
        pen.rectangle((x, ceiling - 2 * unit, x + 2 * unit, scene.height), fill=shade(metal, 0.8))
        pen.rectangle((x, ceiling - 2 * unit, x + 0.5 * unit, scene.height), fill=metal)
        for y in np.arange(max(0.0, ceiling), scene.height, 3.2 * unit).tolist():
            pen.rectangle((x + 0.9 * unit, y, x + 1.2 * unit, y + 1.4 * unit), fill=shade(metal, 0.45))
    if ceiling > 14 * unit:
        tall = ceiling - 3 * unit
        across = tall * rng.uniform(0.9, 2.0)
        x = rng.uniform(0, max(1.0, scene.width - across))
        box = (x, ceiling - 2 * unit - tall * rng.uniform(0.6, 0.9), x + across, ceiling - 2.5 * unit)
        _paste_at(room, screen_texture(Screen(kind="sign", box=box, palette=draw_palette(rng), seed=1)), box)
    if ceiling > 4 * unit and rng.random() < 0.6:
        y = rng.uniform(0.2, 0.6) * ceiling
        pen.rectangle((scene.left + 4 * unit, y, scene.right - 4 * unit, y + 1.6 * unit), fill=(252, 250, 240))


def _stored(box: Box, rng: np.random.Generator) -> Image.Image:
    """RGBA image of storage, which is not an object: wire basket, plain boxes, or folded cloth."""
    width, height = _extent(box)
    ink: Palette = draw_palette(rng)
    kind = rng.integers(3)
    cloth = shade(ink.base if kind else ink.paper, 0.8)
    sheet = Sheet(2 * width, 2 * height, shade(cloth, 0.7))
    if kind == 0:
        sheet.cut(((0, 0.1), (1, 0.1), (0.94, 1), (0.06, 1)))
        wire = _muted(rng, 70, 190)
        for x in np.linspace(0.02, 0.98, 14).tolist():
            sheet.line(((x, 0.1), (0.06 + 0.88 * x, 1)), wire, 0.025)
        for y in (0.13, 0.4, 0.7, 0.97):
            sheet.line(((0, y), (1, y)), wire, 0.045)
    elif kind == 1:
        sheet.cut(((0, 0), (1, 0), (1, 1), (0, 1)))
        brown = shade((176, 138, 96), rng.uniform(0.6, 1.05))
        count = max(1, round(width / height / rng.uniform(0.8, 1.4)))
        for place in range(count):
            x0, x1 = place / count, (place + 1) / count
            sheet.area((x0, 0, x1, 1), shade(brown, rng.uniform(0.9, 1.05)))
            sheet.area((x0, 0.45, x1, 0.53), shade(brown, 0.88))
            sheet.area((x1 - 0.012, 0, x1, 1), shade(brown, 0.55))
    else:
        folds = max(3, min(9, round(8 * height / width)))
        sheet.cut(((0.01, 0), (0.99, 0), (1, 1), (0, 1)))
        for fold in range(folds):
            y = fold / folds
            tone = shade(cloth, rng.uniform(0.8, 1.15))
            sheet.area((rng.uniform(0, 0.03), y, rng.uniform(0.97, 1), y + 0.78 / folds), tone)
            sheet.area((0, y, 1, y + 0.2 / folds), shade(tone, 1.15))
    picture = sheet.colour.copy()
    picture.putalpha(sheet.mask)
    return picture.resize((width, height), Image.Resampling.BOX)


def _shadows(scene: Arrangement) -> Image.Image:
    """L canvas of the shadows below and behind the goods; 255 is no shadow."""
    # Shadows are soft, so half the resolution is enough at a quarter of the cost.
    layer = Image.new("L", (scene.width // 2, scene.height // 2), 255)
    pen = ImageDraw.Draw(layer)
    unit = scene.unit / 2
    for row in scene.rows:
        for x0, y0, x1, y1 in [*row.storage, *(_box(facing) for facing in row.facings)]:
            a, b, c, d = x0 / 2, y0 / 2, x1 / 2, y1 / 2
            pen.rectangle((a + 0.2 * unit, b + 0.6 * unit, c + 1.3 * unit, d), fill=165)
    for row in scene.rows:
        grounded = [_box(facing) for facing in row.facings if facing.contact] + list(row.storage)
        for x0, _, x1, y1 in grounded:
            a, c, d = x0 / 2, x1 / 2, y1 / 2
            pen.ellipse((a - 0.5 * unit, d - 0.7 * unit, c + 0.9 * unit, d + 0.75 * unit), fill=85)
        foot = (row.base + (LIP + RAIL) * scene.unit) / 2
        pen.rectangle((scene.left / 2, foot, scene.right / 2, foot + 0.8 * unit), fill=120)
    soft = layer.filter(ImageFilter.BoxBlur(max(0.6, 0.7 * unit)))
    return soft.resize((scene.width, scene.height), Image.Resampling.BILINEAR)


def _box(facing: Facing) -> Box:
    product = facing.product
    tall = product.height * facing.scale
    return facing.x, facing.base - tall, facing.x + product.width * facing.scale, facing.base


def _extent(box: Box) -> tuple[int, int]:
    return max(4, round(box[2] - box[0])), max(4, round(box[3] - box[1]))


def _paste_at(room: Image.Image, picture: Image.Image, box: Box) -> None:
    room.paste(picture, (round(box[0]), round(box[1])), picture)


def _muted(rng: np.random.Generator, darkest: float, lightest: float) -> Colour:
    """A colour of walls and shelves: nearly grey, or wood."""
    grey, wood = rng.uniform(darkest, lightest), rng.random() < 0.25
    tints = rng.normal((1.08, 0.93, 0.74) if wood else 1.0, 0.04, 3)
    red, green, blue = (int(np.clip(grey * tint, 0, 255)) for tint in tints.tolist())
    return red, green, blue
