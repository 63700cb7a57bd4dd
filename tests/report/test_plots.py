"""Plots: drawn for any run, without overlap or hidden values, and without changing global state."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from bench.analysis.lengths import lengths_so_far
from bench.analysis.results import analyse
from bench.analysis.run_records import cells_frame, load_run
from bench.report import build_report
from bench.report.plots import PLOTS, canvas, interactions
from bench.report.plots import priors as prior_plot
from bench.report.plots.ap_against_throughput import ap_against_throughput, pareto
from bench.report.plots.ap_by_size import ap_by_size
from bench.report.plots.ap_by_variant import ap_by_variant
from bench.report.plots.learning_curves import learning_curves, smoothed
from bench.report.tables import TABLES
from bench.storage.run_folder import LENGTHS
from tests.analysis.made_run import of_steps
from tests.report.made_run import matrix, name_of, write_run

DRAWN = (
    ap_by_variant,
    ap_by_size,
    ap_against_throughput,
    learning_curves,
    prior_plot.priors_over_ground_truths,
)


def texts(figure: Figure) -> list[str]:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [*found, *labels, figure.get_supxlabel(), figure.get_suptitle()]


def test_a_report_has_all_tables_and_plots(tmp_path: Path) -> None:
    # Matplotlib would parse the dollar signs as an invalid formula.
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)), failed={("fpn", 0): "costs $5\\x and $6"})
    shorter = of_steps(write_run(tmp_path / "shorter", factors=matrix(("fpn",))), 40)
    (folder / LENGTHS).write_text(json.dumps(lengths_so_far(shorter)))
    before = dict(mpl.rcParams)
    written = build_report(folder).files
    assert dict(mpl.rcParams) == before
    assert len(written) == 3 * len(TABLES) + 2 * len(PLOTS) + 2  # and verdict and page
    assert {path.name for path in written if path.parent.name == "plots"} == {
        f"{name}.{ending}" for name in PLOTS for ending in ("png", "svg")
    }
    for name in PLOTS:
        with Image.open(folder / "plots" / f"{name}.png") as image:
            assert image.width == 1400 and image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
    first = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in build_report(folder).files] == first


def test_lines_of_an_interaction_are_means_over_the_other_axes(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run"))
    cells = cells_frame(run)
    effects = analyse(run).effects
    for first, second in combinations(run.axes, 2):
        means = interactions.means_of(run, first, second)
        assert means is not None
        for (one, two), value in means.items():
            rows = cells[(cells[f"factors.{first}"] == one) & (cells[f"factors.{second}"] == two)]
            assert len(rows) == 2
            assert value == pytest.approx(rows["accuracy.AP"].mean())
        # The interaction is half the difference between the slopes.
        twist = (means[True, True] - means[False, True]) - (means[True, False] - means[False, False])
        row = effects[(effects["contrast"] == f"{first} × {second}") & (effects["measure"] == "AP")]
        assert twist / 2 == pytest.approx(float(row["effect"].iloc[0]))
    figure = interactions.interaction_lines(run, effects)
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == [
        " × ".join(pair) for pair in combinations(run.axes, 2)
    ]
    assert {len(axes.get_lines()) for axes in figure.axes} == {2}


@pytest.mark.parametrize("axes", [(), ("fpn",), ("fpn", "anchors", "unfreezing", "giou")])
def test_interactions_of_any_number_of_axes_finished_or_not(axes: tuple[str, ...], tmp_path: Path) -> None:
    for state, pending in (("done", []), ("partial", [("baseline", 0)])):
        run = load_run(write_run(tmp_path / state, factors=matrix(axes), pending=pending))
        figure = interactions.interaction_lines(run, analyse(run).effects)
        figure.draw_without_rendering()
        said = texts(figure)
        assert ("interactions need two axes" in said) == (len(axes) < 2)
        assert ("not all combinations are done" in said) == (state == "partial" and len(axes) > 1)


@pytest.mark.parametrize(("count", "state"), [(1, "done"), (1, "pending"), (12, "done")])
def test_any_number_of_variants_with_or_without_figures(tmp_path: Path, count: int, state: str) -> None:
    rows = matrix(("fpn", "anchors", "unfreezing", "giou"))[:count]
    pending = [(name_of(row), 0) for row in rows] if state == "pending" else []
    run = load_run(write_run(tmp_path / "run", factors=rows, pending=pending))
    for draw in DRAWN:
        draw(run).draw_without_rendering()


def test_failed_and_pending_variants_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", failed={("fpn", 0): "loss is not finite"}, pending=[("anchors", 0)])
    run = load_run(folder)
    for draw in DRAWN:
        said = "\n".join(texts(draw(run)))
        assert "failed: fpn (loss is not finite)" in said and "pending: anchors" in said
    rows = texts(ap_by_variant(run))
    assert rows.count("n/a (failed)") == rows.count("n/a (pending)") == 2
    ticks = [label.get_text() for label in ap_by_size(run).axes[1].get_xticklabels()]
    assert ticks == ["small\nn = 201", "medium\nn = 171", "large\nn = 0"]


def test_each_seed_is_a_point(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", seeds=(0, 1, 2)))
    axes = ap_by_variant(run).axes[0]
    strokes = [line for line in axes.get_lines() if line.get_marker() == "|"]
    assert len(strokes) == 8
    expected = [100 * record["accuracy"]["AP"] for cell, record in run.done() if cell.variant == "baseline"]
    assert list(np.asarray(strokes[0].get_xdata())) == pytest.approx(expected)


def test_styles_differ_in_greyscale(tmp_path: Path) -> None:
    rows = matrix(("fpn", "anchors", "unfreezing", "giou"))[:12]
    styles = canvas.variant_styles(load_run(write_run(tmp_path / "run", factors=rows)))
    assert len({style.marker for style in styles.values()}) == 12


speeds = arrays(np.float64, st.shared(st.integers(1, 12), key="n"), elements=st.integers(1, 6).map(float))


@given(speeds, speeds)
def test_the_front_is_what_no_point_dominates(x: np.ndarray, y: np.ndarray) -> None:
    def beaten(place: int) -> bool:
        return bool(np.any((x >= x[place]) & (y >= y[place]) & ((x > x[place]) | (y > y[place]))))

    front = pareto(x, y)
    kept = {(x[place], y[place]) for place in front}
    assert kept == {(x[place], y[place]) for place in range(len(x)) if not beaten(place)}
    assert len(kept) == len(front)
    assert np.all(np.diff(x[front]) < 0) and np.all(np.diff(y[front]) > 0)


def test_smoothing_keeps_constants_and_gaps() -> None:
    losses = np.full(50, 3.0)
    losses[[0, 20]] = np.nan
    smooth = smoothed(losses)
    assert np.isnan(smooth[[0, 20]]).all() and np.allclose(np.delete(smooth, [0, 20]), 3.0)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.02, 1.0]))
def test_labels_cover_neither_each_other_nor_a_point(seed: int, spread: float) -> None:
    draw = np.random.default_rng(seed)
    x, y = draw.normal(30, spread, 12), draw.normal(25, spread, 12)
    figure = Figure(figsize=(7, 3.2))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # With the small spread, all points lie in a cluster.
    axes.set_xlim(28, 32)
    axes.set_ylim(23, 27)
    x, y = np.clip(x, 28.2, 31.8), np.clip(y, 23.2, 26.8)
    names = [name_of(row) for row in matrix(("fpn", "anchors", "unfreezing", "giou"))[:12]]
    figure.draw_without_rendering()
    canvas.label_points(axes, x, y, names)
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    # The extent of the text only; an annotation's extent includes its line.
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    assert len(boxes) == 12
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])
    points = axes.transData.transform(np.column_stack((x, y)))
    assert not any(box.contains(*point) for box in boxes for point in points)
    frame = axes.get_window_extent(renderer)
    assert all(frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1) for box in boxes)


def write_priors(folder: Path, variant: str, priors: list[list[list[float]]], matched: float) -> None:
    """Add a detector with two levels to the record of `variant`."""
    for path in folder.glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        if record["variant"] == variant:
            detector = {"size": 300, "feature_maps": [38, 19], "priors": priors, "match_threshold": 0.5}
            recall = {"val": {"after": {"boxes": 8, "matched": matched}}}
            path.write_text(json.dumps(record | {"detector": detector, "prior_recall": recall}))


def write_truth(folder: Path) -> None:
    """Nine boxes of 30 x 20 pixels on an image of 600 x 100, one of them a crowd."""
    boxes = [{"image_id": 7, "bbox": [0, 0, 30, 20], "iscrowd": int(place == 0)} for place in range(9)]
    truth = {"images": [{"id": 7, "file_name": "7.jpg", "width": 600, "height": 100}], "annotations": boxes}
    (folder / "ground_truth.json").write_text(json.dumps(truth))


def test_priors_are_drawn_over_ground_truths_before_and_after(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn", "anchors")), failed={("fpn+anchors", 0): "lost"})
    plain, fitted = [[[0.1, 0.1]], [[0.2, 0.4], [0.4, 0.2]]], [[[0.05, 0.2]], [[0.2, 0.4], [0.4, 0.2]]]
    for variant, priors, matched in (("baseline", plain, 0.25), ("fpn", plain, 0.25), ("anchors", fitted, 1.0)):
        write_priors(folder, variant, priors, matched)
    write_truth(folder)
    figure = prior_plot.priors_over_ground_truths(load_run(folder))
    before, after = figure.axes
    assert before.get_title().startswith("before: baseline\n25.0% of 8 validation ground truths")
    assert after.get_title().startswith("after: anchors\n100.0% of 8 validation ground truths")
    for axes, first in ((before, (30.0, 30.0)), (after, (15.0, 60.0))):
        assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[15.0, 60.0]] * 8  # at 300, no crowd
        levels = {str(line.get_label()): line for line in axes.get_lines() if line.get_marker() not in ("None", "")}
        assert list(levels) == ["38 × 38 map", "19 × 19 map"]
        assert np.asarray(levels["38 × 38 map"].get_xydata()).ravel().tolist() == pytest.approx(first)
        assert np.asarray(levels["19 × 19 map"].get_xydata()).ravel().tolist() == pytest.approx([60, 120, 120, 60])
        assert len({str(line.get_marker()) for line in levels.values()}) == 2
    assert before.get_xlim() == after.get_xlim() == before.get_ylim()


def test_one_panel_if_no_variant_changes_the_priors(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)))
    for variant in ("baseline", "fpn"):
        write_priors(folder, variant, [[[0.1, 0.1]], [[0.2, 0.4]]], 0.5)
    figure = prior_plot.priors_over_ground_truths(load_run(folder))  # without ground truths, too
    assert [axes.get_title().splitlines()[0] for axes in figure.axes] == ["baseline"]


def test_the_priors_of_the_plan_are_shown_before_any_cell_is_done(tmp_path: Path) -> None:
    detector = {"size": 300, "feature_maps": [38], "priors": [[[0.1, 0.1]]], "match_threshold": 0.5}
    rows = matrix(("fpn",))
    pending = [(name_of(row), 0) for row in rows]
    folder = write_run(tmp_path / "run", factors=rows, pending=pending, changes={"base": {"detector": detector}})
    write_truth(folder)
    (axes,) = prior_plot.priors_over_ground_truths(load_run(folder)).axes
    assert axes.get_title() == "baseline\nvalidation ground truths matched: n/a"


def test_many_ground_truths_are_subsampled_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prior_plot, "MAX_TRUTHS", 5)
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)))
    write_priors(folder, "baseline", [[[0.1, 0.1]], [[0.2, 0.4]]], 0.5)
    write_truth(folder)
    figure = prior_plot.priors_over_ground_truths(load_run(folder))
    assert len(np.asarray(figure.axes[0].collections[0].get_offsets())) == 5
    assert "5 of 8 ground truths" in figure.get_supxlabel()
