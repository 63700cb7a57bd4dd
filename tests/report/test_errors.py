"""Tables and plots of error types, for any set of stored files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from bench.analysis.cell_errors import load_run_errors
from bench.analysis.confusion import confusion_matrix
from bench.analysis.error_costs import errors_frame
from bench.analysis.run_records import load_run
from bench.evaluation.error_types import KINDS
from bench.report.plots.ap_against_iou import ap_against_iou
from bench.report.plots.calibration import calibration
from bench.report.plots.confusion import confusion_matrices
from bench.report.plots.errors import error_costs
from bench.report.plots.precision_recall import precision_recall
from bench.report.tables import TABLES
from bench.report.tables.error_differences import error_differences_table
from bench.report.tables.errors import errors_table
from bench.report.tables.formats import MISSING
from bench.report.tables.saving import write_tables
from tests.analysis.made_errors import drawn_truths, write_found
from tests.evaluation_oracles import detections_of, index_of
from tests.report.made_run import write_run
from tests.report.oracles import written_tables

CURVES = (ap_against_iou, precision_recall, calibration, confusion_matrices)


def drawn(folder: Path) -> dict[str, Figure]:
    run = load_run(folder)
    cell_errors = load_run_errors(run)
    figures = {draw.__name__: draw(run, cell_errors) for draw in CURVES}
    figures["errors"] = error_costs(run, cell_errors, errors_frame(run, cell_errors))
    for figure in figures.values():
        figure.draw_without_rendering()
    return figures


def lines_of(figure: Figure) -> dict[str, np.ndarray]:
    found = {str(line.get_label()): np.asarray(line.get_xydata()) for line in figure.axes[0].get_lines()}
    return {label.split("\n")[0]: points for label, points in found.items() if not label.startswith("_")}


def test_tables_show_the_values_of_the_frame(tmp_path: Path) -> None:
    folder = write_found(tmp_path / "run", drawn_truths(), axes=("fpn", "anchors"), failed={("anchors", 0): "lost"})
    run = load_run(folder)
    cell_errors = load_run_errors(run)
    frame = errors_frame(run, cell_errors)
    table = errors_table(run, cell_errors, frame)
    objects = [row[1].text for row in table.rows if row[0].text == "fpn"]
    assert objects == ["all", "small", "medium", "large", "truncated", "untruncated"]
    rows = {(row[0].text, row[1].text): [entry.text for entry in row] for row in table.rows}
    first = frame[(frame["variant"] == "fpn") & (frame["scope"] == "all")].set_index("kind")
    expected = [f"{100 * value:.1f} ({count:.0f})" for value, count in zip(first["dAP50"], first["count"], strict=True)]
    (record,) = [record for cell, record in run.done() if cell.variant == "fpn"]
    assert rows["fpn", "all"][3:] == [f"{100 * record['accuracy']['AP50']:.1f}", *expected]
    assert set(rows["anchors", "all"][3:]) == {MISSING}
    assert "Failed: anchors, seed 0 (lost)" in table.notes

    differences = error_differences_table(run, frame)
    assert {row[0].text for row in differences.rows} == {"fpn", "fpn+anchors"}
    by_kind = {row[1].text: row for row in differences.rows if row[0].text == "fpn"}
    expected_points = 100 * first["difference"]["localisation"]
    assert by_kind["localisation"][3].text.replace("−", "-") == f"{expected_points:+.1f}"
    assert by_kind["localisation"][6].text.startswith("bootstrap, ")

    write_tables([table], folder / "tables")
    with (folder / "tables/errors.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    (line,) = [row for row in lines if (row["variant"], row["scope"], row["kind"]) == ("fpn", "all", "localisation")]
    assert float(line["dAP50"]) == first["dAP50"]["localisation"] > 0
    assert line["ground_truths"].isdigit()


def test_plots_show_every_variant_with_detections(tmp_path: Path) -> None:
    folder = write_found(tmp_path / "run", drawn_truths(), axes=("fpn", "anchors"), pending=[("anchors", 0)])
    run = load_run(folder)
    cell_errors = load_run_errors(run)
    frame = errors_frame(run, cell_errors)
    figures = drawn(folder)
    whole = frame[(frame["variant"] == "fpn") & (frame["scope"] == "all")].set_index("kind").loc[list(KINDS)]
    assert lines_of(figures["errors"])["fpn"][:, 1] == pytest.approx(100 * whole["dAP50"].to_numpy())
    accuracy = {cell.variant: record["accuracy"] for cell, record in run.done()}
    for variant in ("baseline", "fpn", "fpn+anchors"):
        by_iou = lines_of(figures["ap_against_iou"])[variant]
        assert by_iou[:, 0] == pytest.approx(np.arange(50, 100, 5) / 100)
        assert by_iou[:, 1].mean() == pytest.approx(100 * accuracy[variant]["AP"])
        curve = lines_of(figures["precision_recall"])[variant]
        assert curve[:, 1].mean() == pytest.approx(100 * accuracy[variant]["AP50"])
        assert variant in lines_of(figures["calibration"])
    for name in ("ap_against_iou", "precision_recall", "calibration"):
        assert "anchors" not in lines_of(figures[name])
    assert all("pending: anchors" in figure.get_supxlabel() for figure in figures.values())


def test_confusion_shows_the_baseline_and_the_best_variant(tmp_path: Path) -> None:
    folder = write_found(tmp_path / "run", drawn_truths(), axes=("fpn", "anchors"), seeds=(0, 1))
    run = load_run(folder)
    cell_errors = load_run_errors(run)
    accuracy: dict[str, list[float]] = {}
    for cell, record in run.done():
        accuracy.setdefault(cell.variant, []).append(record["accuracy"]["AP"])
    best = max((name for name in accuracy if name != "baseline"), key=lambda name: np.mean(accuracy[name]))
    figure = drawn(folder)["confusion_matrices"]
    assert [axes.get_title() for axes in figure.axes] == ["baseline", best]
    cells = [cell for cell in cell_errors.of_variant(best).values() if cell.types is not None]
    total = sum(confusion_matrix(cell.matches, cell.types).sum() for cell in cells if cell.types is not None)
    assert sum(int(text.get_text()) for text in figure.axes[1].texts) == total


def test_many_classes_are_reduced_to_those_with_the_most_ground_truths(tmp_path: Path) -> None:
    boxes = [(label, 10.0, 10.0, 60.0, 60.0) for label in range(40) for _ in range(1 if label < 10 else 2)]
    index = index_of([[box] for box in boxes], classes=40)
    found = detections_of(*((image, box[0], 0.9, *box[1:]) for image, box in enumerate(boxes)))
    figure = drawn(write_found(tmp_path / "run", index, axes=(), found=found))["confusion_matrices"]
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [*(f"class {label}" for label in range(10, 40)), "no object"]
    assert "the 30 of 40 classes" in figure.get_supxlabel()
    assert {text.get_text() for text in axes.texts} == {"2"}


@pytest.mark.parametrize("case", ["nothing found", "nothing to find", "one class", "records alone", "all failed"])
def test_any_run_has_tables_and_plots(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "run"
    one = index_of([[(0, 10, 10, 60, 60)], []], classes=1)
    if case == "records alone":
        write_run(folder)
    elif case == "all failed":
        write_found(folder, one, failed={("baseline", 0): "lost", ("fpn", 0): "lost"})
    else:
        index = replace(one, crowd=np.array([True])) if case == "nothing to find" else one
        found = detections_of() if case == "nothing found" else detections_of((0, 0, 0.9, 10, 10, 60, 60))
        write_found(folder, index, found=found)
    figures = drawn(folder)
    written = written_tables(folder)
    markdown = (folder / "tables/errors.md").read_text()
    assert len(written) == 3 * (len(TABLES) - 1)  # all but `lengths`
    if case in ("records alone", "all failed"):
        assert MISSING in markdown and ("no matches.npz kept" in markdown) == (case == "records alone")
        assert all(figure.axes[0].texts for figure in figures.values())
    elif case == "nothing found":
        (row,) = [line for line in markdown.splitlines() if line.startswith("| fpn ") and "| all " in line]
        assert "0.0 (1)" in row


def test_a_note_names_cells_without_error_types(tmp_path: Path) -> None:
    folder = write_found(tmp_path / "run", drawn_truths())
    (gone,) = [cell for cell in json.loads((folder / "plan.json").read_text())["cells"] if cell["variant"] == "fpn"]
    (folder / "cells" / gone["id"] / "error_types.npz").unlink()
    run = load_run(folder)
    cell_errors = load_run_errors(run)
    table = errors_table(run, cell_errors, errors_frame(run, cell_errors))
    (note,) = table.notes
    assert note.startswith("n/a: fpn (seed 0): neither error_types.npz nor the boxes")
    assert "fpn" in lines_of(precision_recall(run, cell_errors))  # needs only the matches
