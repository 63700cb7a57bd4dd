"""Coverage, false alarms, power and equivalence of what the report prints, by simulation: `pytest -m slow -s`.

Every model has a skill: that of its variant plus noise of training. The AP of a skill in the population is measured
once on many images, so the true effects are known. docs/statistics.md holds the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.analysis import statistics
from bench.analysis.bootstrap import Resampled, bootstrap_weights, group_support, variance_factors
from bench.analysis.components import Sample
from bench.analysis.effects import BY_SIZE, DIVERGED, SMALL, UNDECIDED, effects_frame
from bench.analysis.run_records import load_run
from bench.analysis.samples import Samples
from bench.analysis.statistics import simultaneous, t_interval
from bench.evaluation.matches import Matches, average_precision
from tests.analysis.made_matches import draw_matches
from tests.report.made_run import matrix, write_run

Floats = NDArray[np.float64]
AP = ("AP", "")
SKILL = 0.3
ARMS = ("baseline", "fpn", "anchors", "fpn+anchors")
SIGNS = {"arm": (-1, 0, 0, 1), "main effect": (-0.5, 0.5, -0.5, 0.5), "interaction": (0.5, -0.5, -0.5, 0.5)}
REPLICATES = 200
THRESHOLDS = 4  # of IoU; ten give the same picture and take twice as long
SETS = 1000

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the joint distribution less often: the errors of 1,000 critical values average out."""
    monkeypatch.setattr(statistics, "DRAWS", 5000)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One simulated experiment: four arms, of which the last one gains; see `draw_matches` for the rest.

    noise: standard deviation of the skill between trainings. tails: draw it from t with three degrees of freedom.
    wild: factor on the noise of the last arm. lean: deviation of the skill of an arm from image to image, in all seeds.
    missing: leave out one cell of the last seed.
    least: coverage that the test asks for.
    """

    seeds: int = 3
    images: int = 80
    classes: int = 3
    copies: int = 1
    noise: float = 0.1
    tails: bool = False
    wild: float = 1.0
    lean: float = 0.0
    missing: bool = False
    gain: float = 0.3
    sets: int = SETS
    least: float = 0.93

    def skills(self, draw: np.random.Generator, count: int) -> Floats:
        """(4, count) skills of trained models."""
        size = (len(ARMS), count)
        noise = draw.standard_t(3, size) / 3**0.5 if self.tails else draw.normal(size=size)
        spread = np.array([1.0, 1.0, 1.0, self.wild])[:, None]
        return SKILL + self.noise * spread * noise + np.array([0, 0, 0, self.gain])[:, None]

    def sample(self, draw: np.random.Generator) -> tuple[Sample, Floats]:
        """The sample of AP of one experiment, and the (4, S) skills of its models."""
        skills = self.skills(draw, self.seeds)
        leaning = np.repeat(self.lean * draw.normal(size=(len(ARMS), self.images // self.copies)), self.seeds, axis=0)
        cells = draw_matches(
            draw,
            skills.ravel().tolist(),
            images=self.images,
            classes=self.classes,
            thresholds=THRESHOLDS,
            copies=self.copies,
            leaning=leaning,
        )
        groups = np.arange(self.images) // self.copies
        weights = bootstrap_weights(groups, REPLICATES)
        aps = np.stack([mean_ap(matches, weights) for matches in cells]).reshape(*skills.shape, -1)
        if self.missing:
            aps[1, -1] = np.nan
        sample = Sample(
            values=aps[..., 0],
            replicates=aps[..., 1:],
            groups=group_support(cells[0], groups)[AP],
            factor=variance_factors(cells[0], groups, weights)[AP],
        )
        return sample, skills

    @cached_property
    def truth(self) -> Floats:
        """(4,) expected AP of the arms over trainings, in the population."""
        return population_ap(self.skills(np.random.default_rng(1), 200_000), lean=self.lean).mean(axis=1)


CONDITIONS = {
    "base: 3 seeds, 80 images, 3 classes": Condition(),
    "1 seed": Condition(seeds=1),
    "5 seeds": Condition(seeds=5),
    "10 seeds": Condition(seeds=10, sets=300),
    "20 images": Condition(images=20),
    "400 images": Condition(images=400, sets=300),
    "20 classes": Condition(classes=20),
    "80 classes": Condition(classes=80, sets=300),
    "2 identical frames": Condition(copies=2),
    "4 identical frames": Condition(copies=4),
    "heavy tails": Condition(tails=True),
    # Three seeds do not show that one arm varies more, and the pooled variance is too small for it
    "3 times the noise in one arm": Condition(wild=3.0, least=0.86),
    "4 times the noise of training": Condition(noise=0.4),
    "arm x image": Condition(lean=0.5),
    "one missing cell": Condition(missing=True),
}


def mean_ap(matches: Matches, weights: Floats) -> Floats:
    """(B,) AP for image weights (B, N)."""
    precision = average_precision(matches, weights)
    valid = ~np.isnan(precision)
    return np.asarray(np.where(valid, precision, 0).sum(axis=(1, 2)) / np.maximum(1, valid.sum(axis=(1, 2))))


def population_ap(skills: Floats, *, lean: float = 0.0) -> Floats:
    """AP of skills in the population, interpolated by a polynomial."""
    return np.asarray(np.polyval(_polynomial(lean), skills))


@cache
def _polynomial(lean: float) -> Floats:
    grid = np.linspace(-1.5, 2.1, 19)
    draw = np.random.default_rng(10**6)
    leaning = lean * draw.normal(size=(len(grid), 20_000))
    cells = draw_matches(draw, grid.tolist(), images=20_000, thresholds=THRESHOLDS, leaning=leaning)
    return np.polyfit(grid, [float(mean_ap(matches, np.ones((1, 20_000)))[0]) for matches in cells], 5)


@pytest.mark.parametrize("name", CONDITIONS)
def test_intervals_cover_the_truth_in_95_percent_of_experiments(name: str) -> None:
    condition = CONDITIONS[name]
    draw = np.random.default_rng(list(CONDITIONS).index(name))
    covered = dict.fromkeys((*SIGNS, "all arms"), 0)
    alone = 0
    for _ in range(condition.sets):
        sample, skills = condition.sample(draw)
        # One seed is about these trained models.
        truth = condition.truth if condition.seeds > 1 else population_ap(skills[:, 0], lean=condition.lean)
        for kind, signs in SIGNS.items():
            covered[kind] += _covers(sample, np.array(signs, dtype=float), truth)
        covered["all arms"] += _all_arms_covered(sample, truth)
        if condition.seeds > 1:
            seeds_only = Sample(values=sample.values)
            alone += _covers(seeds_only, np.array(SIGNS["arm"], dtype=float), truth)
    error = 2 * (0.05 * 0.95 / condition.sets) ** 0.5
    shares = {kind: count / condition.sets for kind, count in covered.items()}
    listed = " | ".join(f"{share:.3f}" for share in shares.values())
    print(f"\n| {name} | {listed} | {alone / condition.sets:.3f} | {condition.sets} | {error:.3f} |")
    for kind, share in shares.items():
        assert condition.least - error <= share <= 0.97 + error, kind


def _covers(sample: Sample, contrast: Floats, truth: Floats) -> bool:
    estimate = sample.estimate(contrast)
    assert estimate is not None
    interval = t_interval(estimate.effect, estimate.error, estimate.degrees)
    return bool(interval.low <= float(contrast @ truth) <= interval.high)


def _all_arms_covered(sample: Sample, truth: Floats) -> bool:
    contrasts = [np.eye(4)[place] - np.eye(4)[0] for place in (1, 2, 3)]
    estimates = [estimate for contrast in contrasts if (estimate := sample.estimate(contrast)) is not None]
    intervals = simultaneous(
        [each.effect for each in estimates],
        [each.error for each in estimates],
        [each.degrees for each in estimates],
        sample.covariance(np.stack([each.weights for each in estimates])),
    )
    true = [float(contrast @ truth) for contrast in contrasts]
    return all(each.low <= value <= each.high for each, value in zip(intervals, true, strict=True))


MATRICES = 500


def experiment(
    skill: Callable[[np.random.Generator, dict[str, bool]], float], *, seeds: int, images: int, sizes: bool = False
) -> Callable[[np.random.Generator], Samples]:
    """Draws of a whole 2^3 matrix: AP and AP by size of all cells."""
    rows = matrix()
    variants = tuple("+".join(axis for axis, on in row.items() if on) or "baseline" for row in rows)
    metrics = [AP, *((measure, "") for measure in BY_SIZE if sizes)]

    def drawn(draw: np.random.Generator) -> Samples:
        skills = [[skill(draw, row) for _ in range(seeds)] for row in rows]
        cells = draw_matches(draw, np.ravel(skills).tolist(), images=images, sizes=sizes, thresholds=THRESHOLDS)
        weights = bootstrap_weights(np.arange(images), REPLICATES)
        groups = group_support(cells[0], np.arange(images))
        factors = variance_factors(cells[0], np.arange(images), weights)
        samples = {}
        for metric in metrics:
            area = "all" if metric == AP else metric[0].removeprefix("AP_")
            values = []
            for matches in cells:
                precision = average_precision(matches, weights, area=area)
                values.append(np.nanmean(precision, axis=(1, 2)))
            stacked = np.stack(values).reshape(len(rows), seeds, -1)
            samples[metric] = Sample(
                values=stacked[..., 0], replicates=stacked[..., 1:], groups=groups[metric], factor=factors[metric]
            )
        resampled = Resampled(
            replicates={"some": {}},
            supported={},
            support=groups,
            groups=groups,
            factor=factors,
            weak_classes=(0, 3),
            images=images,
        )
        return Samples(variants=variants, seeds=tuple(range(seeds)), by_metric=samples, resampled=resampled)

    return drawn


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_each_family_raises_false_alarms_in_at_most_5_percent_of_matrices(seeds: int, tmp_path: Path) -> None:
    """No axis has an effect. With one seed, all models are equal: its claims are about these models."""
    noise = 0.0 if seeds == 1 else 0.1
    draws = experiment(lambda draw, on: float(draw.normal(SKILL, noise)), seeds=seeds, images=80, sizes=seeds == 3)
    run = load_run(write_run(tmp_path / "run", seeds=range(seeds)))
    draw = np.random.default_rng(seeds)
    alarms = dict.fromkeys(("arm", "main effect", "interaction", "sizes"), 0)
    claims = rows = 0
    for _ in range(MATRICES):
        frame = effects_frame(run, draws(draw))
        clear = ~frame["verdict"].str.removeprefix("these models: ").isin(["", UNDECIDED, SMALL, DIVERGED])
        on_ap = frame["measure"] == "AP"
        for kind in ("arm", "main effect", "interaction"):
            alarms[kind] += bool((clear & on_ap & (frame["kind"] == kind)).any())
        alarms["sizes"] += bool((clear & ~on_ap & (frame["kind"] == "main effect")).any())
        claims += int((clear & frame["exploratory"]).sum())
        rows += int(frame["exploratory"].sum())
    print(
        f"\n| {seeds} | "
        + " | ".join(f"{count / MATRICES:.3f}" for count in alarms.values())
        + f" | {claims / rows:.4f} |"
    )
    most = 0.05 + 2 * (0.05 * 0.95 / MATRICES) ** 0.5
    assert all(count / MATRICES <= most for count in alarms.values()), alarms


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_equivalence_is_rarely_claimed_of_an_effect_worth_having(share: float, tmp_path: Path) -> None:
    """An axis whose effect is exactly worth having is called small in at most 2.5% of matrices; half of it may be."""
    gain = 0.1
    worth = float(np.diff(population_ap(np.array([SKILL, SKILL + gain])))[0])
    draws = experiment(lambda draw, on: float(draw.normal(SKILL + share * gain * on["fpn"], 0.05)), seeds=3, images=200)
    run = load_run(write_run(tmp_path / "run", seeds=range(3), changes={"worth": 100 * worth}))
    draw = np.random.default_rng(7)
    sets = 300
    small = 0
    for _ in range(sets):
        frame = effects_frame(run, draws(draw))
        row = frame[(frame["contrast"] == "fpn") & (frame["measure"] == "AP")].iloc[0]
        small += row["verdict"] == SMALL
    print(
        f"\neffect of {share:g} times --worth ({100 * worth:.1f} points): called small in {small / sets:.3f} of {sets}"
    )
    if share == 1:
        assert small / sets <= 0.025 + 2 * (0.025 * 0.975 / sets) ** 0.5
