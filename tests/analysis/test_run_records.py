"""Frames contain exactly what the records contain, and failed cells have no numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.analysis.run_records import (
    cells_frame,
    classes_frame,
    load_run,
    log_frame,
    repeated_looks,
    sweep_frame,
    worth_of,
)
from bench.errors import UserError
from tests.report.made_run import AXES, CLASSES, matrix, write_run


def test_a_run_keeps_plan_order_and_knows_its_baseline(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", controls=("half-data",), seeds=(0, 1)))
    assert run.variants[0] == "baseline" and run.variants[-1] == "half-data"
    assert run.axes == AXES and run.seeds == (0, 1)
    assert run.baseline == "baseline"
    assert [cell.variant for cell in run.cells[::2]] == list(run.variants)


def test_what_is_worth_having_is_stored_in_points_and_read_as_a_fraction(tmp_path: Path) -> None:
    assert worth_of(load_run(write_run(tmp_path / "older"))) == 0.01
    assert worth_of(load_run(write_run(tmp_path / "run", changes={"worth": 2.5}))) == 0.025


@pytest.mark.parametrize(
    ("seeds", "sources", "looks"),
    [
        ((0, 1), None, False),
        ((2, 3), None, True),
        ((0, 1), [[0, 1], [0, 1]], False),  # other axes, the same seeds
        ((0, 1, 2), [[0, 1], [2]], True),
        ((1,), [[1], [1]], True),
        ((0, 1), [None, None], True),  # merged by an older version, which did not keep them
        ((0,), [None, None], False),
    ],
)
def test_looks_are_repeated_if_seeds_came_later(
    seeds: tuple[int, ...], sources: list[list[int] | None] | None, looks: bool, tmp_path: Path
) -> None:
    merged = {} if sources is None else {"merged": [{"run": "x"} | ({"seeds": s} if s else {}) for s in sources]}
    run = load_run(write_run(tmp_path / "run", factors=[{}], seeds=seeds, changes=merged))
    assert repeated_looks(run) is looks


def test_metrics_are_those_of_the_record(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run"))
    frame = cells_frame(run).set_index("variant")
    (cell,) = [cell for cell in run.cells if cell.variant == "fpn"]
    record = json.loads((tmp_path / "run/cells" / cell.id / "record.json").read_text())
    assert frame.loc["fpn", "accuracy.AP"] == record["accuracy"]["AP"]
    assert frame.loc["fpn", "speed.latency_p99_ms"] == record["speed"]["latency_p99_ms"]
    assert frame.loc["fpn", "accuracy.ground_truths.small_network"] == 201
    assert frame.loc["fpn", "factors.fpn"] and not frame.loc["fpn", "factors.anchors"]
    assert frame["accuracy.AP_large_network"].isna().all()  # null in the record
    assert not [name for name in map(str, frame) if "per_class" in name or "sweep" in name]


def test_failed_and_pending_cells_have_no_metrics(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", failed={("fpn", 0): "out of memory"}, pending=[("anchors", 0)])
    run = load_run(folder)
    path = run.folder_of(next(cell.id for cell in run.cells if cell.variant == "fpn")) / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"accuracy": {"AP": 0.9}}))  # partial result of a failed cell
    frame = cells_frame(load_run(folder)).set_index("variant")
    assert frame.loc["fpn", "status"] == "failed" and frame.loc["fpn", "cause"] == "out of memory"
    assert frame.loc["anchors", "status"] == "pending"
    assert frame.loc[["fpn", "anchors"], "accuracy.AP"].isna().all()
    assert frame["accuracy.AP"].notna().sum() == 6


@pytest.mark.parametrize(
    ("failure", "diverged"),
    [
        ({"cause": "x", "diverged": True}, True),
        ({"cause": "the loss is nan at step 3 of 8", "diverged": False}, False),
        # Records until November 2026
        ({"cause": "the loss is nan at step 3 of 8", "traceback": None}, True),
        ({"cause": "weights are not finite after step 4 of 4"}, True),
        ({"cause": "x", "traceback": "bench.training.trainer.NotFinite: x"}, True),
        ({"cause": "out of memory at step 3 of 8", "traceback": "MemoryError"}, False),
        (None, False),
    ],
)
def test_divergence_is_told_apart_from_other_failures(
    tmp_path: Path, failure: dict[str, object] | None, diverged: bool
) -> None:
    folder = write_run(tmp_path / "run", factors=matrix(("fpn",)), failed={("fpn", 0): "x"})
    run = load_run(folder)
    baseline, fpn = run.cells
    path = run.folder_of(fpn.id) / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"failure": failure}))
    run = load_run(folder)
    assert (run.diverged(baseline), run.diverged(fpn)) == (False, diverged)


@pytest.mark.parametrize(
    ("text", "count"), [('{"train": {"files": ["a", "b"]}}', 2), ("{}", None), ("[1", None), (None, None)]
)
def test_training_images_are_those_of_the_split(tmp_path: Path, text: str | None, count: int | None) -> None:
    folder = write_run(tmp_path / "run", factors=[{}])
    if text is not None:
        (folder / "split.json").write_text(text)
    assert load_run(folder).train_images == count


def test_classes_and_sweep_have_one_row_each(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", seeds=(0, 1), failed={("fpn", 1): "x"}))
    classes = classes_frame(run)
    assert len(classes) == 15 * len(CLASSES)
    assert list(dict.fromkeys(classes["class"])) == list(CLASSES)
    assert classes.loc[classes["class"] == "car", "AP"].isna().all()
    sweep = sweep_frame(run)
    assert sorted(set(sweep["batch"])) == [1, 2, 4, 8] and len(sweep) == 15 * 4


def test_a_resumed_log_counts_each_step_once_and_skips_a_truncated_line(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", factors=[{}]))
    log = run.folder_of(run.cells[0].id) / "log.jsonl"
    steps = [(1, 9.0), (2, 8.0), (3, 7.0), (2, 5.0), (3, float("inf"))]
    log.write_text("".join(json.dumps({"step": step, "loss": loss}) + "\n" for step, loss in steps) + '{"step": 4, "lo')
    frame = log_frame(run)
    assert frame["step"].tolist() == [1, 2, 3]
    assert frame["loss"].tolist()[:2] == [9.0, 5.0]
    assert frame["loss"].isna().tolist() == [False, False, True]


def test_frames_of_a_run_without_records_are_empty_but_have_their_columns(tmp_path: Path) -> None:
    pending = [("+".join(name for name, on in row.items() if on) or "baseline", 0) for row in matrix()]
    run = load_run(write_run(tmp_path / "run", pending=pending))
    assert set(cells_frame(run)["status"]) == {"pending"}
    assert len(classes_frame(run)) == len(sweep_frame(run)) == len(log_frame(run)) == 0
    assert "loss" in log_frame(run) and "AP" in classes_frame(run)


def test_invalid_run_folders_are_rejected_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no plan\.json"):
        load_run(tmp_path)
    folder = write_run(tmp_path / "run", changes={"schema": 99})
    with pytest.raises(UserError, match=r"plan\.json has schema 99"):
        load_run(folder)
    (folder / "plan.json").write_text('{"variants": []}')
    with pytest.raises(UserError, match="not a plan"):
        load_run(folder)
    (folder / "plan.json").write_text("[1, 2")
    with pytest.raises(UserError, match="cannot be read"):
        load_run(folder)
    with pytest.raises(UserError, match="does not list"):
        load_run(write_run(tmp_path / "other", changes={"variants": ["baseline"]}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 2, "status": "done"}', "schema 2"),
        ('{"schema": 1, "status": "do', "cannot be read"),
        ('{"schema": 1, "status": "running"}', "status 'running'"),
        ('{"schema": 1, "status": "done", "id": "another"}', "id 'another'"),
        ("[]", "not a JSON object"),
    ],
)
def test_an_invalid_record_is_rejected_by_path(tmp_path: Path, content: str, message: str) -> None:
    run = load_run(write_run(tmp_path / "run"))
    path = run.folder_of(run.cells[3].id) / "record.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_run(run.folder)
    assert str(path) in str(caught.value)
