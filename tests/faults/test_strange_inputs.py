"""Inputs that are no regular files end in one sentence: nothing blocks, and no device is read."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import run_all
from tests.dataset_builders import coco_folder, voc_folder, yolo_file

PATIENCE = 120  # seconds, after which a blocked case is interrupted


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("blocked"))
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket; its path has at most 107 bytes, so it is made from its folder."""
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    monkeypatch.undo()


KINDS = ("pipe", "device", "socket")


def put(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.unlink(missing_ok=True)
    if kind == "socket":
        listening(path, monkeypatch)
    else:
        {"pipe": pipe, "device": device}[kind](path)


def voc(root: Path) -> str:
    return f"voc:{voc_folder(root, range(3), trained=2)}"


def coco(root: Path) -> str:
    coco_folder(root, range(3))
    (root / "annotations").mkdir()
    (root / "annotations.json").rename(root / "annotations/instances_all.json")
    return f"coco:{root}"


def yolo(root: Path) -> str:
    return f"yolo:{yolo_file(root, range(3))}"


def yolo_list(root: Path) -> str:
    yolo_file(root, range(3))
    (root / "train.txt").write_text("images/train/0.jpg\n")
    (root / "data.yaml").write_text("train: train.txt\nnames: [a, b]\n")
    return f"yolo:{root / 'data.yaml'}"


def yolo_folder(root: Path) -> str:
    yolo_file(root, range(3))
    return f"yolo:{root}"


DATA = {
    "VOC annotation": (voc, "Annotations/1.xml"),
    "VOC list": (voc, "ImageSets/Main/train.txt"),
    "VOC image": (voc, "JPEGImages/1.jpg"),
    "COCO annotations": (coco, "annotations/instances_all.json"),
    "COCO image": (coco, "images/1.jpg"),
    "YOLO label": (yolo, "labels/train/1.txt"),
    "YOLO description": (yolo, "data.yaml"),
    "YOLO list": (yolo_list, "train.txt"),
    "YOLO image": (yolo, "images/train/1.jpg"),
    "YOLO description in a folder": (yolo_folder, "data.yaml"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DATA)
def test_a_part_of_the_data_that_is_no_file_is_named(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build, part = DATA[name]
    source = build(tmp_path / "data")
    put(kind, tmp_path / "data" / part, monkeypatch)
    folders = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert run_all.main(["preflight", "--data", source, *folders]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and "Traceback" not in printed.err
    # A folder without a readable description is named itself
    assert (Path(part).name if "in a folder" not in name else str(tmp_path / "data")) in printed.out + printed.err


OPTIONS: dict[str, Callable[[Path], list[str]]] = {
    "--config": lambda path: ["--config", str(path)],
    "--priors": lambda path: ["--priors", str(path)],
    "--axis-file": lambda path: ["--axis-file", str(path)],
    "--weights": lambda path: ["--weights", str(path)],
    "--detections": lambda path: ["diagnose", "--detections", str(path)],
    "--out": lambda path: ["--out", str(path)],
    "--cache": lambda path: ["--cache", str(path)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_names_no_file_is_refused(
    *,
    option: str,
    kind: str,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "strange.py"
    put(kind, path, monkeypatch)
    words = OPTIONS[option](path)
    rest = ["--data", f"voc:{pictures}", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    asked = words[:1] if words[0] == "diagnose" else []
    assert run_all.main([*asked, *rest, *words[len(asked) :]]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and "Traceback" not in printed
    assert str(path) in printed or "/dev/zero" in printed  # some options resolve links
