"""Power before training: the smallest difference that a matrix would find, and the seeds or images that one needs.

The AP of a cell is modelled as variant + seed + noise of training, measured on a sample of images, as in
`bench.analysis.components`. A contrast with weights c over the K variants of a matrix, averaged over S seeds, has the
variance

    seed_deviation^2 * sum(c^2) / S + image_deviation^2

The first part has (K - 1)(S - 1) degrees of freedom, the second one less than there are images; Satterthwaite's formula
combines them. The contrast divided by its standard error then follows a noncentral t distribution. Tests are two-sided
at 5% for a whole family: the first step of Holm's method, so alpha / m for m tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from bench.analysis.factorial import Contrast, contrasts_of
from bench.analysis.run_records import Run, worth_of
from bench.analysis.samples import Samples, samples_of
from bench.analysis.statistics import LEVEL
from bench.errors import UserError

POWER = 0.8
SEEDS_TO_SPEND = 10  # for the number of validation images that a difference needs
MOST_SEEDS = 100  # beyond this the answer is "more than"
MOST_IMAGES = 1_000_000
NODES = 200  # of the quadrature; the error of the power is then below 1e-6
POWER_COLUMNS = (
    *("comparison", "tests", "seeds", "smallest_difference", "worth", "seeds_needed"),
    *("seeds_needed_here", "images", "images_needed"),
    *("seed_deviation", "image_deviation", "measured"),
)
NO_VARIATION = 1e-9  # of AP: rounding


@dataclass(frozen=True, kw_only=True)
class Variances:
    """What makes two measurements of one difference differ. All deviations are fractions of 1 of AP.

    seed_deviation: standard deviation of one cell between trainings, without what all variants of a seed share.
    effect_deviation, arm_deviation: standard error of a main effect, and of a variant minus the baseline, from the
        choice of `images` validation images; 0 for statements about these images only.
    source: where the figures come from, as a sentence without its full stop.
    """

    seed_deviation: float
    effect_deviation: float
    arm_deviation: float
    images: int
    source: str

    def for_images(self, images: int) -> Variances:
        """The same for another number of validation images, at least 2: their variance is proportional to 1 / N."""
        scale = (self.images / images) ** 0.5
        return replace(
            self,
            effect_deviation=scale * self.effect_deviation,
            arm_deviation=scale * self.arm_deviation,
            images=images,
        )


# Training: pairs of equal arms in docs/speed/vgg16-epyc-bf16.md differ by 0.5 points (one cell: 0.4) where training is
# steady, and by 3.1 (2.2) where it is not. Arms that differ leave each other further than equal ones, so this is no
# more than a plausible value. Images: docs/planning.md says how they were computed from results/reference.
STATED = Variances(
    seed_deviation=0.007,
    effect_deviation=0.007,
    arm_deviation=0.011,
    images=80,
    source="assumed, not measured on these data",
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Contrasts of one matrix that are tested together.

    arms: K, the variants of the matrix. tests: m. squares: sum of the squared weights of a contrast.
    image_deviation: standard error of a contrast from the choice of `images` validation images.
    """

    arms: int
    tests: int
    squares: float
    seed_deviation: float
    image_deviation: float
    images: int

    @property
    def alpha(self) -> float:
        """Level of the first step of Holm's method."""
        return LEVEL / self.tests

    def error(self, seeds: int) -> tuple[float, float]:
        """Standard error of a contrast, and its degrees of freedom. seeds: at least 2."""
        training = self.squares * self.seed_deviation**2 / seeds
        images = self.image_deviation**2
        degrees = training**2 / ((self.arms - 1) * (seeds - 1)) + images**2 / max(1, self.images - 1)
        return (training + images) ** 0.5, (training + images) ** 2 / degrees

    def power(self, effect: float, seeds: int) -> float:
        """Probability that a true `effect` is found. With one seed it is 0: nothing is known of other trainings."""
        if seeds < 2:
            return 0.0
        error, degrees = self.error(seeds)
        return power(effect, error, degrees, alpha=self.alpha)


def main_effects(*, axes: int, variances: Variances) -> Family:
    """The main effects of a full factorial of at least one axis, which Holm's method adjusts."""
    arms = 2**axes
    return Family(
        arms=arms,
        tests=axes,
        squares=4 / arms,
        seed_deviation=variances.seed_deviation,
        image_deviation=variances.effect_deviation,
        images=variances.images,
    )


def against_baseline(*, arms: int, variances: Variances) -> Family:
    """All other variants of a matrix of `arms` >= 2 against its baseline.

    Bonferroni's correction stands in for max-T. The differences share the baseline, so max-T finds slightly more.
    """
    return Family(
        arms=arms,
        tests=arms - 1,
        squares=2.0,
        seed_deviation=variances.seed_deviation,
        image_deviation=variances.arm_deviation,
        images=variances.images,
    )


def power(effect: float, error: float, degrees: float, *, alpha: float = LEVEL) -> float:
    """Power of a two-sided t test at level `alpha` for a true `effect`.

    error: true standard error > 0 of the estimate. degrees: of freedom of the estimated error.

    The noncentral t distribution as the mean of a normal one over the chi-squared distribution of the error estimate.
    scipy.stats.nct gives NaN for some of the large shifts that few degrees of freedom need.
    """
    shift = abs(effect) / error
    uniform, weights = _quadrature()
    limits = special.stdtrit(degrees, 1 - alpha / 2) * np.sqrt(special.chdtri(degrees, 1 - uniform) / degrees)
    return float(weights @ (special.ndtr(shift - limits) + special.ndtr(-shift - limits)))


def smallest_difference(family: Family, *, seeds: int) -> float:
    """The smallest true difference found with 80% power (fraction of 1 of AP); infinity with one seed."""
    if seeds < 2:
        return math.inf
    error, degrees = family.error(seeds)
    # In units of the standard error. Power grows with the difference: bisect.
    low, high = 0.0, 1.0
    while power(high, 1.0, degrees, alpha=family.alpha) < POWER:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        if power(middle, 1.0, degrees, alpha=family.alpha) < POWER:
            low = middle
        else:
            high = middle
    return high * error


def seeds_for(worth: float, family: Family) -> int | None:
    """The fewest seeds (2 to 100) that find a true difference of `worth` (fraction of 1 of AP) with 80% power.

    None if 100 are too few. `images_forbid` says whether more seeds could help at all.
    """
    return next((seeds for seeds in range(2, MOST_SEEDS + 1) if family.power(worth, seeds) >= POWER), None)


def images_forbid(worth: float, family: Family) -> bool:
    """Whether no number of seeds finds `worth` with 80% power, because of the choice of images alone."""
    if family.image_deviation == 0:
        return False
    return power(worth, family.image_deviation, max(1, family.images - 1), alpha=family.alpha) < POWER


def images_for(worth: float, family: Family, *, seeds: int) -> int | None:
    """The fewest validation images with which `seeds` >= 2 seeds find `worth` with 80% power.

    None if the noise of training alone forbids it with that many seeds.
    """

    def found(images: int) -> bool:
        scale = (family.images / images) ** 0.5
        wider = replace(family, images=images, image_deviation=scale * family.image_deviation)
        return wider.power(worth, seeds) >= POWER

    low, high = 1, MOST_IMAGES
    if not found(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if found(middle):
            high = middle
        else:
            low = middle
    return high


def variances_of(run: Run) -> Variances:
    """The `measured_variances` of an earlier run.

    Raises UserError if the finished cells do not show how AP varies between trainings, and like
    `bench.analysis.bootstrap.resample`.
    """
    samples = samples_of(run)
    sample = samples.by_metric["AP", ""]
    finished = int(sample.present.any(axis=0).sum())
    if not sample.degrees_of_training:
        raise UserError(
            f"{run.folder} does not show how AP varies between trainings: it has {finished} finished "
            f"{'seed' if finished == 1 else 'seeds'}, and two seeds of two variants are needed. At most the part of "
            "the validation images is known. Give --like a run with more seeds, or omit it"
        )
    if sample.mean_square**0.5 < NO_VARIATION:
        raise UserError(
            f"in {run.folder} the differences between variants are the same in every seed, so they do not show how AP "
            "varies between trainings. Give --like another run, or omit it"
        )
    return measured_variances(run, samples)


def measured_variances(run: Run, samples: Samples) -> Variances:
    """The variances of AP in a run; the deviation between trainings is that of `STATED` where the run cannot show it.

    Without the matches of all finished cells, and with too few images, the choice of images counts as 0.
    """
    sample = samples.by_metric["AP", ""]
    finished = int(sample.present.any(axis=0).sum())
    arm = _image_deviation(samples, [each for each in contrasts_of(run) if each.kind == "arm"])
    effect = _image_deviation(samples, [each for each in contrasts_of(run) if each.kind == "main effect"])
    if math.isnan(arm):  # no baseline in this run
        arm = 0.0 if math.isnan(effect) else effect
    images = samples.images(("AP", ""))
    measured = sample.degrees_of_training > 0 and sample.mean_square**0.5 >= NO_VARIATION
    return Variances(
        seed_deviation=sample.mean_square**0.5 if measured else STATED.seed_deviation,
        # A main effect averages differences of two variants: theirs is an upper bound.
        effect_deviation=arm if math.isnan(effect) else effect,
        arm_deviation=arm,
        images=max(2, images),
        source=f"from {run.folder.resolve().name} ("
        + (f"{finished} seeds" if measured else "training assumed")
        + (f", {images} validation images)" if sample.replicates is not None else ", for its validation images only)"),
    )


def power_frame(run: Run, samples: Samples) -> pd.DataFrame:
    """What the seeds of a run find, and what the difference worth having needs; one row per comparison.

    comparison: "main effects", in a full matrix, and "arms". tests: in the family; seeds: finished ones.
    smallest_difference: found with 80% power, fraction of 1; infinity with one seed. worth: `worth_of` the run.
    seeds_needed: for a difference of `worth` with these images; None where no number is enough.
    seeds_needed_here: for the same, claimed for these images only.
    images_needed: for the same with `SEEDS_TO_SPEND` seeds; None where training noise forbids it.
    seed_deviation, image_deviation: what the power rests on. measured: whether the first was, or is `STATED`.
    """
    factorial = {cell.variant for cell in run.cells if cell.control is None}
    arms, axes, worth = len(factorial), len(run.axes), worth_of(run)
    if run.baseline is None or arms < 2:
        return pd.DataFrame(columns=list(POWER_COLUMNS))
    sample = samples.by_metric["AP", ""]
    variances = measured_variances(run, samples)
    families = {"main effects": main_effects(axes=axes, variances=variances)} if arms == 2**axes else {}
    families["arms"] = against_baseline(arms=arms, variances=variances)
    seeds = int(sample.present.any(axis=0).sum())
    rows = [
        {
            "comparison": name,
            "tests": family.tests,
            "seeds": seeds,
            "smallest_difference": smallest_difference(family, seeds=seeds),
            "worth": worth,
            "seeds_needed": seeds_for(worth, family),
            "seeds_needed_here": seeds_for(worth, replace(family, image_deviation=0.0)),
            "images": family.images,
            "images_needed": images_for(worth, family, seeds=SEEDS_TO_SPEND),
            "seed_deviation": variances.seed_deviation,
            "image_deviation": family.image_deviation,
            "measured": sample.degrees_of_training > 0,
        }
        for name, family in families.items()
    ]
    return pd.DataFrame(rows, columns=list(POWER_COLUMNS))


def _image_deviation(samples: Samples, contrasts: Sequence[Contrast]) -> float:
    """Root mean square over the contrasts of the standard error from images that all trainings share; NaN without any.

    What the images add differently in each training is part of the noise of training already.
    """
    sample = samples.by_metric["AP", ""]
    variances = []
    for contrast in contrasts:
        if not set(contrast.variants) <= set(samples.variants):
            continue
        weights = sample.weights(samples.vector(contrast.weights))
        if weights is not None:
            training = sample.mean_square * float((weights**2).sum()) if sample.degrees_of_training else 0.0
            variances.append(max(0.0, float(sample.covariance(weights[None])[0, 0]) - training))
    return float(np.mean(variances)) ** 0.5 if variances else math.nan


@lru_cache(maxsize=1)
def _quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of Gauss and Legendre on (0, 1)."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return (nodes + 1) / 2, weights / 2
