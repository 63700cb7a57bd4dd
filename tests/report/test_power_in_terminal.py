"""What ``--plan`` prints about the differences that a matrix would find."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.analysis.power import STATED, Variances, against_baseline, main_effects, seeds_for, smallest_difference
from bench.report.terminal.power import needed, print_power

MADE = Variances(seed_deviation=0.01, effect_deviation=0.002, arm_deviation=0.003, images=80, source="from made/run")


def printed(*, arms: int = 8, axes: int = 3, seeds: int = 4, worth: float = 0.02, images: int = 80) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    print_power(console, MADE, arms=arms, axes=axes, seeds=seeds, worth=worth, images=images)
    return console.export_text()


def test_rows_are_the_usual_seeds_and_the_requested_ones() -> None:
    lines = printed().splitlines()
    rows = [line.split() for line in lines if line[:20].strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "10"]
    assert rows[0][1:] == ["n/a", "n/a"]
    families = main_effects(axes=3, variances=MADE), against_baseline(arms=8, variances=MADE)
    assert rows[3] == ["4", "(requested)", *(f"{100 * smallest_difference(each, seeds=4):.1f}" for each in families)]
    text = " ".join(printed().split())
    assert f"Main effects: 2 points need --seeds {seeds_for(0.02, families[0])}." in text
    assert "main effects for 3 tests (Holm)" in text
    assert "from made/run: 1.0 points between trainings of one variant; 0.2 and 0.3 points" in text


def test_validation_images_of_this_run_count_and_not_those_of_the_earlier_one() -> None:
    assert "0.1 and 0.1 points from the choice of 320 validation images" in " ".join(printed(images=320).split())


def test_a_part_of_a_matrix_has_no_main_effects() -> None:
    text = " ".join(printed(arms=3).split())
    assert "Main effects need every combination" in text
    assert "main effects for" not in text
    assert "variants against the baseline for 2 tests" in text


def test_one_variant_has_nothing_to_be_compared_with() -> None:
    assert "nothing to compare" in printed(arms=1, axes=0)


@pytest.mark.parametrize(
    ("worth", "image", "words"),
    [
        (0.02, 0.0, "2 points need --seeds"),
        (0.01, 0.01, "no number of seeds finds 1 point on 80 validation images; 10 seeds would on about "),
        (0.01, 0.01, ". A difference that holds for these images alone needs --seeds "),
        (0.001, 0.01, "no number of seeds finds 0.1 points on 80 validation images."),
        (0.001, 0.0, "0.1 points need more than 100 seeds."),
    ],
)
def test_what_a_difference_needs(worth: float, image: float, words: str) -> None:
    variances = Variances(seed_deviation=0.005, effect_deviation=image, arm_deviation=image, images=80, source="made")
    assert words in needed("main effects", worth, main_effects(axes=2, variances=variances))


def test_assumptions_are_called_so() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    print_power(console, STATED, arms=8, axes=3, seeds=1, worth=0.01, images=80)
    assert "assumed, not measured" in console.export_text()
