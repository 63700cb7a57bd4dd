"""The verdict of a comparison: what it claims, and that its numbers are those of the tables."""

from __future__ import annotations

import pytest

from bench.compare.comparison import Comparison
from bench.compare.tables import chance, comparison_tables
from bench.compare.verdict import comparison_verdict
from tests.compare.made_detections import compared, detector, drawn_index


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """A first detector, the same again, a clearly better and a clearly worse one."""
    index = drawn_index(16)
    first = detector(index, 0.08, seed=1)
    others = {"again": first, "better": detector(index, 0.02, seed=2), "worse": detector(index, 0.25, seed=3)}
    return compared(index, {"first": first, **others}, replicates=100)


def test_each_other_detector_is_judged_against_the_first(comparison: Comparison) -> None:
    texts = [sentence.text for sentence in comparison_verdict(comparison)]
    assert texts[0].startswith("On drawn (16 images) better is better than first: AP ")
    assert texts[1].startswith("again and first have the same AP on these images and on every resample: AP ")
    assert texts[1].endswith("0.0 points (95% interval 0.0 to 0.0).")
    assert texts[2].startswith("worse is worse than first: AP ")
    assert texts[3].startswith("Chance to have the highest AP: better ")
    assert any(text.startswith("The score threshold with the highest F1 is ") for text in texts)
    assert texts[-1].startswith("The intervals cover other images of this kind")


def test_the_numbers_are_those_of_the_tables(comparison: Comparison) -> None:
    cells = {
        (table.name, ", ".join(entry.text for entry in row[: table.keys]), heading.name): entry.text
        for table in comparison_tables(comparison)
        for row in table.rows
        for heading, entry in zip(table.headings, row, strict=True)
    }
    cited = [each for sentence in comparison_verdict(comparison) for each in sentence.citations if each.row]
    found = {(each.table, each.row, each.column): each.text for each in cited}
    assert {table for table, _, _ in found} == {"detectors", "differences", "per_class", "errors"}
    shown = {key: text for key, text in found.items() if key in cells}
    # The costs of errors have no sign in a sentence, which says more or less
    assert {key: text.strip("+−") for key, text in shown.items()} == {key: cells[key].strip("+−") for key in shown}
    assert {table for table, _, _ in shown} == {"detectors", "differences", "errors"}


@pytest.mark.parametrize(("fraction", "text"), [(0.0, "0"), (0.004, "<1"), (0.5, "50"), (0.996, ">99"), (1.0, "100")])
def test_a_chance_is_certain_only_if_it_is_exactly_that(fraction: float, text: str) -> None:
    assert chance(fraction) == text
