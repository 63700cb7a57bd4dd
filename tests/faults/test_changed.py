"""Changes since a run began are detected and named, and never mixed in silently."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import run_all
from bench.data import split as splits
from bench.data.dataset import Dataset, open_dataset
from bench.data.image_files import changed_image_files, save_image_files
from bench.errors import UserError
from bench.run.plan import settle_software
from bench.storage.provenance import environment, software_changes
from bench.storage.run_folder import IMAGE_FILES, RECORD, cell_folder
from tests.dataset_builders import picture, voc_folder, xml_of


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Ten images, with a frozen split in `run`."""
    opened = reopened(voc_folder(tmp_path / "voc"))
    splits.save(opened.split, opened.index, tmp_path / "run/split.json")
    save_image_files(opened.index, tmp_path / "run" / IMAGE_FILES, workers=2)
    return opened


def reopened(root: Path) -> Dataset:
    run = root.parent / "run/split.json"
    return open_dataset(f"voc:{root}", cache=root.parent / "cache", workers=1, frozen=run)


def test_copied_or_moved_data_are_accepted(data: Dataset, tmp_path: Path) -> None:
    root = data.index.root
    for path in root.rglob("*.jpg"):
        os.utime(path, (1, 1))
    assert reopened(root).split.fingerprint == data.split.fingerprint
    shutil.move(root, tmp_path / "elsewhere")
    assert reopened(tmp_path / "elsewhere").split.fingerprint == data.split.fingerprint


def test_a_replaced_image_of_the_same_size_is_named(data: Dataset) -> None:
    root = data.index.root
    picture(3).save(root / "JPEGImages/7.jpg")
    with pytest.raises(
        UserError, match=r"1 of 10 images .* have changed since .*\(JPEGImages/7\.jpg\)\. Restore .*--out"
    ):
        reopened(root)


def test_one_changed_byte_is_found_by_the_checksum(data: Dataset, tmp_path: Path) -> None:
    path = data.index.root / "JPEGImages/2.jpg"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert changed_image_files(data.index, tmp_path / "run" / IMAGE_FILES) == ["JPEGImages/2.jpg"]


def test_a_replaced_image_that_was_dated_back_is_found(data: Dataset, tmp_path: Path) -> None:
    path = data.index.root / "JPEGImages/2.jpg"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    list_file = tmp_path / "run" / IMAGE_FILES
    assert changed_image_files(data.index, list_file) == ["JPEGImages/2.jpg"]
    stored = json.loads(list_file.read_text())
    stored["files"] = {name: state[:3] for name, state in stored["files"].items()}  # as an earlier version wrote it
    list_file.write_text(json.dumps(stored))
    assert changed_image_files(data.index, list_file) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda root: (root / "Annotations/1.xml").write_text(xml_of(3)), "1 images of train .*1.jpg"),
        (lambda root: (root / "Annotations/8.xml").write_text(xml_of(8, objects="")), "1 images of val .*8.jpg"),
        (
            lambda root: (root / "Annotations/1.xml").write_text(xml_of(1).replace(">bar<", ">rod<")),
            "classes were bar, square, now bar, rod, square",
        ),
        (lambda root: (root / "ImageSets/Main/val.txt").write_text("6\n7\n8"), "1 images of val are missing"),
    ],
    ids=["box", "no objects", "class", "list"],
)
def test_changed_annotations_are_named(data: Dataset, change: Any, named: str) -> None:
    change(data.index.root)
    with pytest.raises(UserError, match=rf"{named}.*Restore the data, or start a new run"):
        reopened(data.index.root)


def test_an_edited_split_is_refused(data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "run/split.json"
    content = json.loads(path.read_text())
    for entry in ("files", "digests"):
        content["train"][entry].append(content["val"][entry].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="the file itself was edited"):
        reopened(data.index.root)


def run_of(folder: Path, *environments: dict[str, Any], status: str = "done") -> Path:
    """A run folder with one record per environment."""
    for number, each in enumerate(environments):
        path = cell_folder(folder, f"{number:012x}") / RECORD
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"id": path.parent.name, "status": status, "environment": each}))
    return folder


def with_torch(version: str) -> dict[str, Any]:
    own = environment({})
    return {**own, "packages": {**own["packages"], "torch": version}}


def test_software_that_only_reports_does_not_count(tmp_path: Path) -> None:
    own = environment({})
    reporting = {**own, "code": "commit 0123456789ab", "packages": {**own["packages"], "pandas": "0.1"}}
    assert software_changes(run_of(tmp_path, own, reporting)) == []


def test_other_software_is_named_with_the_choices(tmp_path: Path) -> None:
    run = run_of(tmp_path, environment({}), with_torch("1.0.0"), {**environment({}), "sources": "sources 0"})
    with pytest.raises(UserError) as raised:
        settle_software(run, mixed=False, warn=print)
    text = str(raised.value)
    assert "torch: was 1.0.0, is " in text
    assert "this program: was sources 0, is sources " in text
    assert "--out results/NAME" in text
    assert "--mix-versions" in text
    said: list[str] = []
    settle_software(run, mixed=True, warn=said.append)
    assert "torch: was 1.0.0, is " in said[0]


def test_the_software_of_failed_cells_does_not_count(tmp_path: Path) -> None:
    assert software_changes(run_of(tmp_path, with_torch("1.0.0"), status="failed")) == []


def test_the_software_of_a_half_trained_cell_counts(tmp_path: Path) -> None:
    cell = cell_folder(tmp_path, "0" * 12)
    cell.mkdir(parents=True)
    (cell / "checkpoint.previous.pt").touch()
    (tmp_path / "environment.json").write_text(json.dumps(with_torch("1.0.0")))
    assert len(software_changes(tmp_path)) == 1


@pytest.mark.usefixtures("undrawn")
def test_a_run_resumes_with_other_software_only_on_request(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    axis = tmp_path / "wide.py"
    axis.write_text(
        "from bench.axis import Axis\n\n\nclass Wide(Axis):\n    name = 'wide'\n    slot = 'box_loss'\n\n"
        "    def apply(self, spec, prepared):\n        return spec\n"
    )
    words[words.index("--axes") + 1] = "wide"
    words += ["--axis-file", str(axis)]
    assert run_all.main(words) == 0
    paths = sorted((tmp_path / "run").glob("cells/*/record.json"))
    records = [json.loads(path.read_text()) for path in paths]
    records[0]["environment"]["packages"]["torch"] = "1.0.0"
    paths[0].write_text(json.dumps(records[0]))
    capsys.readouterr()
    # All cells are done, so nothing is mixed
    assert run_all.main(words) == 0
    paths[1].unlink()
    assert run_all.main(words) == 2
    assert "torch: was 1.0.0" in capsys.readouterr().err
    assert run_all.main([*words, "--mix-versions"]) == 0
    assert "not all computed by the same software" in " ".join(capsys.readouterr().out.split())

    axis.write_text(axis.read_text().replace("'wide'", "'wide'  # edited"))
    assert run_all.main(words) == 2
    assert "axis_files.wide: was " in capsys.readouterr().err
