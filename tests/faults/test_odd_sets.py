"""Tiny and one-sided data: correct figures if there can be any, otherwise one sentence."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import run_all
from tests.dataset_builders import voc_folder
from tests.small_runs import records, request_words

pytestmark = pytest.mark.usefixtures("undrawn")


def with_lists(root: Path, train: list[int], val: list[int]) -> Path:
    """Images of squares (even numbers) and bars (odd numbers), with these lists."""
    folder = voc_folder(root, trained=None)
    for name, numbers in (("train", train), ("val", val)):
        (folder / f"ImageSets/Main/{name}.txt").write_text("\n".join(map(str, numbers)))
    return folder


def run(data: Path, weights: Path, folder: Path) -> int:
    return run_all.main([*request_words(data, weights, folder), "--axes", "anchors"])


def test_no_class_in_common_between_the_splits(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = with_lists(tmp_path / "data", [0, 2, 4], [1, 3])
    assert run(data, tiny_weights, tmp_path) == 0
    assert "class-without-training-boxes" in capsys.readouterr().out
    found = records(tmp_path / "run")
    assert [found[variant]["accuracy"]["AP"] for variant in ("baseline", "anchors")] == [0.0, 0.0]
    assert found["baseline"]["accuracy"]["ground_truths"]["all"] == 2


def test_one_class(tiny_weights: Path, tmp_path: Path) -> None:
    data = with_lists(tmp_path / "data", [0, 2, 4], [6, 8])
    assert run(data, tiny_weights, tmp_path) == 0
    found = records(tmp_path / "run")
    assert {record["status"] for record in found.values()} == {"done"}
    assert found["baseline"]["detector"]["classes"] == 1


def test_one_image_to_train_and_one_to_score(tiny_weights: Path, tmp_path: Path) -> None:
    data = with_lists(tmp_path / "data", [0], [2])
    assert run(data, tiny_weights, tmp_path) == 0
    assert records(tmp_path / "run")["anchors"]["accuracy"]["images"] == 1


def test_one_image_cannot_be_split(tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = voc_folder(tmp_path / "data", range(1), trained=None)
    assert run(data, tiny_weights, tmp_path) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert "is empty; usable images: 1. Add images" in printed
    assert not (tmp_path / "run").exists()


def test_sizes_without_validation_objects_have_no_figure(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = with_lists(tmp_path / "data", [0, 1, 2], [3, 4])
    assert run(data, tiny_weights, tmp_path) == 0
    table = pd.read_csv(tmp_path / "run/tables/ablation.csv")
    assert (table["ground_truths_small"] == 2).all()  # of 400 and 800 pixels
    for size in ("medium", "large"):
        assert (table[f"ground_truths_{size}"] == 0).all()
        assert table[f"AP_{size}"].isna().all()
    assert "n/a" in capsys.readouterr().out
    assert "n/a" in (tmp_path / "run/tables/ablation.md").read_text()


def test_no_objects_to_score_have_no_figure_at_all(tiny_weights: Path, tmp_path: Path) -> None:
    data = with_lists(tmp_path / "data", [0, 1, 2], [3, 4])
    for number in (3, 4):
        path = data / f"Annotations/{number}.xml"
        text = path.read_text()
        path.write_text(text[: text.index("<object>")] + "</annotation>")
    assert run(data, tiny_weights, tmp_path) == 0
    table = pd.read_csv(tmp_path / "run/tables/ablation.csv")
    assert list(table["status"]) == ["done", "done"]
    assert table["AP"].isna().all()
