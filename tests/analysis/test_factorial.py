"""Contrasts against hand-computed tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.factorial import Contrast, contrasts_of, factorial_contrasts
from bench.analysis.run_records import load_run
from tests.report.made_run import matrix, name_of, write_run


def contrasts(*axes: str, simple: bool = False) -> dict[str, Contrast]:
    """Main effects and interactions, or simple effects."""
    variants = {tuple(row.values()): name_of(row) for row in matrix(axes)}
    return {
        contrast.name: contrast
        for contrast in factorial_contrasts(axes, variants)
        if (contrast.kind == "simple effect") is simple
    }


def value(contrast: Contrast, figures: Mapping[str, float]) -> float:
    """The contrast of figures by variant."""
    return math.fsum(weight * figures[name] for name, weight in contrast.weights.items())


def test_two_axes_by_hand() -> None:
    figures = {"baseline": 20.0, "a": 23.0, "b": 24.0, "a+b": 31.0}
    values = {name: value(contrast, figures) for name, contrast in contrasts("a", "b").items()}
    # a gives 3 without b and 7 with it; b gives 4 without a and 8 with it.
    assert values == {"a": 5.0, "b": 6.0, "a × b": 2.0}
    simple = {name: value(contrast, figures) for name, contrast in contrasts("a", "b", simple=True).items()}
    assert simple == {"a without b": 3.0, "a with b": 7.0, "b without a": 4.0, "b with a": 8.0}


def test_three_axes_by_hand() -> None:
    figures = {"baseline": 10, "a": 12, "b": 14, "c": 11, "a+b": 20, "a+c": 15, "b+c": 13, "a+b+c": 25}
    values = {name: value(contrast, figures) for name, contrast in contrasts("a", "b", "c").items()}
    # Effects of a: 2, with b 6, with c 4, with both 12. Of b: 4, with a 8, with c 2, with both 10.
    # Of c: 1, with a 3, with b -1, with both 5.
    assert values == {
        "a": 6.0,
        "b": 6.0,
        "c": 2.0,
        "a × b": ((6 - 2) / 2 + (12 - 4) / 2) / 2,
        "a × c": ((4 - 2) / 2 + (12 - 6) / 2) / 2,
        "b × c": ((2 - 4) / 2 + (10 - 8) / 2) / 2,
        "a × b × c": ((12 - 4) / 2 - (6 - 2) / 2) / 2,
    }
    assert list(values)[:3] == ["a", "b", "c"]


@given(st.lists(st.floats(-1, 1), min_size=16, max_size=16), st.integers(0, 3))
def test_contrasts_are_the_coefficients_of_a_linear_model(noise: list[float], order: int) -> None:
    axes = ("a", "b", "c", "d")[: order + 1]
    rows = matrix(axes)
    figures = {name_of(row): value for row, value in zip(rows, noise, strict=False)}
    found = contrasts(*axes)
    assert len(found) == 2 ** len(axes) - 1
    for place, name in enumerate(found):
        signs = [
            np.prod([1 if row[axis] else -1 for axis in name.split(" × ")]) for row in rows
        ]  # a column of the design; twice its coefficient is the effect
        coefficient = float(np.dot(signs, [figures[name_of(row)] for row in rows])) / len(rows)
        assert value(found[name], figures) == pytest.approx(2 * coefficient, abs=1e-12), place


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(0, 2))
def test_an_axis_without_effect_has_exactly_zero_effect(values: list[float], idle: int) -> None:
    axes = ("a", "b", "c")
    others = {level: value for level, value in zip(product((False, True), repeat=2), values, strict=True)}
    figures = {
        name_of(row): others[tuple(on for place, on in enumerate(row.values()) if place != idle)]
        for row in matrix(axes)
    }
    for name, contrast in contrasts(*axes).items():
        if axes[idle] in name.split(" × "):
            assert value(contrast, figures) == 0.0


def test_simple_effects_average_to_the_main_effect_and_differ_by_twice_the_interaction() -> None:
    draw = np.random.default_rng(0)
    figures = {name_of(row): float(draw.normal()) for row in matrix(("a", "b", "c"))}
    factorial, simple = contrasts("a", "b", "c"), contrasts("a", "b", "c", simple=True)
    without, beside = (value(simple[f"a {word} b"], figures) for word in ("without", "with"))
    assert (without + beside) / 2 == pytest.approx(value(factorial["a"], figures))
    assert (beside - without) / 2 == pytest.approx(value(factorial["a × b"], figures))


def test_an_unplanned_variant_is_missing_and_not_skipped(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", factors=matrix(("fpn", "anchors"))[:3], controls=("half-data",)))
    found = {contrast.name: contrast for contrast in contrasts_of(run)}
    assert set(found["fpn"].variants) == {"baseline", "fpn", "anchors", "fpn+anchors"}
    with pytest.raises(KeyError, match=r"fpn\+anchors"):
        value(found["fpn"], dict.fromkeys(run.variants, 0.2))
    arm = found["anchors vs baseline"]
    assert (arm.kind, arm.plus, arm.minus) == ("arm", ("anchors",), ("baseline",))
    control = found["half-data vs baseline"]
    assert (control.kind, control.plus, control.minus) == ("control", ("half-data",), ("baseline",))
