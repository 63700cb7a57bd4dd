"""The table and plot of effects show the computed values and claim no more."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from bench.analysis.effects import COLUMNS, effects_frame
from bench.analysis.run_records import load_run
from bench.report import build_report
from bench.report.plots.effects import effect_intervals
from bench.report.tables.effects import effects_table, remarks
from bench.report.tables.formats import MISSING, points
from tests.analysis.made_run import write_matches
from tests.report.made_run import matrix, write_run


def printed(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Printed rows by metric and contrast, as text by column name."""
    run = load_run(folder)
    table = effects_table(run, effects_frame(run))
    names = [heading.name for heading in table.headings]
    rows = [dict(zip(names, (entry.text for entry in row), strict=True)) for row in table.rows]
    return {(row["measure"], row["contrast"]): row for row in rows}


def test_the_csv_has_every_value_in_full_precision(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn", "anchors"), controls=("half-data",))
    build_report(folder)
    with (folder / "tables/effects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    frame = effects_frame(load_run(folder))
    assert tuple(rows[0]) == COLUMNS and len(rows) == len(frame)
    assert [float(row["effect"]) for row in rows] == frame["effect"].tolist()
    first = rows[0]
    assert (first["contrast"], first["measure"], first["exploratory"], first["n"]) == ("fpn", "AP", "0", "40")
    assert first["verdict"] == "these models: higher" and first["seeds_needed"] == ""
    clock = next(row for row in rows if row["measure"] == "train_seconds")
    assert clock["low"] == clock["p"] == clock["p_holm"] == "" and clock["unit"] == "s"
    assert {row["class"] for row in rows} == {"", "class 0", "class 1", "class 2"}


def test_print_has_points_signs_and_reasons(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn", "anchors"), controls=("half-data",))
    rows = printed(folder)
    effects = effects_frame(load_run(folder))
    fpn = effects[(effects["contrast"] == "fpn") & (effects["measure"] == "AP") & (effects["class"] == "")].iloc[0]
    row = rows["AP", "fpn"]
    assert row["effect"] == f"+{100 * fpn['effect']:.1f}" and row["high"] == f"+{100 * fpn['high']:.1f}"
    assert row["method"] == "paired bootstrap, 40 images" and row["exploratory"] == ""
    control = rows["AP", "half-data − baseline"]
    assert control["effect"].startswith("−") and control["exploratory"] == "expl." and control["p_holm"] == ""
    assert rows["train seconds", "fpn"]["method"] == "none (a)"
    run = load_run(folder)
    notes = effects_table(run, effects).notes
    assert any("these trained models only" in note for note in notes)
    assert "(a) No interval: timed with one seed." in notes


def test_rows_of_missing_cells_are_printed_once(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", axes=("fpn", "anchors"), failed={("fpn", 0): "loss is not finite"})
    rows = printed(folder)
    assert [metric for metric, _ in rows] == ["AP"] * 3
    assert {row["effect"] for row in rows.values()} == {MISSING}
    run = load_run(folder)
    notes = effects_table(run, effects_frame(run)).notes
    assert "(a) No interval: missing fpn (seed 0)." in notes
    assert "Failed: fpn, seed 0 (loss is not finite)" in notes


def test_too_few_seeds_are_noted_with_the_number_needed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn", "anchors")), seeds=(0, 1, 2))
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        gain = {0: 0.0, 1: 0.01, 2: 0.02}[record["seed"]]  # mean 1 point, deviation 1 point
        record["accuracy"]["AP"] = 0.2 + (gain if record["factors"]["fpn"] else 0.0)
        path.write_text(json.dumps(record))
    run = load_run(folder)
    effects = effects_frame(run)
    notes = remarks(effects)
    # For a difference of one standard deviation, the t test needs 10.
    assert notes[0].startswith(
        "fpn: 3 seeds are too few to tell. Detecting the observed difference (+1.0 points of AP)"
    )
    assert "would need about 10 seeds, assuming" in notes[0]
    assert notes[1].startswith("anchors: 3 seeds") and "more than 1000" in notes[1]
    shown = effects_table(run, effects).frame
    of_ap = shown[(shown["measure"] == "AP") & (shown["kind"] == "main effect")]
    assert list(map(str, of_ap["seeds_needed"]))[:2] == ["10", "None"]  # integers, although some are missing


def test_the_plot_draws_each_interval_and_names_its_source(tmp_path: Path) -> None:
    folder = write_matches(tmp_path / "run", controls=("half-data",))
    run = load_run(folder)
    effects = effects_frame(run)
    figure = effect_intervals(run, effects)
    axes = figure.axes[0]
    rows = effects[(effects["measure"] == "AP") & (effects["class"] == "")]
    assert [label.get_text() for label in axes.get_yticklabels()] == rows["contrast"].tolist()
    bars = [np.asarray(line.get_xdata(), dtype=float) for line in axes.get_lines() if line.get_linewidth() == 2.2]
    np.testing.assert_allclose(bars, 100 * rows[["low", "high"]].to_numpy(dtype=float))
    assert "paired bootstrap over 40 images, these trained models only" in " ".join(figure.get_supxlabel().split())
    assert axes.get_xlim()[0] == -axes.get_xlim()[1]


@pytest.mark.parametrize(("factors", "text"), [([{}], "no effects"), (matrix(("fpn",)), "no interval")])
def test_a_plot_without_intervals_says_so(tmp_path: Path, factors: list[dict[str, bool]], text: str) -> None:
    run = load_run(write_run(tmp_path / "run", factors=factors))
    figure = effect_intervals(run, effects_frame(run))
    figure.draw_without_rendering()
    assert any(text in label.get_text() for label in figure.axes[0].texts)


def test_points_have_a_sign_and_a_true_minus() -> None:
    assert [points(value) for value in (0.0123, -0.0123, -0.0001)] == ["+1.2", "−1.2", "0.0"]
