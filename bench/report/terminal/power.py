"""Which differences a planned matrix would find, in the terminal: ``--plan``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from rich.console import Console
from rich.text import Text

from bench.analysis.power import (
    MOST_SEEDS,
    SEEDS_TO_SPEND,
    Family,
    Variances,
    against_baseline,
    images_for,
    images_forbid,
    main_effects,
    seeds_for,
    smallest_difference,
)
from bench.report.tables.formats import MISSING, percent, two_digits
from bench.report.terminal.tables import rich_table

SEEDS = (1, 2, 3, 5, 10)
MANY_SEEDS = (SEEDS_TO_SPEND, 20, 50, MOST_SEEDS)  # tried in turn for the images that a difference needs


def print_power(
    console: Console, variances: Variances, *, arms: int, axes: int, seeds: int, worth: float, images: int
) -> None:
    """Print the smallest differences that 1, 2, 3, 5, 10 and `seeds` seeds would find, and what `worth` needs.

    arms: variants of the matrix. axes: their number. worth: fraction of 1 of AP. images: for validation.
    """
    if arms < 2:
        console.print(Text("\nOne variant: there is nothing to compare it with."))
        return
    variances = variances.for_images(max(2, images))
    families = _families(arms, axes, variances)
    table = rich_table()
    for heading in ("seeds", *families):
        table.add_column(Text(heading), justify="right")
    for number in sorted({*SEEDS, seeds}):
        row = [smallest_difference(family, seeds=number) for family in families.values()]
        cells = [f"{number}{' (requested)' if number == seeds else ''}", *map(_percent, row)]
        table.add_row(*(Text(cell, style="bold" if number == seeds else "") for cell in cells))
    console.print(Text("\nSmallest true difference in AP points that is found with 80% power"))
    console.print(table)
    lines = [needed(name, worth, family) for name, family in families.items()]
    lines += _notes(families, variances)
    for line in lines:
        console.print(Text(line))


def needed(name: str, worth: float, family: Family) -> str:
    """A sentence: the seeds, or the validation images, that a true difference of `worth` (fraction of 1) needs."""
    points = f"{100 * worth:g} {'point' if worth == 0.01 else 'points'}"
    seeds = seeds_for(worth, family)
    if seeds is not None:
        return f"{_capital(name)}: {points} need --seeds {seeds}."
    if not images_forbid(worth, family):
        return f"{_capital(name)}: {points} need more than {MOST_SEEDS} seeds."
    sentence = f"{_capital(name)}: no number of seeds finds {points} on {family.images} validation images"
    for enough in MANY_SEEDS:
        images = images_for(worth, family, seeds=enough)
        if images is not None:
            sentence += f"; {enough} seeds would on about {two_digits(images)}"
            break
    here = seeds_for(worth, replace(family, image_deviation=0.0))
    if here is not None:
        sentence += f". A difference that holds for these images alone needs --seeds {here}"
    return f"{sentence}."


def _families(arms: int, axes: int, variances: Variances) -> Mapping[str, Family]:
    """By the heading of their column. Main effects need every combination of the axes."""
    families = {}
    if arms == 2**axes:
        families["main effects"] = main_effects(axes=axes, variances=variances)
    return families | {"variants against the baseline": against_baseline(arms=arms, variances=variances)}


def _notes(families: Mapping[str, Family], variances: Variances) -> list[str]:
    corrections = []
    for name, family in families.items():
        method = "Holm" if name == "main effects" else "Bonferroni, slightly conservative for max-T"
        corrections.append(f"{name} for {family.tests} {'test' if family.tests == 1 else 'tests'} ({method})")
    notes = [f"Two-sided at 5%, corrected: {'; '.join(corrections)}. One seed says nothing about another training."]
    if "main effects" not in families:
        notes.append("Main effects need every combination of the axes, so this part of the matrix has none.")
    images = [variances.effect_deviation] if "main effects" in families else []
    deviations = " and ".join(percent(each) for each in (*images, variances.arm_deviation))
    notes.append(
        f"Standard deviations {variances.source}: {percent(variances.seed_deviation)} points between trainings of one "
        f"variant; {deviations} points from the choice of {variances.images} validation images."
    )
    return notes


def _percent(difference: float) -> str:
    return MISSING if math.isinf(difference) else percent(difference)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
