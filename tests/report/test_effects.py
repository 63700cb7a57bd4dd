"""The table and plot of effects show the computed values and claim no more."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bench.analysis.effects import COLUMNS
from bench.analysis.results import analyse
from bench.analysis.run_records import load_run
from bench.report import build_report
from bench.report.plots.effects import effect_intervals
from bench.report.tables.effects import effects_table
from bench.report.tables.formats import MISSING, points
from tests.analysis.made_run import write_matches
from tests.report.made_run import matrix, write_run


def printed(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Printed rows by metric and contrast, as text by column name."""
    table = effects_table(analyse(load_run(folder)))
    names = [heading.name for heading in table.headings]
    rows = [dict(zip(names, (entry.text for entry in row), strict=True)) for row in table.rows]
    return {(row["measure"], row["contrast"]): row for row in rows}


def notes_of(folder: Path) -> tuple[str, ...]:
    return effects_table(analyse(load_run(folder))).notes


def test_the_csv_has_every_value_in_full_precision(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn", "anchors"), controls=("half-data",))
    build_report(folder)
    with (folder / "tables/effects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    frame = analyse(load_run(folder)).effects
    assert tuple(rows[0]) == COLUMNS and len(rows) == len(frame)
    assert [float(row["effect"]) for row in rows] == frame["effect"].tolist()
    main = next(row for row in rows if row["contrast"] == "fpn")
    assert (main["measure"], main["exploratory"], main["seeds"], main["images"]) == ("AP", "0", "1", "40")
    assert main["verdict"] == "these models: higher" and main["error_training"] == ""
    assert {row["class"] for row in rows} == {"", "class 0", "class 1", "class 2"}


def test_print_has_points_signs_and_reasons(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn", "anchors"), controls=("half-data",))
    rows = printed(folder)
    effects = analyse(load_run(folder)).effects
    fpn = effects[(effects["contrast"] == "fpn") & (effects["measure"] == "AP") & (effects["class"] == "")].iloc[0]
    row = rows["AP", "fpn"]
    assert row["effect"] == f"+{100 * fpn['effect']:.1f}" and row["high"] == f"+{100 * fpn['high']:.1f}"
    assert row["method"] == "40 images" and row["adjusted_by"] == "Holm"
    control = rows["AP", "half-data vs baseline"]
    assert control["effect"].startswith("−") and control["adjusted_by"] == "Benjamini-Hochberg"
    assert ("AP50", "fpn") in rows and ("AP50", "fpn vs baseline") not in rows
    assert any("cover these trained models on other images" in note for note in notes_of(folder))


def test_rows_of_missing_cells_are_printed_once(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn", "anchors"), failed={("fpn", 0): "loss is not finite"})
    rows = printed(folder)
    missing = {key: row for key, row in rows.items() if row["effect"] == MISSING}
    assert {metric for metric, _ in missing} == {"AP"} and ("AP", "fpn") in missing
    notes = notes_of(folder)
    assert "(a) No interval: missing fpn (seed 0)." in notes
    assert "Failed: fpn, seed 0 (loss is not finite)" in notes


def test_several_seeds_name_both_sources_of_error(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn",), seeds=(0, 1, 2), images=60)
    row = printed(folder)["AP", "fpn"]
    assert row["method"] == "3 seeds, 60 images"
    # In points. The standard error that they make is smaller than half of the interval
    images, training, low, high = (
        float(row[name].replace("−", "-")) for name in ("error_images", "error_training", "low", "high")
    )
    assert images > 0 and (images**2 + training**2) ** 0.5 < (high - low) / 2
    assert "Intervals cover training again on this data and other images of this kind." in notes_of(folder)


def test_looking_again_is_noted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)), seeds=(3, 4))
    assert any("not corrected for repeated looks" in note for note in notes_of(folder))


def test_the_plot_draws_each_interval_and_names_its_source(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", controls=("half-data",))
    run = load_run(folder)
    effects = analyse(run).effects
    figure = effect_intervals(run, effects)
    axes = figure.axes[0]
    rows = effects[(effects["measure"] == "AP") & (effects["class"] == "") & (effects["kind"] != "simple effect")]
    assert [label.get_text() for label in axes.get_yticklabels()] == rows["contrast"].tolist()
    bars = [np.asarray(line.get_xdata(), dtype=float) for line in axes.get_lines() if line.get_linewidth() == 2.2]
    np.testing.assert_allclose(bars, 100 * rows[["low", "high"]].to_numpy(dtype=float))
    legend = " ".join(figure.get_supxlabel().split())
    assert "95% intervals (other images, these trained models only; those of arms hold for all arms together)" in legend
    assert axes.get_xlim()[0] == -axes.get_xlim()[1]


@pytest.mark.parametrize(("factors", "text"), [([{}], "no effects"), (matrix(("fpn",)), "no interval")])
def test_a_plot_without_intervals_says_so(tmp_path: Path, factors: list[dict[str, bool]], text: str) -> None:
    run = load_run(write_run(tmp_path / "run", factors=factors))
    figure = effect_intervals(run, analyse(run).effects)
    figure.draw_without_rendering()
    assert any(text in label.get_text() for label in figure.axes[0].texts)


def test_points_have_a_sign_and_a_true_minus() -> None:
    assert [points(value) for value in (0.0123, -0.0123, -0.0001)] == ["+1.2", "−1.2", "0.0"]
