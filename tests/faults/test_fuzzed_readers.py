"""The readers on mutated files: an error of ours or a valid index, and nothing else.

Ordinarily a few hundred inputs; the long form takes forty thousand and prints how many ended in which way.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from bench.data.index import ImageIndex
from bench.data.problems import Problem
from bench.data.sources import read_source
from bench.errors import UserError
from tests.data.layout_samples import EVERY, cvat, fiftyone, json_lines, save, table
from tests.dataset_builders import coco_content, coco_folder, voc_folder, xml_of, yolo_file, yolo_line

SHORT, LONG = 100, 40_000
NUMBERS = range(3)
# What tends to be hard on a parser, in all three languages
PIECES = [
    *(
        b"",
        b"\0",
        b"\n",
        b"- ",
        b"9" * 400,
        b"<!DOCTYPE a [<!ENTITY a 'b'>]>",
        b"<?xml version='1.0' encoding='utf-7'?>",
    ),
    *b'\xff\xfe [ { ] } < > &a; " \' : , *a &a nan -inf 1e999 -1 0 null true {} [] "" \\ud800'.split(),
    b"!!python/name:os.system",
    *b'<annotation> </object> <object/> "id" "bbox" "file_name" "images" names: train: path: images/train ../'.split(),
]

Mutation = tuple[float, int, bytes]
MUTATIONS = st.lists(
    st.tuples(
        st.floats(0, 1),  # where, as a share of the file
        st.integers(0, 40),  # bytes that are taken out there
        st.sampled_from(PIECES) | st.binary(max_size=6),  # and put in
    ),
    min_size=1,
    max_size=4,
)


def mutated(content: bytes, mutations: list[Mutation]) -> bytes:
    for share, taken, put in mutations:
        at = int(share * len(content))
        content = content[:at] + put + content[at + taken :]
    return content


class Voc:
    """One annotation of three."""

    def __init__(self, root: Path) -> None:
        self.file, self.source = root / "Annotations/1.xml", f"voc:{voc_folder(root, NUMBERS, trained=None)}"
        self.right = xml_of(1).encode()


class Coco:
    """The one annotation file."""

    def __init__(self, root: Path) -> None:
        self.source = f"coco:{coco_folder(root, NUMBERS)}"
        self.file = root / "annotations.json"
        self.right = json.dumps(coco_content(NUMBERS)).encode()


class YoloLabels:
    """One label file of three."""

    def __init__(self, root: Path) -> None:
        self.source = f"yolo:{yolo_file(root, NUMBERS)}"
        self.file = root / "labels/train/1.txt"
        self.right = f"{yolo_line(1)}\n{yolo_line(0)}\n1 .1 .1 .5 .1 .5 .5\n".encode()


class YoloDescription:
    """data.yaml."""

    def __init__(self, root: Path) -> None:
        self.file = yolo_file(root, NUMBERS)
        self.source = f"yolo:{self.file}"
        self.right = self.file.read_bytes() + b"nc: 2\npath: .\nval: [images/train]\n"


class Table:
    """boxes.csv."""

    def __init__(self, root: Path) -> None:
        self.file, self.source = root / "boxes.csv", f"csv:{root}"
        save(root, EVERY)
        table(self.file, EVERY)
        self.right = self.file.read_bytes()


class JsonLines:
    """metadata.jsonl."""

    def __init__(self, root: Path) -> None:
        self.file, self.source = root / "metadata.jsonl", f"jsonl:{root}"
        save(root, EVERY)
        json_lines(self.file, EVERY)
        self.right = self.file.read_bytes()


class Fiftyone:
    """labels.json."""

    def __init__(self, root: Path) -> None:
        self.file, self.source = root / "labels.json", f"fiftyone:{root}"
        save(root / "data", EVERY)
        fiftyone(self.file, EVERY)
        self.right = self.file.read_bytes()


class Cvat:
    """annotations.xml."""

    def __init__(self, root: Path) -> None:
        self.file, self.source = root / "annotations.xml", f"cvat:{root}"
        save(root / "images", EVERY)
        cvat(self.file, subsets=True)
        self.right = self.file.read_bytes()


Target = Voc | Coco | YoloLabels | YoloDescription | Table | JsonLines | Fiftyone | Cvat
TARGETS: list[Callable[[Path], Target]] = [
    Voc,
    Coco,
    YoloLabels,
    YoloDescription,
    Table,
    JsonLines,
    Fiftyone,
    Cvat,
]


def assert_valid(index: ImageIndex) -> None:
    """What everything after the readers relies on."""
    assert len(index.offsets) == len(index) + 1
    assert index.offsets[0] == 0
    assert index.offsets[-1] == len(index.boxes) == len(index.labels) == len(index.areas)
    assert (np.diff(index.offsets) >= 0).all()
    assert len(set(index.files)) == len(index)
    assert (index.sizes > 0).all()
    assert np.isfinite(index.boxes).all()
    assert (index.boxes[:, 2:] > index.boxes[:, :2]).all()
    assert (index.boxes >= 0).all()
    assert (index.boxes[:, 2:] <= index.sizes[index.image_of_box]).all()
    assert ((index.labels >= 0) & (index.labels < len(index.classes))).all()
    assert (index.areas > 0).all()
    assert len(set(index.classes)) == len(index.classes)
    "".join([*index.classes, *index.files]).encode()
    index.fingerprint()


def assert_told(problems: list[Problem]) -> None:
    for each in problems:
        assert each.where.isprintable()
        assert each.what.isprintable()
        assert len(each.what) < 1000


def outcome(target: Target, content: bytes, cache: Path) -> str:
    """How reading ends; any other exception is a failure of the test."""
    target.file.write_bytes(content)
    try:
        reading = read_source(target.source, cache=cache)
    except UserError as error:
        assert str(error)
        return "refused"
    assert_valid(reading.index)
    assert_told(reading.problems)
    severities = {each.severity for each in reading.problems}
    return "with fatal problems" if "fatal" in severities else "mended" if severities else "valid"


def fuzz(make: Callable[[Path], Target], folder: Path, examples: int) -> Counter[str]:
    """Outcomes of so many mutated files."""
    target, found = make(folder / "data"), Counter[str]()
    assert outcome(target, target.right, folder) in ("valid", "mended", "with fatal problems")

    @seed(7)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(MUTATIONS)
    def each(mutations: list[Mutation]) -> None:
        found[outcome(target, mutated(target.right, mutations), folder)] += 1

    each()
    return found


@pytest.mark.parametrize("make", TARGETS)
def test_a_mutated_file_is_refused_or_read(make: Callable[[Path], Target], tmp_path: Path) -> None:
    found = fuzz(make, tmp_path, SHORT)
    # Mutations that all end alike would try one path only
    assert len(found) >= 2
    assert found.total() >= SHORT


@pytest.mark.slow
@pytest.mark.parametrize("make", TARGETS)
def test_forty_thousand_mutated_files(
    make: Callable[[Path], Target], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = fuzz(make, tmp_path, LONG // len(TARGETS))
    with capsys.disabled():
        print(f"\n{make.__name__}: {found.total()} inputs, {dict(found)}")
    assert found.total() >= LONG // len(TARGETS)
