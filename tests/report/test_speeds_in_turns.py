"""The table and the plot of speed, and their notes, with speed.json: intervals, shared networks, a busy machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from bench.analysis.run_records import Run, load_run
from bench.report.notes import machine_differences, measured_on, shared_networks, timing_noise
from bench.report.plots.ap_against_throughput import ap_against_throughput
from bench.report.tables.throughput import throughput_table
from bench.report.tables.typeset import csv_text, latex_text, markdown_text
from tests.analysis.made_speeds import write_speeds
from tests.report.made_run import matrix, write_run

NETWORKS = {("baseline", "anchors", "half-data"): 0.02, ("fpn", "fpn+anchors"): 0.04}
BUSY = {"fpn": "other processes used 1.5 of 2 cores"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn", "anchors")), controls=("half-data",))
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        record["accuracy"]["AP"] = {"half-data": 0.9, "fpn": 0.5, "anchors": 0.4}.get(record["variant"], 0.3)
        path.write_text(json.dumps(record))
    return load_run(folder)


def fronts(figure: Figure) -> list[int]:
    """Points on the front of each panel."""
    return [
        len(np.asarray(line.get_xdata()))
        for axes in figure.axes
        for line in axes.get_lines()
        if line.get_linestyle() == "--"
    ]


def test_the_table_has_one_row_per_variant_with_intervals(run: Run) -> None:
    write_speeds(run.folder, NETWORKS)
    table = throughput_table(run)
    names = [heading.name for heading in table.headings]
    rows = {row[0].text: dict(zip(names, (entry.text for entry in row), strict=True)) for row in table.rows}
    assert list(rows) == list(run.variants)
    assert {variant: row["network"] for variant, row in rows.items()} == {
        variant: variants[0] for variants in NETWORKS for variant in variants
    }
    for name in ("images_per_second", "latency_p50_ms"):
        value, low, high = numbers(rows["fpn"][name])
        assert low <= value <= high
        assert rows["fpn+anchors"][name] == rows["fpn"][name] != rows["baseline"][name]
    assert rows["baseline"]["ratio"] == "1.00"
    assert numbers(rows["fpn"]["ratio"])[0] == pytest.approx(0.5, rel=0.05)
    assert {row["busy"] for row in rows.values()} == {"quiet"}
    assert "Measured in turns after the last cell on Made-up CPU, 2 threads, float32." in table.caption
    assert "(200 calls)" in table.caption
    assert shared_networks(run)[0].endswith("baseline = anchors = half-data; fpn = fpn+anchors")
    assert table.notes == shared_networks(run)
    assert "baseline = anchors = half-data" in csv_text(table.frame)
    assert all(rows["fpn"]["latency_p50_ms"] in text(table) for text in (markdown_text, latex_text))


def numbers(text: str) -> list[float]:
    """Value, low and high of "31.2 (30.5 to 31.9)"."""
    value, low, _, high = text.split()
    return [float(value), float(low[1:]), float(high[:-1])]


def test_a_busy_machine_is_named_in_table_and_plot(run: Run) -> None:
    write_speeds(run.folder, NETWORKS, busy=BUSY)
    table = throughput_table(run)
    assert [row[-1].text for row in table.rows] == ["quiet", "quiet", "busy", "busy", "quiet"]
    (note,) = timing_noise(run)
    assert note == (
        "The machine was busy, so these speeds are unreliable and rank nothing: "
        "fpn (other processes used 1.5 of 2 cores)"
    )
    assert note in table.notes
    figure = ap_against_throughput(run)
    assert "not ranked (other processes used 1.5 of 2 cores)" in figure.get_supxlabel()
    assert fronts(figure) == [1, 1]
    hollow = [line for line in figure.axes[0].get_lines() if line.get_markerfacecolor() == "white"]
    assert len(hollow) == 2


def test_controls_are_drawn_but_not_on_the_front(run: Run) -> None:
    """The control has the highest AP."""
    for measured in (False, True):
        if measured:
            write_speeds(run.folder, NETWORKS)
        figure = ap_against_throughput(run)
        figure.draw_without_rendering()
        for axes in figure.axes:
            assert "half-data" in {text.get_text() for text in axes.texts}
            (front,) = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
            assert np.asarray(front.get_ydata()).max() == pytest.approx(50)
    assert fronts(figure) == [2, 2]  # anchors and fpn


def test_intervals_are_drawn(run: Run) -> None:
    write_speeds(run.folder, NETWORKS, noise=0.2)
    before = ap_against_throughput(run)
    spans = [np.asarray(path.vertices)[:, 0] for lines in before.axes[1].collections for path in lines.get_paths()]
    assert len(spans) == len(run.variants)
    assert all(high > low for low, high in spans)


def test_a_failed_measurement_leaves_the_speeds_of_the_cells(run: Run) -> None:
    expected = throughput_table(run)
    write_speeds(run.folder, {}, changes={"failure": "not measured: weights.pt is missing"})
    table = throughput_table(run)
    assert table.rows == expected.rows
    assert table.notes == (
        "Speeds in turns were not measured: weights.pt is missing; speeds are those of the cells",
        *expected.notes,
    )
    ap_against_throughput(run).draw_without_rendering()
    assert measured_on(run) == "Measured on CPU, 2 cores, 2 threads, float32."


def test_notes_on_the_cells_are_on_training_times_only(run: Run) -> None:
    for place, path in enumerate(run.folder.glob("cells/*/record.json")):
        record = json.loads(path.read_text())
        record["cost"] |= {"parameters_M": 5.0, "forward_GFLOP": 2.0}
        record["speed"]["latency_p50_ms"] = 10.0 * (1 + place)
        record["environment"]["device"] = {"name": f"machine {place}"}
        path.write_text(json.dumps(record))
    disturbed = load_run(run.folder)
    assert timing_noise(disturbed)[0].startswith("Speeds and times are unreliable")
    assert machine_differences(disturbed)[0].startswith("Speeds and times were")
    write_speeds(run.folder, NETWORKS)
    assert timing_noise(disturbed)[0].startswith("Training times are unreliable")
    assert machine_differences(disturbed)[0].startswith("Training times were")
