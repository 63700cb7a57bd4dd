"""The budget in print: rows sum to 100, the bars equal the frame, and n/a where it is unknown."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bench.analysis.budget import PARTS, budget_differences, budget_frame
from bench.analysis.error_costs import REMAINDER
from bench.analysis.results import Analysis, analyse
from bench.analysis.run_records import load_run
from bench.report.plots.budget import FILLS, budget_bars
from bench.report.tables.budget import budget_differences_table, budget_table
from bench.report.tables.formats import MISSING
from tests.analysis.made_errors import drawn_truths, overlapping_fixes, write_found
from tests.report.made_run import write_run


def drawn(analysis: Analysis) -> Figure:
    figure = budget_bars(analysis.run, analysis.cell_errors, analysis.errors)
    figure.draw_without_rendering()
    return figure


def segments(figure: Figure) -> dict[int, dict[str, Rectangle]]:
    """The rectangles by row and part."""
    found: dict[int, dict[str, Rectangle]] = {}
    for bars in figure.axes[0].containers:
        assert isinstance(bars, BarContainer)
        (bar,) = bars.patches
        found.setdefault(round(bar.get_y() + bar.get_height() / 2), {})[str(bars.get_label())] = bar
    return found


def lightness(colour: tuple[float, float, float] | str) -> float:
    """Relative luminance without gamma, from 0 (black) to 1."""
    red, green, blue = to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def as_number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_bars_equal_the_frame_and_fill_a_hundred_points(tmp_path: Path) -> None:
    analysis = analyse(load_run(write_found(tmp_path / "run", drawn_truths(), axes=("fpn", "anchors"))))
    run, budget = analysis.run, budget_frame(analysis.run, analysis.errors)
    figure = drawn(analysis)
    rows = segments(figure)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(run.variants)
    for row, variant in enumerate(run.variants):
        points = budget[budget["variant"] == variant].set_index("part")["points"]
        bars = rows[row]
        assert list(bars) == list(PARTS)
        assert [bar.get_width() for bar in bars.values()] == pytest.approx((100 * points[list(PARTS)]).tolist())
        assert sum(bar.get_width() for bar in bars.values()) == pytest.approx(100)
        positive = [bar for bar in bars.values() if bar.get_width() >= 0]
        assert [bar.get_x() for bar in positive[1:]] == pytest.approx(
            [bar.get_x() + bar.get_width() for bar in positive[:-1]]
        )
        assert positive[0].get_x() == 0


def test_negative_parts_lie_left_of_zero(tmp_path: Path) -> None:
    index, found = overlapping_fixes()
    analysis = analyse(load_run(write_found(tmp_path / "run", index, axes=(), found=found)))
    figure = drawn(analysis)
    bars = segments(figure)[0]
    assert bars[REMAINDER].get_width() < -1 and bars[REMAINDER].get_x() == 0
    below = -sum(bar.get_width() for bar in bars.values() if bar.get_width() < 0)
    assert sum(bar.get_width() for bar in bars.values() if bar.get_width() > 0) == pytest.approx(100 + below)
    low, high = figure.axes[0].get_xlim()
    assert low < -below and high > 100 + below
    assert "left of it" in figure.get_supxlabel()
    table = budget_table(analysis.run, analysis.cell_errors, analysis.errors)
    assert table.rows[0][-1].text.startswith("−")


def test_neighbouring_segments_differ_in_greyscale() -> None:
    assert list(FILLS) == list(PARTS)
    for (one, shade), (other, next_shade) in pairwise((fill, lightness(fill.colour)) for fill in FILLS.values()):
        assert one.hatch != other.hatch or abs(shade - next_shade) > 0.2


def test_tables_show_the_frames(tmp_path: Path) -> None:
    folder = write_found(tmp_path / "run", drawn_truths(), axes=("fpn", "anchors"), failed={("anchors", 0): "lost"})
    analysis = analyse(load_run(folder))
    run = analysis.run
    table = budget_table(run, analysis.cell_errors, analysis.errors)
    assert [heading.name for heading in table.headings] == ["variant", *PARTS]
    assert [row[0].text for row in table.rows] == list(run.variants)
    by_variant = {row[0].text: [entry.text for entry in row[1:]] for row in table.rows}
    assert set(by_variant["anchors"]) == {MISSING}
    for variant in ("baseline", "fpn", "fpn+anchors"):
        # Nine numbers, each rounded to a tenth.
        assert sum(map(as_number, by_variant[variant])) == pytest.approx(100, abs=9 * 0.05 + 1e-9)
    assert table.frame.columns.tolist() == ["variant", "seeds", *PARTS]
    assert table.frame.set_index("variant")[list(PARTS)].sum(axis=1)["fpn"] == pytest.approx(1, abs=1e-12)
    assert "Failed: anchors, seed 0 (lost)" in table.notes

    changes = budget_differences_table(run, analysis.errors)
    assert [(row[0].text, row[1].text) for row in changes.rows] == [
        (variant, label) for variant in ("fpn", "fpn+anchors") for label in ("difference", "95% from", "to")
    ]
    frame = budget_differences(run, analysis.errors)
    expected = frame[frame["variant"] == "fpn"].set_index("part")["difference"].astype(float)
    for place, part in enumerate(PARTS, start=2):
        difference, low, high = (row[place].text for row in changes.rows[:3])
        assert as_number(difference) == pytest.approx(100 * expected[part], abs=0.0501)
        if low:
            assert as_number(low) <= as_number(difference) <= as_number(high)
    assert sum(as_number(entry.text) for entry in changes.rows[0][2:]) == pytest.approx(0, abs=9 * 0.05 + 1e-9)


def test_a_run_without_error_types_says_why(tmp_path: Path) -> None:
    analysis = analyse(load_run(write_run(tmp_path / "run")))
    figure = drawn(analysis)
    assert ["no matches.npz kept" in text.get_text() for text in figure.axes[0].texts] == [True]
    table = budget_table(analysis.run, analysis.cell_errors, analysis.errors)
    assert {entry.text for row in table.rows for entry in row[1:]} == {MISSING}
    assert "no matches.npz kept" in table.notes[0]
    assert budget_differences_table(analysis.run, analysis.errors).rows == ()


def test_failed_variants_have_a_row_without_a_bar(tmp_path: Path) -> None:
    folder = write_found(tmp_path / "run", drawn_truths(), failed={("fpn", 0): "lost"})
    figure = drawn(analyse(load_run(folder)))
    assert set(segments(figure)) == {0}
    assert "n/a (failed)" in [text.get_text() for text in figure.axes[0].texts]
