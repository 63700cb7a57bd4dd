"""Contrasts against hand-computed tables."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.factorial import Contrast, contrasts_of, factorial_contrasts
from bench.analysis.run_records import load_run
from tests.report.made_run import matrix, name_of, write_run


def contrasts(*axes: str) -> dict[str, Contrast]:
    variants = {tuple(row.values()): name_of(row) for row in matrix(axes)}
    return {contrast.name: contrast for contrast in factorial_contrasts(axes, variants)}


def test_two_axes_by_hand() -> None:
    figures = {"baseline": 20.0, "a": 23.0, "b": 24.0, "a+b": 31.0}
    values = {name: float(contrast.value(figures)) for name, contrast in contrasts("a", "b").items()}
    # a gives 3 without b and 7 with it; b gives 4 without a and 8 with it.
    assert values == {"a": 5.0, "b": 6.0, "a × b": 2.0}


def test_three_axes_by_hand() -> None:
    figures = {"baseline": 10, "a": 12, "b": 14, "c": 11, "a+b": 20, "a+c": 15, "b+c": 13, "a+b+c": 25}
    values = {name: float(contrast.value(figures)) for name, contrast in contrasts("a", "b", "c").items()}
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
        assert float(found[name].value(figures)) == pytest.approx(2 * coefficient, abs=1e-12), place


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
            assert float(contrast.value(figures)) == 0.0


def test_metrics_may_be_arrays() -> None:
    draw = np.random.default_rng(0)
    figures = {name_of(row): draw.normal(size=(3, 5)) for row in matrix(("a", "b"))}
    whole = contrasts("a", "b")["a × b"].value(figures)
    single = contrasts("a", "b")["a × b"].value({name: values[1, 2] for name, values in figures.items()})
    assert whole.shape == (3, 5) and whole[1, 2] == single


def test_an_unplanned_variant_is_missing_and_not_skipped(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", factors=matrix(("fpn", "anchors"))[:3], controls=("half-data",)))
    found = {contrast.name: contrast for contrast in contrasts_of(run)}
    assert set(found["fpn"].variants) == {"baseline", "fpn", "anchors", "fpn+anchors"}
    with pytest.raises(KeyError, match=r"fpn\+anchors"):
        found["fpn"].value(dict.fromkeys(run.variants, 0.2))
    control = found["half-data"]
    assert (control.kind, control.plus, control.minus) == ("control", ("half-data",), ("baseline",))
