"""Which folders are ours, and which files in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.storage.own_files import (
    check_output,
    output_folder,
    remove_cell,
    remove_thumbnails,
    stored_thumbnails,
)
from bench.storage.run_folder import CELL_FILES, LOCK, MARKER, cell_folder
from tests.report.made_run import write_run

CELL = "0123456789ab"


def earlier_result(folder: Path, name: str) -> Path:
    """A folder with a result of a version that had no marker."""
    contents = {
        "preflight.json": {"images_checked": 3, "problems": [], "root": "x"},
        "diagnosis.json": {"findings": [], "suspect_kinds": {}, "sizes": {}},
        "throughput.json": {"stages": [], "training_steps": [], "speed": {}},
    }
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps(contents[name]))
    return folder


def test_new_and_empty_folders_are_ours(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "below")
    check_output(tmp_path)
    for name in (LOCK, f".{MARKER}.12.ssd-ablation", ".plan.json.12.ssd-ablation"):  # of a killed start
        (tmp_path / name).touch()
    check_output(tmp_path)


def test_a_marked_folder_is_ours_whatever_else_it_holds(tmp_path: Path) -> None:
    with output_folder(tmp_path / "out"):
        (tmp_path / "out" / "result.json").touch()
    (tmp_path / "out" / "notes.txt").touch()
    check_output(tmp_path / "out")


@pytest.mark.parametrize("name", ["preflight.json", "diagnosis.json", "throughput.json"])
def test_results_of_earlier_versions_are_ours(name: str, tmp_path: Path) -> None:
    check_output(earlier_result(tmp_path / "out", name))
    (tmp_path / "out" / name).write_text('{"problems": "of a user", "findings": 1, "stages": 2}')
    with pytest.raises(UserError, match=name):
        check_output(tmp_path / "out")


def test_runs_of_earlier_versions_and_their_predictions_are_ours(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for folder in (run / "predictions", tmp_path / "predictions"):
        folder.mkdir()
        (folder / "7.baseline.png").touch()
    check_output(run)
    check_output(run / "predictions")
    with pytest.raises(UserError, match=r"7\.baseline\.png"):
        check_output(tmp_path / "predictions")


def test_other_folders_are_refused_by_the_names_of_their_files(tmp_path: Path) -> None:
    for name in ("thesis.tex", "a", ".hidden.2026", "b"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"\.hidden\.2026, a, b and 1 more.*--out") as raised:
        check_output(tmp_path)
    assert str(raised.value).startswith(str(tmp_path))


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        "{",
        "",
        "[1]",
        "[" * 100_000,
        "\ud800",
        '{"tasks": ["buy milk"]}',
        '{"variants": [], "axes": [], "seeds": [], "cells": [{"id": "../../home"}]}',
        '{"variants": [], "axes": [], "seeds": [], "cells": [], "numerics": 3}',
        '{"schema": 99, "variants": [], "axes": [], "seeds": [], "cells": []}',
    ],
    ids=lambda text: text[:20] if isinstance(text, str) else None,
)
def test_a_damaged_or_foreign_plan_is_named(content: str, marked: bool, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(content.encode(errors="surrogatepass"))
    if marked:
        (tmp_path / MARKER).touch()
    with pytest.raises(UserError, match=r"/plan\.json "):
        check_output(tmp_path)


def test_an_output_folder_without_output_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wrong"), output_folder(tmp_path / "results" / "name"):
        raise UserError("something else is wrong")
    assert list(tmp_path.iterdir()) == []
    with output_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_results_is_not_marked_again(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with output_folder(run):
        pass
    assert not (run / MARKER).exists()


def test_a_removed_cell_leaves_the_files_of_others(tmp_path: Path) -> None:
    for cell_id in (CELL, CELL[::-1]):
        cell_folder(tmp_path, cell_id).mkdir(parents=True)
        for name in (*CELL_FILES, ".record.json.12.ssd-ablation"):
            (cell_folder(tmp_path, cell_id) / name).touch()
    (cell_folder(tmp_path, CELL) / "notes.txt").touch()
    for cell_id in (CELL, CELL[::-1], "ffffffffffff"):
        remove_cell(tmp_path, cell_id)
    assert [path.name for path in cell_folder(tmp_path, CELL).iterdir()] == ["notes.txt"]
    assert not cell_folder(tmp_path, CELL[::-1]).exists()


def test_a_cell_that_is_a_link_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "record.json").touch()
    cell_folder(tmp_path, CELL).parent.mkdir()
    cell_folder(tmp_path, CELL).symlink_to(elsewhere)
    remove_cell(tmp_path, CELL)
    assert (elsewhere / "record.json").exists()


def test_only_listed_thumbnails_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "thumbnails"
    folder.mkdir()
    for name in ("1.jpg", "-2.jpg", "3.jpg", "holiday.jpg", "../4.jpg"):
        (folder / name).touch()
    listed = [{"file": name} for name in ("1.jpg", "-2.jpg", "holiday.jpg", "../4.jpg", "5.jpg")]
    (folder / "thumbnails.json").write_text(json.dumps({"thumbnails": [*listed, 6, {}]}))
    assert [path.name for path in stored_thumbnails(tmp_path)] == ["1.jpg", "-2.jpg", "5.jpg"]
    remove_thumbnails(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["3.jpg", "holiday.jpg"]
    assert (tmp_path / "4.jpg").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"thumbnails": null}', "{}"])
def test_a_damaged_list_of_thumbnails_removes_no_image(text: str, tmp_path: Path) -> None:
    (tmp_path / "thumbnails").mkdir()
    (tmp_path / "thumbnails" / "1.jpg").touch()
    (tmp_path / "thumbnails" / "thumbnails.json").write_text(text)
    remove_thumbnails(tmp_path)
    assert [path.name for path in (tmp_path / "thumbnails").iterdir()] == ["1.jpg"]
