"""The rack: its distance, its rows, and how full they are.

Lengths are in pixels of the canvas, which is slightly larger than the image, because the camera crops and tilts it.
`unit` is the number of canvas pixels per centimetre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from bench.data.scenes.knobs import SceneKnobs
from bench.data.scenes.marks import Box
from bench.data.scenes.stock import LIP, NETWORK, RAIL, Facing, Group, Screen, Stock, top_of

MARGIN = 0.08  # of the canvas around the image, as a fraction of the image's side
BUDGET = (14, 25)  # range of the maximum number of objects in an image, drawn uniformly

# Pixels per centimetre at 300 for near and far images; and, for values of the knob `small`, the share of far images
# that gives this share of small objects (measured with the other knobs at their defaults).
SHARE_SMALL = (0.0, 0.05, 0.35, 0.6, 0.75, 0.85)
SHARE_FAR = (0.0, 0.0, 0.12, 0.55, 1.0, 1.0)
FARTHEST = 1.95
NEAREST_FAR = (2.9, 2.9, 2.9, 2.9, 2.9, 2.0)
FARTHEST_NEAR = (6.2, 4.6, 3.4, 3.4, 3.4, 3.4)
CLOSEST = 8.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One compartment.

    top: lower edge of the board above. base: where the goods stand. facings: in painting order, from back to front.
    tags: on the rail below `base`. storage: places of baskets and boxes, which are not objects.
    """

    top: float
    base: float
    facings: tuple[Facing, ...]
    tags: tuple[Facing, ...]
    screens: tuple[Screen, ...]
    storage: tuple[Box, ...]


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """A rack from `left` to `right` and its rows, the lowest first."""

    width: int
    height: int
    unit: float
    left: float
    right: float
    rows: tuple[Row, ...]


def arrange(knobs: SceneKnobs, rng: np.random.Generator) -> Arrangement:
    """Fill a rack as set by the knobs; the camera points at the centre of the canvas."""
    width, height = (round(side * (1 + 2 * MARGIN)) for side in (knobs.width, knobs.height))
    zoom = _zoom(knobs, rng)
    unit = zoom * math.sqrt(knobs.width * knobs.height) / NETWORK
    left, right = -2.0 * unit, width + 2.0 * unit
    if width > 85 * unit and rng.random() < 0.6:
        span = rng.uniform(0.72, 0.92) * width
        left = rng.uniform(0.04, 0.96) * (width - span)
        right = left + span
    stock = Stock(knobs=knobs, zoom=zoom, unit=unit, left=left, right=right, rng=rng)
    pitch = (RAIL + LIP) * unit
    rows: list[tuple[float, float, list[Group], tuple[Box, ...]]] = []
    first = base = height * rng.uniform(0.6, 0.86)
    most = int(rng.integers(2, 5))
    while base > 0.1 * height and len(rows) < most:
        groups, storage, tall = stock.fill(base)
        rows.append((base - tall, base, groups, storage))
        base = base - tall - pitch
    if rng.random() < 0.75:  # a row below, complete or cut by the image border
        groups, storage, tall = stock.fill(first)
        shift = pitch + tall
        rows.insert(
            0,
            (first + pitch, first + shift, [_moved(group, shift) for group in groups], _down(storage, shift)),
        )
    kept = _within_budget([row[2] for row in rows], (width, height), rng)
    return Arrangement(
        width=width,
        height=height,
        unit=unit,
        left=left,
        right=right,
        rows=tuple(
            Row(
                top=top,
                base=base,
                facings=tuple(facing for group in groups for facing in group.facings),
                tags=tuple(tag for group in groups for tag in group.tags),
                screens=tuple(screen for group in groups for screen in group.screens),
                storage=storage + tuple(freed),
            )
            for (top, base, _, storage), (groups, freed) in zip(rows, kept, strict=True)
        ),
    )


def _zoom(knobs: SceneKnobs, rng: np.random.Generator) -> float:
    """Pixels per centimetre at 300."""
    if knobs.size:
        return knobs.size / 12 * rng.uniform(0.95, 1.05)
    far = rng.random() < np.interp(knobs.small, SHARE_SMALL, SHARE_FAR)
    lowest, highest = (
        (FARTHEST, float(np.interp(knobs.small, SHARE_SMALL, NEAREST_FAR)))
        if far
        else (float(np.interp(knobs.small, SHARE_SMALL, FARTHEST_NEAR)), CLOSEST)
    )
    return math.exp(rng.uniform(math.log(lowest), math.log(highest)))


def _moved(group: Group, shift: float) -> Group:
    return Group(
        facings=[replace(facing, base=facing.base + shift) for facing in group.facings],
        tags=[replace(tag, base=tag.base + shift) for tag in group.tags],
        screens=[replace(screen, box=_down((screen.box,), shift)[0]) for screen in group.screens],
    )


def _down(boxes: tuple[Box, ...], shift: float) -> tuple[Box, ...]:
    return tuple((x0, y0 + shift, x1, y1 + shift) for x0, y0, x1, y1 in boxes)


def _within_budget(
    rows: list[list[Group]], canvas: tuple[int, int], rng: np.random.Generator
) -> list[tuple[list[Group], list[Box]]]:
    """Remove random groups until the number of objects is within the budget.

    Returns for each row the remaining groups, and the boxes where storage replaces removed groups.
    """
    budget = int(rng.integers(BUDGET[0], BUDGET[1] + 1))
    places = [(row, place) for row, groups in enumerate(rows) for place in range(len(groups))]
    total = sum(_in_view(rows[row][place], canvas) for row, place in places)
    gone: set[tuple[int, int]] = set()
    for at in rng.permutation(len(places)).tolist():
        if total <= budget:
            break
        row, place = places[at]
        total -= _in_view(rows[row][place], canvas)
        gone.add(places[at])
    kept: list[tuple[list[Group], list[Box]]] = []
    for row, groups in enumerate(rows):
        stays = [group for place, group in enumerate(groups) if (row, place) not in gone]
        goes = [group for place, group in enumerate(groups) if (row, place) in gone]
        kept.append((stays, [_extent(group) for group in goes if rng.random() < 0.7]))
    return kept


def _extent(group: Group) -> Box:
    """The box of the group's objects, slightly lower than they are."""
    sides = [(facing.x, facing.x + facing.product.width) for facing in group.facings]
    base = max(facing.base for facing in group.facings)
    top = min(top_of(facing) for facing in group.facings)
    return min(left for left, _ in sides), base - 0.8 * (base - top), max(right for _, right in sides), base


def _in_view(group: Group, canvas: tuple[int, int]) -> int:
    """Number of the group's objects with their centre in the image, excluding those at the back."""
    objects = [facing for facing in group.facings if facing.scale == 1] + group.tags
    middles = [(facing.x + facing.product.width / 2, facing.base - facing.product.height / 2) for facing in objects]
    edge_x, edge_y = (side * MARGIN / (1 + 2 * MARGIN) for side in canvas)
    return sum(edge_x < x < canvas[0] - edge_x and edge_y < y < canvas[1] - edge_y for x, y in middles)
