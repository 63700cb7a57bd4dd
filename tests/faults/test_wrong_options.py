"""A wrong request: the nearest valid word is suggested, and no data are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import run_all
from tests import tiny
from tests.small_runs import request_words

WRONG = [
    (["--profile", "quik"], "did you mean quick?"),
    (["--profil", "smoke"], "did you mean --profile?"),
    (["--device", "cud"], "did you mean cuda?"),
    (["--backend", "dusk"], "did you mean dask?"),
    (["--priors", "cocoo"], "did you mean coco?"),
    (["--backend", "slurm"], "loky, dask, ray"),
    (["--axes", "fpn,anchor"], "did you mean anchors?"),
    (["--controls", "lateral"], "did you mean lateral-only?"),
    (["--wieghts", "none"], "did you mean --weights?"),
    (["--hung-afte=3"], "did you mean --hung-after?"),
    (["--hung-after", "0"], "not above 0"),
    (["--retry", "-1"], "is not a whole number"),
    (["--jobs", "two"], "is not a whole number"),
    (["--seeds", "0"], "not above 0"),
    (["--lr", "nan"], "not above 0"),
    (["--val-fraction", "1.5"], "not between 0 and 1"),
    (["--backbone", "resnet9999"], "neither efficientnet_lite0 nor vgg16 nor a timm network"),
    (["--backbone", "test_efficientnt"], "did you mean "),
    (["--weights", "nowhere.pth"], "no such file"),
    (["--priors", "nowhere.json"], "no such file"),
    (["--axis-file", "nowhere.py"], "no such file"),
    (["--config", "nowhere.toml"], "nowhere.toml"),
    (["--data", "voc:nowhere"], "nowhere"),
    (["--axes", "unfreezing", "--weights", "none"], "'unfreezing' cannot be part of this run"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A request whose data exist but cannot be read."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "Annotations").mkdir()
    (folder / "Annotations/0.xml").write_text("no XML")
    weights = tiny.weights_file(folder / "tiny.pth")
    return request_words(folder, weights, folder)


@pytest.mark.parametrize(
    ("extra", "message"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_wrong_option_is_reported_before_data_are_read(
    broken: list[str], extra: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_all.main([*broken, *extra]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "unreadable-annotation" not in printed.err and "Traceback" not in printed.err
    assert not Path(broken[broken.index("--out") + 1]).exists()


@pytest.mark.parametrize("option", ["--out", "--cache"])
def test_a_file_in_place_of_a_folder(
    pictures: Path, tiny_weights: Path, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        assert run_all.main([*request_words(pictures, tiny_weights, tmp_path), option, str(tmp_path / place)]) == 2
        printed = capsys.readouterr().err
        assert "cannot be a folder" in printed and "Traceback" not in printed


def test_with_valid_options_the_data_are_reported(broken: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(broken) == 2
    assert "unreadable-annotation" in capsys.readouterr().err
    assert not Path(broken[broken.index("--out") + 1]).exists()


@pytest.mark.parametrize(
    ("word", "command"), [("preflght", "preflight"), ("diagnoze", "diagnose"), ("reprt", "report")]
)
def test_a_misspelt_command(word: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main([word]) == 2
    assert f"did you mean {command}?" in capsys.readouterr().err


def test_a_misspelt_option_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "options.toml"
    config.write_text("setps = 3\n")
    assert run_all.main(["--config", str(config)]) == 2
    assert "there is no option 'setps' (did you mean --steps?)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "message"),
    [("scene", "Did you mean scenes?"), ("voc207", "Did you mean voc2007?"), ("scenes:image=4", "images")],
)
def test_a_misspelt_source(source: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all.main(["preflight", "--data", source, "--out", str(tmp_path), "--cache", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_misspelt_list(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["preflight", "--data", f"voc:{pictures}", "--eval-list", "vall"]
    assert run_all.main([*words, "--out", str(tmp_path), "--cache", str(tmp_path)]) == 2
    assert "did you mean val?" in capsys.readouterr().err
