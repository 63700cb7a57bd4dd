"""The answer of a run: the effect of every axis, interaction and control on every figure, with its interval.

With several finished seeds an effect is measured once in each, and Student's t speaks of training again on
this data. With one seed the images are resampled, and the interval speaks of these trained models alone.
What the clock measured has no images to resample: with one seed it is given without an interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.analysis.bootstrap import FEWEST_IMAGES, Figure, Resampled, paired_interval, resample
from bench.analysis.factorial import Contrast, contrasts_of
from bench.analysis.run_records import Run, cells_frame, classes_frame
from bench.analysis.statistics import LEVEL, Interval, holm, seeds_needed, student
from bench.data.subsets import SIZES

ACCURACY = ("AP", "AP50", "AP75", *(f"AP_{size}{at}" for at in ("", "_network") for size in SIZES))
CLOCK = {"images_per_second": ("speed.images_per_second", "images/s"), "train_seconds": ("cost.train_seconds", "s")}

COLUMNS = (
    *("contrast", "kind", "measure", "class", "unit", "effect", "low", "high", "p", "p_holm"),
    *("method", "n", "n_of", "verdict", "exploratory", "seeds_needed"),
)
STUDENT = "Student's t over seeds"
BOOTSTRAP = "paired bootstrap over images"
NO_CLAIM = "no claim"
THESE_MODELS = "these models: "

Trained = tuple[str, int]  # variant, seed


def effects_frame(run: Run) -> pd.DataFrame:
    """A row per figure and contrast: AP first, then the other figures, AP of each class, and the clock.

    contrast, kind ("main effect", "interaction", "control"), measure, class ("": all), unit;
    effect, low, high (95%), p, p_holm (main effects of AP, adjusted for all of them; NaN elsewhere);
    method, or why there is no interval; n and n_of ("seeds" or "images");
    verdict: "higher" or "lower" where the interval, and p_holm where there is one, leave zero out, after one
        seed as "these models: higher"; "no claim" elsewhere, "" without an interval;
    exploratory: False for the main effects of AP alone, which were the question;
    seeds_needed: to find a difference of the size seen in 80% of runs, by the spread of the seeds; None with
        one seed, and where it would be more than a thousand.
    Figures that do not exist are NaN or None. A contrast needs all of its variants, in the same seed.

    Raises UserError as `bench.analysis.bootstrap.resample` does.
    """
    contrasts = contrasts_of(run)
    answers = [
        _Answer.of(run, figure, contrast, values) for figure, values in _figures(run).items() for contrast in contrasts
    ]
    ids = {(cell.variant, cell.seed): cell.id for cell in run.cells}
    alone = {ids[trained] for answer in answers for trained in answer.to_resample}
    resampled = resample(run, sorted(alone))
    frame = pd.DataFrame([answer.row(resampled, ids) for answer in answers], columns=list(COLUMNS))
    primary = ~frame["exploratory"].astype(bool)
    frame.loc[primary, "p_holm"] = holm(frame.loc[primary, "p"].astype(float).tolist())
    frame.loc[primary & frame["p_holm"].ge(LEVEL), "verdict"] = NO_CLAIM
    return frame


@dataclass(frozen=True, kw_only=True, eq=False)
class _Answer:
    """One contrast of one figure. effects: by seed, of those in which every variant of it has the figure."""

    figure: Figure
    contrast: Contrast
    effects: Mapping[int, float]
    missing: tuple[Trained, ...]

    @classmethod
    def of(cls, run: Run, figure: Figure, contrast: Contrast, values: Mapping[Trained, float]) -> _Answer:
        places = {name: place for place, name in enumerate(run.variants)}
        needed = sorted(contrast.variants, key=lambda name: places.get(name, len(places)))
        lacking = {seed: [name for name in needed if (name, seed) not in values] for seed in run.seeds}
        return cls(
            figure=figure,
            contrast=contrast,
            effects={
                seed: float(contrast.value({name: values[name, seed] for name in contrast.variants}))
                for seed, names in lacking.items()
                if not names
            },
            missing=tuple((name, seed) for seed, names in lacking.items() for name in names),
        )

    @property
    def to_resample(self) -> tuple[Trained, ...]:
        """The cells whose images speak for the effect: where one seed is all there is."""
        if len(self.effects) != 1 or self.figure[0] in CLOCK:
            return ()
        return tuple((name, seed) for seed in self.effects for name in self.contrast.variants)

    def row(self, resampled: Resampled, ids: Mapping[Trained, str]) -> dict[str, object]:
        """The row of `effects_frame`, `p_holm` still to come."""
        measure, name = self.figure
        effect = float(np.mean(list(self.effects.values()))) if self.effects else math.nan
        interval, method, n = self._interval(effect, resampled, ids)
        several = len(self.effects) > 1
        return {
            "contrast": self.contrast.name,
            "kind": self.contrast.kind,
            "measure": measure,
            "class": name,
            "unit": CLOCK[measure][1] if measure in CLOCK else "fraction of 1",
            "effect": effect,
            "low": interval.low if interval else math.nan,
            "high": interval.high if interval else math.nan,
            "p": interval.p if interval else math.nan,
            "p_holm": math.nan,
            "method": method,
            "n": n,
            "n_of": "images" if method == BOOTSTRAP else "seeds",
            "verdict": _verdict(interval, effect, several=several),
            "exploratory": (measure, name, self.contrast.kind) != ("AP", "", "main effect"),
            "seeds_needed": seeds_needed(effect, float(np.std(list(self.effects.values()), ddof=1)))
            if several
            else None,
        }

    def _interval(
        self, effect: float, resampled: Resampled, ids: Mapping[Trained, str]
    ) -> tuple[Interval | None, str, int]:
        """The interval where there can be one; the method, or why not; the number of seeds or images."""
        seeds = len(self.effects)
        if not seeds:
            return None, f"none: missing {', '.join(f'{name} (seed {seed})' for name, seed in self.missing)}", 0
        if seeds > 1:
            return student(list(self.effects.values())), STUDENT, seeds
        if self.figure[0] in CLOCK:
            return None, "none: by the clock, one seed", seeds
        cells = {name: ids[name, seed] for name, seed in self.to_resample}
        lost = set(cells.values()) - resampled.replicates.keys()
        without = [name for (name, _), cell_id in ids.items() if cell_id in lost]
        if without:
            return None, f"none: no matches.npz of {', '.join(without)}", seeds
        images = resampled.support.get(self.figure, 0)
        if images < FEWEST_IMAGES:
            return None, f"none: ground truths in {images} images, {FEWEST_IMAGES} are needed", seeds
        replicates = self.contrast.value(
            {name: resampled.replicates[cell_id][self.figure] for name, cell_id in cells.items()}
        )
        return paired_interval(effect, replicates, images), BOOTSTRAP, images


def _verdict(interval: Interval | None, effect: float, *, several: bool) -> str:
    if interval is None:
        return ""
    if not interval.tells:
        return NO_CLAIM
    return ("" if several else THESE_MODELS) + ("higher" if effect > 0 else "lower")


def _figures(run: Run) -> dict[Figure, dict[Trained, float]]:
    """Every figure that some finished cell has, by variant and seed; AP also where none has."""
    cells, classes = cells_frame(run), classes_frame(run)
    accuracy = {(measure, ""): f"accuracy.{measure}" for measure in ACCURACY}
    clock = {(measure, ""): path for measure, (path, _) in CLOCK.items()}
    found = {figure: _by_cell(cells, path) for figure, path in accuracy.items()}
    found |= {("AP", str(name)): _by_cell(rows, "AP") for name, rows in classes.groupby("class", sort=False)}
    found |= {figure: _by_cell(cells, path) for figure, path in clock.items()}
    return {figure: values for figure, values in found.items() if values or figure == ("AP", "")}


def _by_cell(frame: pd.DataFrame, column: str) -> dict[Trained, float]:
    if column not in frame:
        return {}
    rows = frame.dropna(subset=column)
    return dict(zip(zip(rows["variant"], rows["seed"], strict=True), rows[column].astype(float), strict=True))
