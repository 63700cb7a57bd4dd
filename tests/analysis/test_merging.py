"""Runs of one ablation merge into one; incomparable runs are rejected with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import run_all
from bench.analysis import merging
from bench.analysis.merging import merge_runs
from bench.analysis.run_records import load_run, repeated_looks
from bench.errors import UserError
from bench.storage.lock import lock_run_folder
from tests.analysis.made_run import write_matches
from tests.report.oracles import written_tables

TABLES = ("ablation", "effects", "per_class", "sizes", "errors", "throughput")


def part_of(whole: Path, folder: Path, keep: Callable[[Mapping[str, Any]], bool], **changes: Any) -> Path:
    """Copy a run with only the cells to keep, and replace top-level entries of its plan."""
    shutil.copytree(whole, folder)
    plan = json.loads((folder / "plan.json").read_text())
    for cell in plan["cells"]:
        if not keep(cell):
            shutil.rmtree(folder / "cells" / cell["id"], ignore_errors=True)
    plan["cells"] = [cell for cell in plan["cells"] if keep(cell)]
    plan["variants"] = list(dict.fromkeys(cell["variant"] for cell in plan["cells"]))
    plan["seeds"] = sorted({cell["seed"] for cell in plan["cells"]})
    (folder / "plan.json").write_text(json.dumps(plan | changes))
    return folder


def by_seed(whole: Path) -> list[Path]:
    """Split a run into one of seed 0 and one of seed 1."""
    return [
        part_of(whole, whole.parent / "zero", lambda cell: cell["seed"] == 0),
        part_of(whole, whole.parent / "one", lambda cell: cell["seed"] == 1),
    ]


def tables_of(folder: Path) -> dict[str, pd.DataFrame]:
    """Write and read the tables, without the slower plots."""
    written_tables(folder)
    return {name: pd.read_csv(folder / "tables" / f"{name}.csv") for name in TABLES}


def assert_equal_tables(one: Path, other: Path) -> None:
    """Compare after merging both, because merging reorders the cells."""
    ours, theirs = tables_of(one), tables_of(merge_runs([other], other.parent / "in order"))
    for name in TABLES:
        pd.testing.assert_frame_equal(ours[name], theirs[name])


def test_seeds_trained_separately_merge(tmp_path: Path) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn", "anchors"), seeds=(0, 1, 2))
    first = part_of(whole, tmp_path / "first", lambda cell: cell["seed"] < 2)
    second = part_of(whole, tmp_path / "second", lambda cell: cell["seed"] >= 1)  # seed 1 is in both
    merged = merge_runs([first, second], tmp_path / "merged")
    assert load_run(merged).seeds == (0, 1, 2)
    assert_equal_tables(merged, whole)
    assert "3 seeds" in (merged / "tables" / "effects.md").read_text()


def test_axes_and_controls_trained_separately_merge(tmp_path: Path) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn", "anchors"), controls=("half-data",))
    without = part_of(whole, tmp_path / "a", lambda cell: not cell["factors"]["anchors"] and cell["control"] is None)
    plan = json.loads((without / "plan.json").read_text())
    plan["axes"] = ["fpn"]
    for cell in plan["cells"]:
        del cell["factors"]["anchors"]
    (without / "plan.json").write_text(json.dumps(plan))
    rest = part_of(whole, tmp_path / "b", lambda cell: cell["factors"]["anchors"] or cell["control"] is not None)
    assert_equal_tables(merge_runs([without, rest], tmp_path / "merged"), whole)


def test_a_failed_or_missing_cell_comes_from_the_run_that_finished_it(tmp_path: Path) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",))
    broken = part_of(whole, tmp_path / "broken", lambda cell: True)
    record = broken / "cells" / load_run(whole).cells[1].id / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "failed", "failure": {"cause": "bang"}}))
    for order in ([broken, whole], [whole, broken]):
        merged = merge_runs(order, tmp_path / "merged")  # the second merge replaces the first
        assert [load_run(merged).status(cell) for cell in load_run(merged).cells] == ["done", "done"]


def test_a_merged_run_knows_the_seeds_of_its_sources(tmp_path: Path) -> None:
    """Later seeds are a second look, also if the merged run is merged again; other axes of the same seeds are not."""
    whole = write_matches(tmp_path / "whole", axes=("fpn",), seeds=(0, 1), controls=("half-data",))
    zero, one = by_seed(whole)
    looked = merge_runs([zero, one], tmp_path / "merged")
    again = merge_runs([looked, whole], tmp_path / "again")
    assert [source["seeds"] for source in load_run(again).plan["merged"]] == [[0], [1], [0, 1]]
    alone = part_of(whole, tmp_path / "alone", lambda cell: cell["control"] is None)
    control = part_of(whole, tmp_path / "control", lambda cell: cell["control"] is not None)
    both = merge_runs([alone, control], tmp_path / "both")
    assert [repeated_looks(load_run(run)) for run in (whole, looked, again, both)] == [False, True, True, False]


def test_source_runs_stay_unchanged(tmp_path: Path) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",), seeds=(0, 1))
    parts = by_seed(whole)
    before = {path: path.read_bytes() for part in parts for path in part.rglob("*") if path.is_file()}
    tables_of(merge_runs(parts, tmp_path / "merged"))
    assert {path: path.read_bytes() for part in parts for path in part.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "other"}, "they differ in split"),
        ({"profile": "standard"}, 'profile ("quick" and "standard")'),
        ({"backbone": "vgg16"}, "backbone"),
        ({"base": {"training": {"steps": 9}}}, "differ in base"),
        ({"axis_files": {"fpn": "edited"}}, "file of axis 'fpn' changed"),
    ],
)
def test_incomparable_runs_are_rejected_by_name(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",))
    other = part_of(whole, tmp_path / "other", lambda cell: True, **changes)
    with pytest.raises(UserError, match="cannot be merged") as told:
        merge_runs([whole, other], tmp_path / "merged")
    assert message in str(told.value)
    assert not (tmp_path / "merged").exists()


def test_a_differing_specification_is_named_by_path(tmp_path: Path) -> None:
    steps = [{"training": {"rate": 0.1, "steps": count}, "detector": {"size": 300}} for count in (90, 200)]
    whole = write_matches(tmp_path / "whole", axes=("fpn",), changes={"base": steps[0]})
    other = part_of(whole, tmp_path / "other", lambda cell: True, base=steps[1])
    with pytest.raises(UserError, match=r"base, training.steps \(90 and 200\)"):
        merge_runs([whole, other], tmp_path / "merged")


def test_two_results_of_one_cell_are_rejected(tmp_path: Path) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",))
    again = part_of(whole, tmp_path / "again", lambda cell: True)
    record = again / "cells" / load_run(whole).cells[0].id / "record.json"
    content = json.loads(record.read_text())
    content["accuracy"]["AP"] = 0.123
    record.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"both contain baseline, seed 0, with different results .*0\.123"):
        merge_runs([whole, again], tmp_path / "merged")


def test_rows_from_different_machines_are_noted(tmp_path: Path) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",), seeds=(0, 1))
    parts = by_seed(whole)
    for path in parts[1].glob("cells/*/record.json"):
        content = json.loads(path.read_text())
        content["environment"] = {"device": {"name": "Another CPU", "threads": 8}}
        path.write_text(json.dumps(content))
    merged = merge_runs(parts, tmp_path / "merged")
    tables_of(merged)
    table = (merged / "tables" / "ablation.md").read_text()
    assert "are not comparable" in table
    assert "Another CPU, 8 threads: baseline (seed 1), fpn (seed 1)" in table
    tables_of(whole)
    assert "are not comparable" not in (whole / "tables" / "ablation.md").read_text()


def test_an_interrupted_merge_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",), seeds=(0, 1))
    parts, out = by_seed(whole), tmp_path / "merged"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(merging, "_copy", interrupted)
        merge_runs(parts, out)
    assert_equal_tables(merge_runs(parts, out), whole)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_merge_replaces_the_first_and_keeps_a_users_files(tmp_path: Path) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",), seeds=(0, 1))
    zero, one = by_seed(whole)
    out = merge_runs([zero, one], tmp_path / "merged")
    gone, kept = (out / "cells" / next((part / "cells").iterdir()).name for part in (zero, one))
    users = [out / "notes.txt", out / "tables/mine.csv", kept / "notes.txt", out / "cells/mine/record.json"]
    for path in users:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the user's")
    merge_runs([one], out)
    assert [path.read_text() for path in users] == ["the user's"] * 4
    assert not gone.exists()
    assert [load_run(out).status(cell) for cell in load_run(out).cells] == ["done", "done"]


@pytest.mark.parametrize("nested", ["one", "deep/below/one"])
def test_runs_in_the_folder_of_the_merged_run_are_refused(
    nested: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",), seeds=(0, 1))
    out = merge_runs(by_seed(whole), tmp_path / "merged")
    inside = part_of(whole, out / nested, lambda cell: cell["seed"] == 1)
    before = contents(tmp_path)
    (tmp_path / "link").symlink_to(out)
    for words in ([tmp_path / "zero", inside, "--out", tmp_path / "link"], [whole, out, "--out", out]):
        assert run_all.main(["report", *map(str, words)]) == 2
        assert "merging would change the run" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_a_merged_run_in_the_folder_of_a_source_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",), seeds=(0, 1))
    parts = by_seed(whole)
    before = contents(tmp_path)
    out = parts[1] / "cells" / "merged"
    assert run_all.main(["report", *map(str, parts), "--out", str(out)]) == 2
    assert f"merging would change the run {parts[1]}" in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert not out.exists()


def test_a_merged_run_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",), seeds=(0, 1))
    parts = by_seed(whole)
    out = merge_runs(parts, tmp_path / "merged")
    before = contents(out)
    with lock_run_folder(out, print):
        assert run_all.main(["report", *map(str, parts), "--out", str(out)]) == 2
        assert "is in use by another run" in capsys.readouterr().err
    assert contents(out) == before


def test_thumbnails_are_those_of_the_first_run_that_has_some(tmp_path: Path) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",), seeds=(0, 1))
    zero, one = by_seed(whole)
    (one / "thumbnails").mkdir()
    for name in ("7.jpg", "holiday.jpg"):
        (one / "thumbnails" / name).write_text(name)
    (one / "thumbnails/thumbnails.json").write_text('{"thumbnails": [{"image_id": 7, "file": "7.jpg", "scale": 1}]}')
    for _ in range(2):
        out = merge_runs([zero, one], tmp_path / "merged")
        assert sorted(path.name for path in (out / "thumbnails").iterdir()) == ["7.jpg", "thumbnails.json"]
    assert list((merge_runs([zero], out) / "thumbnails").iterdir()) == []


def test_the_command_merges_and_rejects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write_matches(tmp_path / "whole", axes=("fpn",), seeds=(0, 1))
    parts = by_seed(whole)
    out = tmp_path / "merged"
    assert run_all.main(["report", *map(str, parts), "--out", str(out)]) == 0
    assert (out / "report.html").is_file()
    assert run_all.main(["report", *map(str, parts), "--out", str(whole)]) == 2
    assert "not an earlier merged run" in capsys.readouterr().err
    assert run_all.main(["report", str(whole), "--out", str(out)]) == 2
    assert "--out is only for merged runs" in capsys.readouterr().err
