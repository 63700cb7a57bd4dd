"""Power against scipy, textbooks and simulated matrices; variances of earlier runs against arithmetic by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.analysis.components import Sample
from bench.analysis.power import (
    POWER,
    STATED,
    Family,
    Variances,
    against_baseline,
    images_for,
    images_forbid,
    main_effects,
    measured_variances,
    power,
    power_frame,
    seeds_for,
    smallest_difference,
    variances_of,
)
from bench.analysis.run_records import cells_frame, load_run
from bench.analysis.samples import samples_of
from bench.analysis.statistics import t_test
from bench.errors import UserError
from tests.analysis.made_run import write_matches
from tests.report.made_run import write_run

ONLY_SEEDS = Variances(seed_deviation=0.01, effect_deviation=0.0, arm_deviation=0.0, images=80, source="made")
BOTH = Variances(seed_deviation=0.01, effect_deviation=0.004, arm_deviation=0.006, images=80, source="made")


@pytest.mark.parametrize("degrees", [1, 2, 4, 7.5, 30, 400])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3])
def test_power_is_that_of_scipys_noncentral_t(degrees: float, alpha: float) -> None:
    limit = stats.t.ppf(1 - alpha / 2, degrees)
    for shift in (0.0, 0.5, 2.0, 4.0):
        expected = stats.nct.sf(limit, degrees, shift) + stats.nct.cdf(-limit, degrees, shift)
        assert power(3 * shift, 3.0, degrees, alpha=alpha) == pytest.approx(expected, abs=1e-5)
        assert power(-3 * shift, 3.0, degrees, alpha=alpha) == power(3 * shift, 3.0, degrees, alpha=alpha)


def test_power_is_the_level_without_an_effect_and_one_for_a_large_effect() -> None:
    assert power(0.0, 1.0, 2.0, alpha=0.01) == pytest.approx(0.01, abs=1e-5)
    # scipy.stats.nct gives NaN for some of these
    assert [power(effect, 1.0, 1.0, alpha=0.001) for effect in (1e5, 1e9)] == pytest.approx([1.0, 1.0], abs=1e-2)


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 5), (1.0, 3), (1.0, 10), (-2.0, 4), (0.0, 6)])
def test_power_matches_simulated_t_tests(effect: float, seeds: int) -> None:
    draws = np.random.default_rng(seeds).normal(effect, 1.0, (200_000, seeds))
    found = np.abs(draws.mean(axis=1)) / (draws.std(axis=1, ddof=1) / seeds**0.5) > stats.t.ppf(0.975, seeds - 1)
    # Five standard errors of the simulation.
    assert power(effect, seeds**-0.5, seeds - 1) == pytest.approx(found.mean(), abs=5 * (0.25 / 200_000) ** 0.5)


def test_one_axis_is_the_paired_t_test_of_textbooks() -> None:
    # 34 pairs for half a standard deviation of the difference.
    variances = Variances(
        seed_deviation=1 / 2**0.5, effect_deviation=0.0, arm_deviation=0.0, images=80, source="a table"
    )
    family = main_effects(axes=1, variances=variances)
    assert family == against_baseline(arms=2, variances=variances)
    assert family.error(34) == pytest.approx((34**-0.5, 33))
    assert seeds_for(0.5, family) == 34


def test_errors_of_a_full_factorial_by_hand() -> None:
    effects, arms = main_effects(axes=3, variances=BOTH), against_baseline(arms=8, variances=BOTH)
    training, images = 0.01**2 * 4 / (8 * 3), 0.004**2
    error, degrees = effects.error(3)
    assert error == pytest.approx((training + images) ** 0.5)
    assert degrees == pytest.approx((training + images) ** 2 / (training**2 / 14 + images**2 / 79))
    assert (effects.tests, effects.alpha) == (3, 0.05 / 3)
    assert arms.error(3)[0] == pytest.approx((2 * 0.01**2 / 3 + 0.006**2) ** 0.5)
    assert (arms.tests, arms.alpha) == (7, 0.05 / 7)


@pytest.mark.parametrize("variances", [ONLY_SEEDS, BOTH])
@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_the_smallest_difference_has_the_stated_power_and_falls_with_seeds(variances: Variances, seeds: int) -> None:
    for family in (main_effects(axes=3, variances=variances), against_baseline(arms=4, variances=variances)):
        smallest = smallest_difference(family, seeds=seeds)
        assert family.power(smallest, seeds) == pytest.approx(POWER, abs=1e-4)
        assert smallest_difference(family, seeds=seeds + 1) < smallest < smallest_difference(family, seeds=1)
        assert smallest_difference(family, seeds=1) == math.inf
        assert family.power(1.0, 1) == 0


@pytest.mark.parametrize("worth", [0.008, 0.012, 0.03, 0.5])
def test_the_seeds_are_the_fewest_that_find_it(worth: float) -> None:
    for family in (main_effects(axes=2, variances=ONLY_SEEDS), against_baseline(arms=8, variances=ONLY_SEEDS)):
        seeds = seeds_for(worth, family)
        assert seeds is not None
        assert smallest_difference(family, seeds=seeds) <= worth * (1 + 1e-5)
        assert seeds == 2 or smallest_difference(family, seeds=seeds - 1) > worth


def test_too_few_images_cannot_be_replaced_by_seeds() -> None:
    family = against_baseline(arms=8, variances=BOTH)
    assert seeds_for(0.015, family) is None and images_forbid(0.015, family)
    assert images_for(0.015, family, seeds=10) is None  # their own noise is too large
    images = images_for(0.015, family, seeds=20)
    assert images is not None and images > family.images
    powers = [
        against_baseline(arms=8, variances=BOTH.for_images(number)).power(0.015, 20) for number in (images - 1, images)
    ]
    assert powers[0] < POWER <= powers[1]


def test_too_many_seeds_are_not_a_matter_of_images() -> None:
    family = against_baseline(arms=8, variances=ONLY_SEEDS)
    assert seeds_for(0.001, family) is None
    assert not images_forbid(0.001, family)
    assert images_for(0.001, family, seeds=10) is None


def test_the_variance_of_images_falls_with_their_number() -> None:
    wider = BOTH.for_images(320)
    assert (wider.effect_deviation, wider.arm_deviation, wider.images) == pytest.approx((0.002, 0.003, 320))
    assert (wider.seed_deviation, wider.source) == (BOTH.seed_deviation, BOTH.source)


def test_the_stated_variances_call_themselves_assumed() -> None:
    assert "assumed" in STATED.source


def matrix_values(rng: np.random.Generator, arms: int, seeds: int, deviation: float) -> np.ndarray:
    """(K, S) AP of a matrix whose variants are equal: a seed part that all share, and noise of training."""
    return np.asarray(0.4 + rng.normal(0, 0.02, seeds) + rng.normal(0, deviation, (arms, seeds)))


@pytest.mark.slow
@pytest.mark.parametrize(("axes", "seeds"), [(1, 5), (2, 2), (3, 3)])
def test_the_formula_predicts_how_often_the_analysis_finds_a_difference(axes: int, seeds: int) -> None:
    """Matrices with a planted main effect and a planted arm, analysed as a report does it."""
    rng, sets, arms = np.random.default_rng(axes), 4000, 2**axes
    effect = np.where(np.arange(arms) % 2, 2 / arms, -2 / arms)
    arm = np.zeros(arms)
    arm[[0, -1]] = -1, 1
    families = {
        "effect": (effect, effect * arms / 4, main_effects(axes=axes, variances=ONLY_SEEDS)),
        "arm": (arm, arm / 2, against_baseline(arms=arms, variances=ONLY_SEEDS)),
    }
    for name, (contrast, planted, family) in families.items():
        difference = smallest_difference(family, seeds=seeds)
        found = 0
        for _ in range(sets):
            values = matrix_values(rng, arms, seeds, ONLY_SEEDS.seed_deviation) + (difference * planted)[:, None]
            # Pooled over variants, as the formula has it: a contrast with a larger variance of its own would use that.
            sample = Sample(values=values)
            weights = np.repeat(contrast[:, None] / seeds, seeds, axis=1)
            error = (sample.mean_square * float((weights**2).sum())) ** 0.5
            found += t_test(float(contrast @ values.mean(axis=1)), error, sample.degrees_of_training) < family.alpha
        print(f"{name} of {axes} axes and {seeds} seeds: {found / sets:.3f} found, {POWER} predicted")
        assert found / sets == pytest.approx(POWER, abs=4 * (POWER * (1 - POWER) / sets) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("images", [20, 80])
def test_the_formula_holds_with_new_images_too(seeds: int, images: int) -> None:
    """Both errors are drawn and estimated, each with its own degrees of freedom.

    With two seeds of four variants, training has three degrees of freedom, and Satterthwaite's formula is rough.
    """
    rng, sets = np.random.default_rng(images), 100_000
    variances = BOTH.for_images(images)
    family = main_effects(axes=2, variances=variances)
    difference = smallest_difference(family, seeds=seeds)
    deviations = np.array([0.01 * (family.squares / seeds) ** 0.5, variances.effect_deviation])
    freedom = np.array([3 * (seeds - 1), images - 1])
    estimates = difference + rng.normal(0, 1, (sets, 2)) @ deviations
    parts = deviations**2 * rng.chisquare(freedom, (sets, 2)) / freedom
    degrees = parts.sum(axis=1) ** 2 / (parts**2 / freedom).sum(axis=1)
    found = float((2 * stats.t.sf(np.abs(estimates) / parts.sum(axis=1) ** 0.5, degrees) < family.alpha).mean())
    print(f"{seeds} seeds, {images} images: {found:.3f} found, {POWER} predicted")
    assert found == pytest.approx(POWER, abs=0.03 if seeds == 2 else 0.015)


@pytest.mark.slow
def test_holms_method_finds_at_least_as_much_as_its_first_step() -> None:
    """Three equal main effects: the second and third step of Holm's method are easier than the first."""
    rng, sets, seeds = np.random.default_rng(0), 2000, 3
    family: Family = main_effects(axes=3, variances=ONLY_SEEDS)
    difference = smallest_difference(family, seeds=seeds)
    on = np.array([[arm >> axis & 1 for axis in range(3)] for arm in range(8)])
    first = holm = 0
    for _ in range(sets):
        values = matrix_values(rng, 8, seeds, ONLY_SEEDS.seed_deviation) + difference * on.sum(axis=1)[:, None]
        sample = Sample(values=values)
        error = (sample.mean_square * 4 / (8 * seeds)) ** 0.5
        means = values.mean(axis=1)
        p = np.sort([t_test(float((2 * column - 1) @ means / 4), error, 14) for column in on.T])
        first += int((p < 0.05 / 3).sum())
        holm += int(np.cumprod(p < 0.05 / np.arange(3, 0, -1)).sum())
    print(f"first step {first / sets / 3:.3f}, Holm {holm / sets / 3:.3f}")
    assert holm >= first
    assert first / sets / 3 == pytest.approx(POWER, abs=0.03)


def test_variances_of_a_run_are_the_residual_of_variants_and_seeds(tmp_path: Path) -> None:
    run = load_run(write_matches(tmp_path / "run", axes=("fpn", "anchors"), seeds=(0, 1, 2)))
    variances = variances_of(run)
    table: pd.DataFrame = cells_frame(run).pivot(index="variant", columns="seed", values="accuracy.AP")
    residual = table.sub(table.mean(axis=1), axis=0).sub(table.mean(axis=0), axis=1) + table.to_numpy().mean()
    assert variances.seed_deviation == pytest.approx(((residual**2).to_numpy().sum() / 6) ** 0.5)
    assert (variances.images, "3 seeds, 40 validation images" in variances.source) == (40, True)
    assert variances.arm_deviation < 0.2


def test_a_failed_cell_keeps_the_others(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn",), seeds=(0, 1, 2))
    cell = next(cell for cell in load_run(folder).cells if (cell.variant, cell.seed) == ("fpn", 2))
    record = folder / "cells" / cell.id / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "failed", "failure": {"cause": "x"}}))
    run = load_run(folder)
    table = cells_frame(run).pivot(index="variant", columns="seed", values="accuracy.AP")
    difference = (table.loc["fpn"] - table.loc["baseline"]).dropna().to_numpy()
    assert len(difference) == 2
    assert variances_of(run).seed_deviation == pytest.approx(float(np.std(difference, ddof=1)) / 2**0.5)


def test_without_matches_the_images_count_for_nothing(tmp_path: Path) -> None:
    variances = variances_of(load_run(write_run(tmp_path / "run", seeds=(0, 1))))
    assert (variances.effect_deviation, variances.arm_deviation) == (0, 0)
    assert "for its validation images only" in variances.source
    assert variances.seed_deviation == pytest.approx(0.006, rel=0.8)  # the noise of `made_run`, 7 degrees of freedom


def test_one_seed_says_nothing_about_another_training(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", seeds=(0, 1), pending=[(name, 1) for name in ("fpn", "anchors")])
    assert variances_of(load_run(folder)).seed_deviation > 0
    with pytest.raises(UserError, match=r"1 finished seed, .*two seeds of two variants.*--like"):
        variances_of(load_run(write_run(tmp_path / "one")))
    with pytest.raises(UserError, match="2 finished seeds"):
        variances_of(load_run(write_run(tmp_path / "baseline", factors=[{}], seeds=(0, 1))))


def test_one_seed_still_shows_the_part_of_the_images(tmp_path: Path) -> None:
    run = load_run(write_matches(tmp_path / "run", axes=("fpn", "anchors")))
    samples = samples_of(run)
    variances = measured_variances(run, samples)
    assert variances.seed_deviation == STATED.seed_deviation
    assert "training assumed, 40 validation images" in variances.source
    replicates = samples.by_metric["AP", ""].replicates
    assert replicates is not None
    values = dict(zip(samples.variants, replicates[:, 0], strict=True))
    effects = [
        values["fpn"] + values["fpn+anchors"] - values["baseline"] - values["anchors"],
        values["anchors"] + values["fpn+anchors"] - values["baseline"] - values["fpn"],
    ]
    expected = np.mean([float(np.var(effect / 2, ddof=1)) for effect in effects]) ** 0.5
    assert variances.effect_deviation == pytest.approx(expected, rel=0.03)  # without the factor N / (N - 1)
    arms = [values[name] - values["baseline"] for name in ("fpn", "anchors", "fpn+anchors")]
    expected = np.mean([float(np.var(arm, ddof=1)) for arm in arms]) ** 0.5
    assert variances.arm_deviation == pytest.approx(expected, rel=0.03)


def test_the_frame_of_a_run_says_what_its_seeds_find(tmp_path: Path) -> None:
    run = load_run(write_matches(tmp_path / "run", axes=("fpn", "anchors"), seeds=(0, 1), changes={"worth": 4.0}))
    samples = samples_of(run)
    frame = power_frame(run, samples).set_index("comparison")
    variances = measured_variances(run, samples)
    for name, family in {
        "main effects": main_effects(axes=2, variances=variances),
        "arms": against_baseline(arms=4, variances=variances),
    }.items():
        row = frame.loc[name]
        assert row["smallest_difference"] == smallest_difference(family, seeds=2)
        assert (row["tests"], row["seeds"], row["worth"], row["images"]) == (family.tests, 2, 0.04, 40)
        assert (row["seeds_needed"] if pd.notna(row["seeds_needed"]) else None) == seeds_for(0.04, family)
        assert row["seeds_needed_here"] == seeds_for(0.04, replace(family, image_deviation=0.0))
        assert row["measured"]
    alone = load_run(write_run(tmp_path / "alone", factors=[{}]))
    assert power_frame(alone, samples_of(alone)).empty


def test_equal_differences_say_nothing_either(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=[{"fpn": False}, {"fpn": True}], seeds=(0, 1))
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        record["accuracy"]["AP"] = 0.2 + 0.1 * record["factors"]["fpn"] + 0.01 * record["seed"]
        path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="the same in every seed"):
        variances_of(load_run(folder))
