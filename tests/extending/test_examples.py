"""Every example of docs/extending.md runs, and registers where the document says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.analysis.results import analyse
from bench.analysis.run_records import load_run
from bench.axis import derive, find_axes
from bench.data import sources
from bench.detector import loss, neck
from bench.detector.backbones import Backbone
from bench.detector.ssd import SSD
from bench.evaluation import metrics
from bench.evaluation.coco import evaluate
from bench.evaluation.detections import Detections
from bench.report import plots, tables
from bench.report.plots.saving import draw_into
from bench.report.tables import columns
from bench.spec import NeckSpec, Specification
from tests import tiny
from tests.conftest import REPOSITORY
from tests.extending.examples import Example, examples
from tests.report.made_run import write_run

EXAMPLES = examples()


def changed(spec: Specification, other: Specification) -> set[str]:
    """The fields of the detector that differ."""
    before, after = vars(spec.detector), vars(other.detector)
    return {name for name in before if before[name] != after[name]}


def test_there_is_one_for_each_part() -> None:
    parts = ("an axis", "a reader", "a backbone", "a neck", "a loss", "a metric", "a table", "a plot")
    assert tuple(EXAMPLES) == parts


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_lines_around_an_addition_exist(example: Example) -> None:
    for change in example.changes:
        lines = (REPOSITORY / change.file).read_text(encoding="utf-8").splitlines()
        assert change.added
        assert not [line for line in change.present if line not in lines]


def test_an_axis(tmp_path: Path) -> None:
    path = tmp_path / "object_share.py"
    path.write_text(EXAMPLES["an axis"].source, encoding="utf-8")
    axis = find_axes("variants", [path])["object_share"].axis
    base = tiny.specification()
    index, _ = tiny.rectangles(12)
    spec, prepared = derive(base, [axis], index)
    assert changed(base, spec) == {"object_probability"}
    assert prepared["object_share"]["objects_per_prior"] == pytest.approx(len(index.boxes) / 12 / 8732)


def test_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES["a reader"]
    module = example.load(tmp_path, "kitti")
    monkeypatch.setattr(sources, "FORMATS", example.registered(sources, module))
    data = tmp_path / "data"
    for folder in ("image_2", "label_2"):
        (data / folder).mkdir(parents=True)
    lines = {"a": "dog 0 0 0 1 2 30 20 0 0 0 0 0 0 0\ncat 0 0 0 30 20 5 25\ncat 0 0\n", "b": ""}
    for stem, text in lines.items():
        Image.new("RGB", (60, 40)).save(data / f"image_2/{stem}.png")
        (data / f"label_2/{stem}.txt").write_text(text, encoding="utf-8")

    for source in (f"kitti:{data}", str(data)):
        reading = sources.read_source(source, cache=tmp_path)
        assert reading.index.files == ("image_2/a.png", "image_2/b.png")
        assert reading.index.classes == ("dog",)  # no cat is usable
        assert reading.index.boxes.tolist() == [[1, 2, 30, 20]]
        assert np.diff(reading.index.offsets).tolist() == [1, 0]
        assert [(problem.kind, problem.where) for problem in reading.problems] == [
            ("inverted-box", "label_2/a.txt, line 2"),
            ("non-finite-box", "label_2/a.txt, line 3"),
        ]


def test_a_backbone(tmp_path: Path) -> None:
    EXAMPLES["a backbone"].load(tmp_path, "small_resnet")
    backbone = Backbone("small_resnet", "none")
    maps = backbone(torch.zeros(1, 3, 300, 300))
    assert [level.shape[1:] for level in maps] == [(64, 38, 38), (128, 19, 19), (256, 10, 10)]
    assert [stage.stride for stage in backbone.stages()][-3:] == [8, 16, 32]


def test_a_neck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES["a neck"]
    module = example.load(tmp_path, "context_neck")
    for name, kind in example.registered(neck, module).items():
        monkeypatch.setitem(neck.NECKS, name, kind)
    spec = replace(tiny.specification().detector, neck=NeckSpec(kind="context", channels=16, levels=0))
    logits, offsets = SSD(spec, seed=0)(torch.zeros(1, 3, 300, 300))
    assert logits.shape == (1, 8732, 3)
    assert offsets.shape == (1, 8732, 4)


def test_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES["a loss"]
    module = example.load(tmp_path, "giou")
    losses = example.registered(loss, module)
    assert set(losses) == {"smooth_l1", "ciou", "giou"}
    spec = tiny.specification().detector
    priors = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.4, 0.6, 0.1, 0.3]])
    exact, shifted = torch.zeros(2, 4), torch.tensor([[10.0, 0, 0, 0], [0, 0, 0, 0]])  # by a whole width
    assert losses["giou"](exact, exact, priors, spec).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert losses["giou"](shifted, exact, priors, spec).tolist() == pytest.approx([1, 0], abs=1e-5)
    path = tmp_path / "giou_axis.py"
    path.write_text(example.axis, encoding="utf-8")
    base = tiny.specification()
    derived, _ = derive(base, [find_axes("variants", [path])["giou"].axis], tiny.rectangles(12)[0])
    assert changed(base, derived) == {"box_loss"}
    assert derived.detector.box_loss in losses


def test_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES["a metric"]
    module = example.load(tmp_path, "worst_class")
    monkeypatch.setattr(metrics, "METRICS", example.registered(metrics, module))
    index, _ = tiny.rectangles(12)
    red = index.labels == 0
    detections = Detections(
        image=index.image_of_box[red],
        boxes=index.boxes[red].astype(np.float32),
        scores=np.ones(red.sum(), dtype=np.float32),
        labels=index.labels[red],
    )
    accuracy = metrics.with_metrics(evaluate(index, detections).accuracy, index, detections)
    assert accuracy["AP50"] == pytest.approx(0.5)
    assert accuracy["AP50_worst_class"] == 0


def test_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (column,) = EXAMPLES["a metric"].registered(columns, columns, change=1)
    monkeypatch.setitem(columns.COLUMNS, column.name, column)
    example = EXAMPLES["a table"]
    module = example.load(tmp_path, "worst_class_table")
    (make,) = example.registered(tables, module).values()
    table = make(analyse(load_run(write_run(tmp_path / "run"))))
    assert table.frame.columns.tolist() == ["variant", "AP50", "AP50_worst_class"]
    assert table.frame["AP50"].notna().all()
    assert table.frame["AP50_worst_class"].isna().all()


def test_a_plot(tmp_path: Path) -> None:
    example = EXAMPLES["a plot"]
    module = example.load(tmp_path, "ap75_against_ap50")
    (draw,) = example.registered(plots, module).values()
    analysis = analyse(load_run(write_run(tmp_path / "run")))
    files = draw_into(tmp_path / "plots", {"ap75_against_ap50": lambda: draw(analysis)})
    assert [path.suffix for path in files] == [".png", ".svg"]
