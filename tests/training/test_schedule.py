"""Learning rates and trainable stages as functions of the step, and the paper's schedule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.spec import Phase, TrainSpec
from bench.training.schedule import (
    longer,
    rate_factor,
    same_beginning,
    stage_rate_factors,
    steps_before_decay,
    trainable_stages,
)
from tests import tiny
from variants.baseline import training_of
from variants.unfreezing import Unfreezing

GRADUAL = (Phase(until=0.2, trainable=0.0), Phase(until=0.4, trainable=0.5), Phase(until=1.0, trainable=1.0))
SPEC = TrainSpec(steps=100, batch=2, optimiser="sgd", rate=0.1, warmup_share=0.1, decay_start=0.4)


def test_the_rate_warms_up_stays_at_the_peak_and_decays() -> None:
    assert [rate_factor(SPEC, step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert {rate_factor(SPEC, step) for step in range(10, 41)} == {1.0}
    falling = [rate_factor(SPEC, step) for step in range(40, 100)]
    assert falling == sorted(falling, reverse=True)
    assert SPEC.final_rate_share < falling[-1] < 0.02


def test_the_paper_profile_has_the_papers_schedule() -> None:
    paper = training_of("paper", 16551, scenes=False)
    assert (paper.steps, paper.batch, paper.rate) == (120_000, 32, 1e-3)
    assert (paper.momentum, paper.weight_decay, paper.bias_rate, paper.frozen_stride) == (0.9, 5e-4, 2.0, 0)
    rates = [rate_factor(paper, step) for step in (0, 79_999, 80_000, 99_999, 100_000, 119_999)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("images", "scenes", "steps"), [(10, False, 90), (205, False, 154), (1200, False, 200), (5000, True, 90)]
)
def test_quick_trains_twelve_epochs_within_limits(images: int, scenes: bool, steps: int) -> None:
    quick = training_of("quick", images, scenes=scenes)
    assert (quick.steps, quick.batch) == (steps, 16)


def test_the_baseline_trains_every_stage_at_one_rate_from_the_first_step() -> None:
    assert trainable_stages(SPEC, 0, 5) == 5
    assert stage_rate_factors(SPEC, 5) == [1.0] * 5


def test_unfreezing_goes_from_the_top_down_before_the_rate_decays() -> None:
    gradual = replace(SPEC, phases=GRADUAL)
    trainable = [trainable_stages(gradual, step, 5) for step in (0, 19, 20, 39, 40, 99)]
    assert trainable == [0, 0, 3, 3, 5, 5]
    assert stage_rate_factors(gradual, 5) == [1.0] * 5
    assert rate_factor(gradual, 40) == 1.0


def test_a_backbone_may_stay_frozen() -> None:
    heads_only = replace(SPEC, phases=(Phase(until=1.0, trainable=0.0),))
    assert trainable_stages(heads_only, 99, 5) == 0


def test_graded_rates_fall_from_the_top_half_to_the_bottom() -> None:
    graded = replace(SPEC, stage_rate_decay=2.6)
    assert stage_rate_factors(graded, 5) == pytest.approx([2.6**-2, 2.6**-2, 2.6**-1, 2.6**-1, 2.6**-1])
    assert stage_rate_factors(graded, 1) == pytest.approx([1 / 2.6])
    assert stage_rate_factors(SPEC, 0) == []  # all stages stay frozen


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert rate_factor(replace(SPEC, warmup_share=0.0), 0) == 1.0
    # A warm-up of one step has no effect: a rate of zero would waste the step
    assert rate_factor(replace(SPEC, steps=2), 0) == 1.0


@pytest.mark.parametrize("profile", ["quick", "paper"])
def test_a_longer_training_begins_as_the_shorter_one_until_its_rate_decays(profile: str) -> None:
    short = replace(training_of(profile, 1000, scenes=False), steps=200)
    long = longer(short, 600)
    kept = steps_before_decay(short)
    assert kept == {"quick": 140, "paper": 133}[profile]
    assert same_beginning(short, long, kept)
    assert not same_beginning(short, long, kept + 2)  # the cosine begins with a factor of 1
    assert not same_beginning(short, replace(long, rate=2e-3), kept)


def test_a_schedule_that_depends_on_the_length_has_another_beginning() -> None:
    base = tiny.specification("file")
    short = replace(Unfreezing().apply(base, {}).training, steps=200)
    assert not same_beginning(short, longer(short, 600), steps_before_decay(short))
