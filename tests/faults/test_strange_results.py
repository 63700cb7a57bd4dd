"""A results folder made by a stranger: every hostile case ends in one sentence, and nothing outside is touched.

The cases are generated and deterministic. `docs/faults.md` states how many there are.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import run_all
from bench.analysis.cell_errors import load_run_errors
from bench.analysis.image_groups import validation_groups
from bench.analysis.prior_shapes import ground_truth_shapes, prior_sets
from bench.analysis.run_records import classes_frame, load_run, log_frame, sweep_frame
from bench.analysis.speeds import load_speeds
from bench.analysis.training_fit import training_fit_frame
from bench.report.notes import machine_differences, measured_on, subject, timing_noise, unfinished_cells, why_no_ap
from bench.report.page.examples import examples
from bench.report.tables.environment import environment_table
from bench.storage.run_folder import CELL_FILES, RUN_FILES, RUN_FOLDERS
from tests.faults.hostile_results import CELL, write, write_results

SECRET = "the user's secret"
RECORD = f"cells/{CELL}/record.json"
MATCHES, ERROR_TYPES = f"cells/{CELL}/matches.npz", f"cells/{CELL}/error_types.npz"
JSON_FILES = ("plan.json", RECORD, "ground_truth.json", "split.json", f"cells/{CELL}/detections.json")
# Without these a report has less, so that a damaged one counts as none
OPTIONAL = ("speed.json", "environment.json", "thumbnails/thumbnails.json", f"cells/{CELL}/log.jsonl")


class AllRead(Exception):
    """Every file of the results was read without an error."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("strange") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of the results, which a case may spoil."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Path], tuple[int, str]]:
    """The status and the error of `report`, which reads all files and draws nothing."""
    monkeypatch.setattr("bench.run.commands.report.build_report", read_all)

    def status(folder: Path) -> tuple[int, str]:
        try:
            found = run_all.main(["report", str(folder)])
        except AllRead:
            found = 0
        return found, capsys.readouterr().err

    return status


def read_all(folder: Path, **_: Any) -> None:
    """Read what a report reads, and make of it what could fail for wrong types."""
    run = load_run(folder)
    errors = load_run_errors(run)
    for cell in errors.cells.values():
        validation_groups(run, cell.matches.image_ids)
    for part in (log_frame, classes_frame, sweep_frame, load_speeds, training_fit_frame, environment_table, subject):
        part(run)
    for note in (machine_differences, measured_on, timing_noise, unfinished_cells, why_no_ap):
        note(run)
    for priors in prior_sets(run):
        ground_truth_shapes(run, priors.size)
    examples(run)
    raise AllRead


def require_refused(found: tuple[int, str], name: str) -> None:
    """The command ended with one sentence about a file, which says what to do."""
    status, text = found
    assert status == 2, text
    assert text.startswith("error: ") and text.count("\n") == 1 and "Traceback" not in text
    assert name in text
    assert any(word in text for word in ("delete", "restore", "remove", "Remove", "rerun", "choose", "use the version"))


# Content


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "not text": lambda data: b"\xff\xfe\x80" + data,
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "null": lambda data: b"null",
    "a number": lambda data: b"3",
    "a text": lambda data: b'"plan"',
    "endless lists": lambda data: b"[" * 100_000,
    "endless objects": lambda data: b'{"a":' * 100_000,
    "deep lists": lambda data: b"[" * 200 + b"]" * 200,
    "5,000 digits": lambda data: b'{"schema": ' + b"1" * 5000 + b"}",
    "a newer schema": lambda data: b'{"schema": 99}',
    "half a letter": lambda data: b'{"\\udcff": 1}',
    "a pickle": lambda data: pickle.dumps({"schema": 1}),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", JSON_FILES)
def test_a_damaged_file_is_named(name: str, damage: str, run: Path, report: Callable[[Path], tuple[int, str]]) -> None:
    (run / name).write_bytes(DAMAGE[damage]((run / name).read_bytes()))
    if name.endswith("detections.json"):
        (run / ERROR_TYPES).unlink()  # the boxes are then read for the error types, not only for the pictures
    require_refused(report(run), name)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", OPTIONAL)
def test_a_damaged_file_that_a_report_can_do_without_counts_as_none(
    name: str, damage: str, run: Path, report: Callable[[Path], tuple[int, str]]
) -> None:
    (run / name).write_bytes(DAMAGE[damage]((run / name).read_bytes()))
    assert report(run) == (0, "")


VALUES: tuple[Any, ...] = ("text", "", -1, 10**30, 1.5, None, [], [[[]]], {}, {"a": 1}, True, float("nan"))


@dataclass(frozen=True)
class Change:
    """Another value in a JSON file. place: keys and rows."""

    file: str
    place: tuple[str | int, ...]
    value: Any

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{'.'.join(map(str, self.place))}={self.value!r}"


PLACES: dict[str, tuple[tuple[str | int, ...], ...]] = {
    "plan.json": (
        *((name,) for name in ("schema", "variants", "axes", "seeds", "data", "backbone", "profile", "cells", "base")),
        *(("cells", 0), ("cells", 0, "id"), ("cells", 0, "variant"), ("cells", 0, "factors"), ("cells", 0, "seed")),
        *(("cells", 0, "factors", "fpn"), ("cells", 0, "control"), ("variants", 0), ("axes", 0), ("seeds", 0)),
        *(("worth",), ("numerics",), ("merged",), ("controls",), ("axis_files",), ("source",)),
        *(("base", "detector"), ("base", "training"), ("base", "training", "steps"), ("base", "detector", "priors")),
    ),
    RECORD: (
        *((name,) for name in ("schema", "id", "status", "accuracy", "speed", "cost", "environment", "numerics")),
        *((name,) for name in ("training", "training_fit", "fingerprints", "detector", "prior_recall", "failure")),
        *(("accuracy", name) for name in ("AP", "AP50", "ground_truths", "per_class", "images")),
        *(
            ("accuracy", "per_class", "car"),
            ("accuracy", "per_class", "car", "AP"),
            ("accuracy", "ground_truths", "all"),
        ),
        *(("speed", "sweep"), ("speed", "sweep", 0), ("speed", "sweep", 0, "batch"), ("speed", "latency_p50_ms")),
        *(("speed", "threads"), ("cost", "parameters_M"), ("cost", "steps"), ("environment", "cpu")),
        *(("training", "steps"), ("training", "data_share"), ("training_fit", "AP"), ("detector", "priors")),
        *(("detector", "priors", 0), ("detector", "feature_maps"), ("detector", "size"), ("prior_recall", "val")),
        *(("prior_recall", "val", "after"), ("environment", "device"), ("numerics", "micro_batches")),
    ),
    "ground_truth.json": (
        *(("images",), ("annotations",), ("categories",), ("images", 0), ("images", 0, "id"), ("images", 0, "width")),
        *(("images", 0, "file_name"), ("annotations", 0), ("annotations", 0, "bbox"), ("annotations", 0, "image_id")),
        *(("annotations", 0, "bbox", 0), ("annotations", 0, "iscrowd"), ("categories", 0), ("categories", 0, "name")),
    ),
    "split.json": (("train",), ("val",), ("val", "groups"), ("val", "groups", 0), ("train", "files"), ("classes",)),
    "speed.json": (
        *(("networks",), ("networks", 0), ("networks", 0, "variants"), ("networks", 0, "network"), ("numerics",)),
        *(
            ("networks", 0, "ratio"),
            ("networks", 0, "rounds_ms"),
            ("networks", 0, "rounds_ms", "latency"),
            ("machine",),
        ),
        *(("networks", 0, "latency_ms", "p50"), ("networks", 0, "busy"), ("failure",), ("numerics", "threads")),
    ),
    f"cells/{CELL}/detections.json": ((0,), (0, "bbox"), (0, "bbox", 0)),
    "thumbnails/thumbnails.json": (("thumbnails",), ("thumbnails", 0), ("thumbnails", 0, "file")),
}
CHANGES = [Change(file, place, value) for file, places in PLACES.items() for place in places for value in VALUES]
ORDINARY = 5  # every fifth change is in the ordinary suite


def changed(content: Any, place: tuple[str | int, ...], value: Any) -> Any:
    """`content` with another value; missing entries on the way are created."""
    if not place:
        return value
    first, *rest = place
    if isinstance(first, int):
        return [changed(each, tuple(rest), value) if row == first else each for row, each in enumerate(content)]
    inner = (content or {}).get(first, {})
    return {**(content or {}), first: changed(inner, tuple(rest), value)}


def require_survived(change: Change, run: Path, report: Callable[[Path], tuple[int, str]]) -> None:
    """The value is used or ignored, or a sentence names the file."""
    write(run / change.file, changed(json.loads((run / change.file).read_text()), change.place, change.value))
    found = report(run)
    if found != (0, ""):
        require_refused(found, ".json" if change.file in ("plan.json", RECORD) else Path(change.file).name)


@pytest.mark.parametrize("change", CHANGES[::ORDINARY], ids=str)
def test_another_value_is_harmless_or_named(
    change: Change, run: Path, report: Callable[[Path], tuple[int, str]]
) -> None:
    require_survived(change, run, report)


@pytest.mark.slow
@pytest.mark.parametrize("change", [each for row, each in enumerate(CHANGES) if row % ORDINARY], ids=str)
def test_every_other_value_is_harmless_or_named(
    change: Change, run: Path, report: Callable[[Path], tuple[int, str]]
) -> None:
    require_survived(change, run, report)


# Arrays


def arrays_of(path: Path) -> dict[str, Any]:
    with np.load(path) as archive:
        return dict(archive)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def with_array(name: str, change: Callable[[Any], Any]) -> Callable[[Path], bytes]:
    return lambda path: npz(**{**arrays_of(path), name: change(arrays_of(path)[name])})


def bomb(path: Path) -> bytes:
    """An archive whose first array claims 8 petabytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in arrays_of(path):
            archive.writestr(f"{name}.npy", header.getvalue())
    return buffer.getvalue()


SPOILED: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda path: b"",
    "cut in half": lambda path: path.read_bytes()[: path.stat().st_size // 2],
    "without its end": lambda path: path.read_bytes()[:-10],
    "a flipped byte": lambda path: path.read_bytes()[:60] + b"\xff\xff\xff\xff" + path.read_bytes()[64:],
    "text": lambda path: b"image,label,score\n",
    "a pickle": lambda path: pickle.dumps(arrays_of(path)),
    "one array": lambda path: b"\x93NUMPY" + path.read_bytes(),
    "another archive": lambda path: npz(other=np.zeros(3)),
    "petabytes": bomb,
}
OF_MATCHES: dict[str, Callable[[Path], bytes]] = {
    "objects": with_array("image", lambda array: np.array([{}] * len(array), dtype=object)),
    "text for numbers": with_array("score", lambda array: array.astype("U8")),
    "another length": with_array("label", lambda array: array[:-1]),
    "another shape": with_array("truth", lambda array: array.ravel()),
    "packed bits missing": with_array("matched", lambda array: array[..., :0]),
    "image out of range": with_array("image", lambda array: array + 1000),
    "negative image": with_array("image", lambda array: array - 1000),
    "label out of range": with_array("label", lambda array: array + 1000),
    "truth out of range": with_array("truth", lambda array: array + 1000),
    "truth's image out of range": with_array("truth_image", lambda array: array + 1000),
    "truth's label out of range": with_array("truth_label", lambda array: array - 1000),
    "score not a number": with_array("score", lambda array: array * np.nan),
    "other areas": with_array("areas", lambda array: np.char.add(array, "?")),
    "other thresholds": with_array("thresholds", lambda array: array + 0.3),
}
OF_ERROR_TYPES: dict[str, Callable[[Path], bytes]] = {
    "another length": with_array("truth", lambda array: array[:-1]),
    "verdict out of range": with_array("verdict", lambda array: array + 100),
    "truth out of range": with_array("truth", lambda array: array + 1000),
    "numbers for flags": with_array("missed", lambda array: array.astype(np.int64)),
    "of other matches": lambda path: npz(**{name: array[:0] for name, array in arrays_of(path).items()}),
}
ARRAYS = [
    *((MATCHES, name, spoil) for name, spoil in (SPOILED | OF_MATCHES).items()),
    *((ERROR_TYPES, name, spoil) for name, spoil in (SPOILED | OF_ERROR_TYPES).items()),
]


@pytest.mark.parametrize(
    ("file", "spoil"), [(file, spoil) for file, _, spoil in ARRAYS], ids=[f"{Path(f).stem}: {n}" for f, n, _ in ARRAYS]
)
def test_damaged_arrays_are_named(
    file: str, spoil: Callable[[Path], bytes], run: Path, report: Callable[[Path], tuple[int, str]]
) -> None:
    (run / file).write_bytes(spoil(run / file))
    require_refused(report(run), file)


# Names that leave the folder


IDS = (
    "../../../escaped",
    "..",
    ".",
    "",
    "/etc",
    "0" * 11,
    "0" * 13,
    "ABCDEF012345",
    "00000000000g",
    "0/0",
    "0\n",
    "0\0",
)
VARIANTS = ("../baseline", "/etc/passwd", "a/b", "", "a\nb", "\x1b[31mred", "a b", "\u202ebaseline", "..\\x", "a\0")


@pytest.mark.parametrize("cell_id", IDS, ids=repr)
def test_an_id_of_another_form_is_refused(
    cell_id: str, run: Path, tmp_path: Path, report: Callable[[Path], tuple[int, str]]
) -> None:
    (tmp_path / "escaped").mkdir()
    shutil.copy(run / RECORD, tmp_path / "escaped")
    write(run / "plan.json", changed(json.loads((run / "plan.json").read_text()), ("cells", 0, "id"), cell_id))
    require_refused(report(run), "plan.json")


@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
def test_a_variant_that_cannot_be_part_of_a_file_name_is_refused(
    variant: str, run: Path, report: Callable[[Path], tuple[int, str]]
) -> None:
    write(run / "plan.json", changed(json.loads((run / "plan.json").read_text()), ("cells", 0, "variant"), variant))
    found = report(run)
    require_refused(found, "plan.json")
    assert "\x1b" not in found[1] and "\u202e" not in found[1]


THUMBNAILS = ("../../secret.jpg", "/etc/passwd", "..", "", "1.jpg/../../secret.jpg", "1.png", "secret.jpg", "1.jpg\0")


@pytest.mark.parametrize("name", THUMBNAILS, ids=repr)
def test_a_thumbnail_of_another_name_is_not_embedded(name: str, run: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, run / "thumbnails"):
        (folder / "secret.jpg").write_text(SECRET)
    entries = json.loads((run / "thumbnails/thumbnails.json").read_text())
    write(run / "thumbnails/thumbnails.json", changed(entries, ("thumbnails", 0, "file"), name))
    assert len(examples(load_run(run))) == len(entries["thumbnails"]) - 1


# Links and what is no file


def as_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def as_dead_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside.with_name("nothing"))


def as_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def as_socket(path: Path, outside: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # the path of a socket has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


def as_device(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


STRANGE = (as_link, as_dead_link, as_pipe, as_socket, as_device)
FILES = (*RUN_FILES, *(f"cells/{CELL}/{name}" for name in CELL_FILES))
FOLDERS = ("cells", f"cells/{CELL}", *RUN_FOLDERS)
INSIDE = ("tables/ablation.csv", "plots/effects.svg", "thumbnails/1.jpg", "predictions/7.baseline.png")
ENTRIES = [
    *((name, STRANGE[row % len(STRANGE)]) for row, name in enumerate(FILES)),
    *((name, STRANGE[(row + 2) % len(STRANGE)]) for row, name in enumerate(FILES)),
    *((name, kind) for name in (*FOLDERS, *INSIDE) for kind in (as_link, as_pipe)),
]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the results that must stay as it is."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("record.json", "ablation.csv"):
        (folder / name).write_text(SECRET)
    yield folder
    assert sorted(path.name for path in folder.iterdir()) == ["ablation.csv", "record.json"]
    assert {path.read_text() for path in folder.iterdir()} == {SECRET}


@pytest.mark.parametrize(("name", "kind"), ENTRIES, ids=[f"{name} {kind.__name__}" for name, kind in ENTRIES])
def test_what_is_no_file_is_refused(
    name: str,
    kind: Callable[[Path, Path], None],
    run: Path,
    outside: Path,
    report: Callable[[Path], tuple[int, str]],
) -> None:
    path = run / name
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    kind(path, outside if name in FOLDERS else outside / "record.json")
    found = report(run)
    require_refused(found, name)
    assert SECRET not in found[1]


COMMANDS = ("preflight", "diagnose", "run", "run --plan")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["in-use.json", "plan.json", "tables", "preflight.json"])
def test_no_command_writes_through_a_link(
    *,
    name: str,
    command: str,
    run: Path,
    outside: Path,
    words: list[str],
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run / name).unlink(missing_ok=True)
    as_link(run / name, outside if name == "tables" else outside / "record.json")
    data = [*command.split(), "--data", f"voc:{pictures}", "--cache", str(tmp_path / "cache")]
    request = [*words, *command.split()[1:]] if command.startswith("run") else data
    status = run_all.main([*request, "--out", str(run)])
    require_refused((status, capsys.readouterr().err), name)


def test_results_may_be_reached_through_a_link_and_hold_a_users_links(
    run: Path, tmp_path: Path, report: Callable[[Path], tuple[int, str]]
) -> None:
    (run / "notes").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(run)
    assert report(tmp_path / "link") == (0, "")
