"""Bad data, case by case: each is fatal, dropped or mended as docs/bad-input.md says, and nothing else suffers.

Every case breaks picture 3 of four (or what describes it). Where the broken part is left out, what remains is
exactly the index of a data set that never had it.
"""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

import run_all
from bench.data.dataset import check
from bench.data.decode import MAX_PIXELS
from bench.data.index import ImageIndex
from bench.data.preflight import Report, enforce, summary, write_report
from bench.data.problems import KINDS
from bench.data.sources import read_source
from bench.errors import UserError
from tests.conftest import REPOSITORY
from tests.dataset_builders import (
    box_of,
    coco_content,
    picture,
    png_header,
    voc_folder,
    xml_of,
    yolo_file,
    yolo_line,
)
from tests.traps import EPS

NUMBERS = range(4)
MOST_MEMORY = 100 << 20
TABLE = REPOSITORY / "docs/bad-input.md"

# What is gone with the bad part: nothing, the box, or the image with its boxes.
Lost = Literal["nothing", "box", "image"]


@dataclass(frozen=True)
class Case:
    """`broken` spoils the data in a folder; `kind` is what is then found, None for nothing at all."""

    name: str
    broken: Callable[[Path], object]
    kind: str | None
    lost: Lost


# VOC


def annotation(text: str | bytes) -> Callable[[Path], object]:
    content = text if isinstance(text, bytes) else text.encode()
    return lambda root: (root / "Annotations/3.xml").write_bytes(content)


def edge(name: str, value: str) -> Callable[[Path], object]:
    """The box with another value on one edge."""
    right = dict(zip(("xmin", "ymin", "xmax", "ymax"), box_of(3), strict=True))[name]
    return annotation(xml_of(3).replace(f"<{name}>{right}<", f"<{name}>{value}<"))


def size(width: object, height: object) -> Callable[[Path], object]:
    return annotation(xml_of(3, size=f"<size><width>{width}</width><height>{height}</height></size>"))


def image(content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / "JPEGImages/3.jpg").write_bytes(content)


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something else in the place of a file."""

    def broken(root: Path) -> None:
        (root / name).unlink()
        make(root / name)

    return broken


def saved(mode: str, **options: Any) -> Callable[[Path], object]:
    """The picture in another mode, under the same name, as PNG or TIFF where JPEG cannot hold it."""
    form = "JPEG" if mode in ("L", "CMYK") or "exif" in options else "TIFF" if mode == "F" else "PNG"
    return lambda root: picture(3).convert(mode).save(root / "JPEGImages/3.jpg", format=form, **options)


def deep_grey(root: Path) -> None:
    values = np.linspace(0, 65535, 96 * 80).reshape(80, 96).astype(np.uint16)
    Image.fromarray(values).save(root / "JPEGImages/3.jpg", format="PNG")


def turned(orientation: int) -> Any:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def renamed(stem: str) -> Callable[[Path], object]:
    def broken(root: Path) -> None:
        (root / "JPEGImages/3.jpg").rename(root / f"JPEGImages/{stem}.jpg")
        (root / "Annotations/3.xml").rename(root / f"Annotations/{stem}.xml")

    return broken


def cut(root: Path) -> None:
    path = root / "JPEGImages/3.jpg"
    path.write_bytes(path.read_bytes()[:-300])


LAUGHS = "<!DOCTYPE a [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(12)
) + "]>"  # fmt: skip
OUTSIDE = "<!DOCTYPE a [<!ENTITY a SYSTEM 'file:///etc/hostname'>]>"

VOC = [
    Case("JPEG cut off", cut, "truncated-image", "image"),
    Case("JPEG that is text", image(b"hello"), "unreadable-image", "image"),
    Case("JPEG that is EPS", image(EPS), "unreadable-image", "image"),
    Case("JPEG without a byte", image(b""), "unreadable-image", "image"),
    Case("JPEG of zeros", image(bytes(5000)), "unreadable-image", "image"),
    Case("image is a folder", instead("JPEGImages/3.jpg", Path.mkdir), "unreadable-image", "image"),
    Case("image is a pipe", instead("JPEGImages/3.jpg", os.mkfifo), "unreadable-image", "image"),
    Case("image is gone", lambda root: (root / "JPEGImages/3.jpg").unlink(), "missing-image", "image"),
    Case(
        "image is a dead link",
        instead("JPEGImages/3.jpg", lambda path: path.symlink_to("/nowhere/3.jpg")),
        "missing-image",
        "image",
    ),
    Case(
        "image links to itself",
        instead("JPEGImages/3.jpg", lambda path: path.symlink_to("3.jpg")),
        "unreadable-image",
        "image",
    ),
    Case("image bomb", image(png_header(60_000, 60_000)), "oversized-image", "image"),
    Case("image of absurd sides", image(png_header(2**31 - 1, 1)), "oversized-image", "image"),
    Case("other size than annotated", size(97, 80), "size-disagrees", "image"),
    Case("sides swapped", size(80, 96), "size-disagrees", "image"),
    Case("EXIF turns it", saved("RGB", exif=turned(6)), "exif-disagrees", "image"),
    Case("EXIF mirrors it", saved("RGB", exif=turned(2)), "exif-orientation", "nothing"),
    Case("no size", annotation(xml_of(3, size="")), "size-from-header", "nothing"),
    Case("negative size", size(-96, 80), "size-from-header", "nothing"),
    Case("size beyond all images", size("1e300", 80), "size-from-header", "nothing"),
    Case("size is words", size("wide", "high"), "size-from-header", "nothing"),
    Case("grey", saved("L"), "grey-image", "nothing"),
    Case("black and white", saved("1"), "one-bit-image", "nothing"),
    Case("palette", saved("P"), "palette-image", "nothing"),
    Case("transparent", saved("RGBA"), "alpha-image", "nothing"),
    Case("printing colours", saved("CMYK"), "cmyk-image", "nothing"),
    Case("16 bits of grey", deep_grey, "deep-grey-image", "nothing"),
    Case("float greys", saved("F"), "deep-grey-image", "nothing"),
    Case("annotation without a byte", annotation(""), "unreadable-annotation", "image"),
    Case("annotation cut off", annotation(xml_of(3)[:90]), "unreadable-annotation", "image"),
    Case("annotation is JSON", annotation('{"boxes": []}'), "unreadable-annotation", "image"),
    Case("annotation of another kind", annotation("<html><body/></html>"), "unreadable-annotation", "image"),
    Case("annotation of zeros", annotation(bytes(500)), "unreadable-annotation", "image"),
    Case("entities that grow", annotation(LAUGHS + xml_of(3)), "unreadable-annotation", "image"),
    Case("entity from outside", annotation(OUTSIDE + xml_of(3)), "unreadable-annotation", "image"),
    Case(
        "unknown encoding",
        annotation(f"<?xml version='1.0' encoding='x'?>{xml_of(3)}"),
        "unreadable-annotation",
        "image",
    ),
    Case("annotation is a folder", instead("Annotations/3.xml", Path.mkdir), "unreadable-annotation", "image"),
    Case("annotation is a pipe", instead("Annotations/3.xml", os.mkfifo), "unreadable-annotation", "image"),
    Case(
        "annotation is a dead link",
        instead("Annotations/3.xml", lambda path: path.symlink_to("/nowhere")),
        "unreadable-annotation",
        "image",
    ),
    Case(
        "annotation beyond all bounds",
        lambda root: os.truncate(root / "Annotations/3.xml", 3 << 30),
        "unreadable-annotation",
        "image",
    ),
    Case(
        "Latin-1",
        annotation(xml_of(3).replace("<size>", "<owner>Jos\xe9</owner><size>").encode("latin-1")),
        "latin-1-annotation",
        "nothing",
    ),
    Case("UTF-16", annotation(f"<?xml version='1.0' encoding='utf-16'?>{xml_of(3)}".encode("utf-16")), None, "nothing"),
    Case("no objects", annotation(xml_of(3, objects="")), None, "box"),
    Case("no annotation", lambda root: (root / "Annotations/3.xml").unlink(), "image-without-annotation", "image"),
    Case(
        "two images",
        lambda root: picture(3).save(root / "JPEGImages/3.png"),
        "several-images-for-annotation",
        "nothing",
    ),
    Case(
        "names that differ in case",
        lambda root: picture(3).save(root / "JPEGImages/3.JPEG"),
        "several-images-for-annotation",
        "nothing",
    ),
    Case("object without a name", annotation(xml_of(3).replace("bar", " ")), "unknown-class", "box"),
    Case("coordinate NaN", edge("xmin", "nan"), "non-finite-box", "box"),
    Case("coordinate infinite", edge("xmax", "inf"), "non-finite-box", "box"),
    Case("coordinate beyond floats", edge("ymax", "1e999"), "non-finite-box", "box"),
    Case("coordinate is a word", edge("ymin", "top"), "non-finite-box", "box"),
    Case("coordinate missing", annotation(re.sub(r"<xmin>\d+</xmin>", "", xml_of(3))), "non-finite-box", "box"),
    Case("inverted box", edge("xmax", "2"), "inverted-box", "box"),
    Case("box without width", edge("xmax", str(box_of(3)[0])), "zero-area-box", "box"),
    Case("negative coordinate", edge("xmin", "-5"), "box-out-of-bounds", "nothing"),
    Case("coordinate of a million", edge("xmax", "1e6"), "box-out-of-bounds", "nothing"),
    Case("name is no text", renamed(os.fsdecode(b"3\xff")), "unreadable-name", "image"),
    Case("name of two lines", renamed("3\n4"), None, "nothing"),
    Case("name of other scripts", renamed("3 日本 é ًا"), None, "nothing"),
    Case("name of 250 letters", renamed("3" * 250), None, "nothing"),
]


def voc(case: Case, root: Path) -> str:
    """The source of a VOC folder with the case's fault."""
    voc_folder(root, NUMBERS, trained=None)
    case.broken(root)
    return f"voc:{root}"


# COCO: the fault is in a dictionary, which is then written


def of_box(**fields: object) -> Callable[[Path], object]:
    return lambda root: _edit(root, lambda content: content["annotations"][3].update(fields))


def of_image(**fields: object) -> Callable[[Path], object]:
    return lambda root: _edit(root, lambda content: content["images"][3].update(fields))


def _edit(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / "annotations.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _annotated_twice(content: dict[str, Any]) -> None:
    content["annotations"].append({**content["annotations"][3], "bbox": [0, 0, 9, 9]})


COCO = [
    Case("three numbers", of_box(bbox=[1, 2, 3]), "non-finite-box", "box"),
    Case("box is null", of_box(bbox=None), "non-finite-box", "box"),
    Case("box is a word", of_box(bbox="all"), "non-finite-box", "box"),
    Case("box is nested", of_box(bbox=[[1], 2, 3, 4]), "non-finite-box", "box"),
    Case("coordinate is null", of_box(bbox=[1, 2, None, 4]), "non-finite-box", "box"),
    Case("NaN", of_box(bbox=[1, 2, float("nan"), 4]), "non-finite-box", "box"),
    Case("sum beyond floats", of_box(bbox=[1e308, 1, 1e308, 4]), "non-finite-box", "box"),
    Case("integer beyond floats", of_box(bbox=[10**400, 1, 2, 3]), "non-finite-box", "box"),
    Case("negative width", of_box(bbox=[30, 5, -9, 4]), "inverted-box", "box"),
    Case("no height", of_box(bbox=[5, 5, 9, 0]), "zero-area-box", "box"),
    Case("beside the image", of_box(bbox=[500, 500, 9, 9]), "box-outside-image", "box"),
    Case("unknown category", of_box(category_id=77), "unknown-class", "box"),
    Case("category 0", of_box(category_id=0), "unknown-class", "box"),
    Case("unknown image", of_box(image_id=77), "annotation-of-unknown-image", "box"),
    Case("area is a word", of_box(area="big"), "area-from-box", "nothing"),
    Case("negative area", of_box(area=-1), "area-from-box", "nothing"),
    Case("iscrowd is a word", of_box(iscrowd="yes"), "unclear-crowd", "nothing"),
    Case(
        "second annotation of an id", lambda root: _edit(root, _annotated_twice), "duplicate-annotation-id", "nothing"
    ),
    Case("no file name", of_image(file_name=None), "missing-image", "image"),
    Case("file name of 5000 letters", of_image(file_name="n" * 5000), "missing-image", "image"),
    Case("file name with a zero byte", of_image(file_name="a\0.jpg"), "missing-image", "image"),
    Case("file name is half a letter", of_image(file_name="\ud800.jpg"), "unreadable-name", "image"),
    Case("file name leads out", of_image(file_name="../../../nowhere/3.jpg"), "missing-image", "image"),
    Case("width is a list", of_image(width=[96, 97]), "size-from-header", "nothing"),
    Case("width beyond floats", of_image(width=10**400), "size-from-header", "nothing"),
    Case("other width", of_image(width=95), "size-disagrees", "image"),
]


def coco(case: Case, root: Path) -> str:
    """The source of a COCO folder with the case's fault."""
    (root / "images").mkdir(parents=True)
    for number in NUMBERS:
        picture(number).save(root / f"images/{number}.jpg")
    (root / "annotations.json").write_text(json.dumps(coco_content(NUMBERS)))
    case.broken(root)
    return f"coco:{root}"


# YOLO


def labels(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "labels/train/3.txt").write_text(text)


RIGHT = yolo_line(3)
YOLO = [
    Case("four words", labels("0 .5 .5 .1"), "bad-label-line", "box"),
    Case("words", labels("a cat at the door"), "bad-label-line", "box"),
    Case("zeros", labels("\0\0\0"), "bad-label-line", "box"),
    Case("a sixth word", labels(f"{RIGHT} 0.9"), "bad-label-line", "box"),
    Case("a good and a bad line", labels(f"{RIGHT}\n0 .5"), "bad-label-line", "nothing"),
    Case("class of a list of two", labels("2 .5 .5 .1 .1"), "unknown-class", "box"),
    Case("negative class", labels("-1 .5 .5 .1 .1"), "unknown-class", "box"),
    Case("half a class", labels("0.5 .5 .5 .1 .1"), "unknown-class", "box"),
    Case("pixels", labels("0 300 200 40 40"), "not-normalised", "box"),
    Case("NaN", labels("0 .5 .5 nan .1"), "non-finite-box", "box"),
    Case("infinite", labels("0 .5 .5 inf .1"), "non-finite-box", "box"),
    Case("NaN in a polygon", labels("0 .1 .1 nan .1 .5 .5"), "non-finite-box", "box"),
    Case("negative width", labels("0 .5 .5 -.1 .1"), "inverted-box", "box"),
    Case("no width", labels("0 .5 .5 0 .1"), "zero-area-box", "box"),
    Case("beside the image", labels("0 5 5 .1 .1"), "box-outside-image", "box"),
    Case("no label file", lambda root: (root / "labels/train/3.txt").unlink(), None, "box"),
    Case("label file without a byte", labels(""), None, "box"),
    Case("label file is a folder", instead("labels/train/3.txt", Path.mkdir), "unreadable-annotation", "image"),
    Case("label file is a pipe", instead("labels/train/3.txt", os.mkfifo), "unreadable-annotation", "image"),
    Case(
        "labels without an image",
        lambda root: (root / "labels/train/9.txt").write_text(RIGHT),
        "missing-image",
        "nothing",
    ),
    Case(
        "image that is text",
        instead("images/train/3.jpg", lambda path: path.write_text("no")),
        "unreadable-image",
        "image",
    ),
]


def yolo(case: Case, root: Path) -> str:
    """The source of a YOLO folder with the case's fault."""
    yolo_file(root, NUMBERS)
    case.broken(root)
    return f"yolo:{root / 'data.yaml'}"


SOURCES: dict[str, Callable[[Case, Path], str]] = {"voc": voc, "coco": coco, "yolo": yolo}
CASES = [
    pytest.param(form, case, id=f"{form}: {case.name}")
    for form, cases in (("voc", VOC), ("coco", COCO), ("yolo", YOLO))
    for case in cases
]


def checked(source: str, folder: Path) -> Report:
    """What the preflight does, but for the terminal."""
    reading = read_source(source, cache=folder / "cache")
    report, _ = check(reading, cache=folder / "cache", workers=1)
    "\n".join(summary(report)).encode()
    write_report(report, folder / "preflight.json")
    return report


def severity_of(kind: str) -> str:
    """As documented; images that cannot be decoded are fatal."""
    return KINDS[kind][0] if kind in KINDS else "fatal"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, Lost], ImageIndex]:
    """The indexes of data that never had the bad part, by form and by what is lost."""
    found: dict[tuple[str, Lost], ImageIndex] = {}
    for form, source in SOURCES.items():
        for lost in ("nothing", "box", "image"):
            root = tmp_path_factory.mktemp("whole")
            text = source(Case("", WITHOUT[form][lost], None, lost), root)
            report = checked(text, root.with_name(f"{root.name}-checked"))
            assert not report.reading.problems
            found[form, lost] = report.reading.index
    return found


def _without_image(root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"].pop(3)
        content["annotations"].pop(3)

    _edit(root, change)


def _remove(*names: str) -> Callable[[Path], object]:
    def broken(root: Path) -> None:
        for name in names:
            (root / name).unlink()

    return broken


def _empty_folder(root: Path) -> None:
    for path in (root / "images/train").iterdir():
        path.unlink()


WITHOUT: dict[str, dict[Lost, Callable[[Path], object]]] = {
    "voc": {
        "nothing": lambda root: None,
        "box": annotation(xml_of(3, objects="")),
        "image": _remove("Annotations/3.xml", "JPEGImages/3.jpg"),
    },
    "coco": {
        "nothing": lambda root: None,
        "box": lambda root: _edit(root, lambda content: content["annotations"].pop(3)),
        "image": _without_image,
    },
    "yolo": {
        "nothing": lambda root: None,
        "box": labels(""),
        "image": _remove("images/train/3.jpg", "labels/train/3.txt"),
    },
}


@pytest.mark.parametrize(("form", "case"), CASES)
def test_the_outcome_is_the_documented_one_and_the_rest_is_whole(
    form: str, case: Case, whole: dict[tuple[str, Lost], ImageIndex], tmp_path: Path
) -> None:
    try:
        source = SOURCES[form](case, tmp_path / "data")
    except OSError as error:
        pytest.skip(f"this file system cannot hold the case: {error}")
    tracemalloc.start()
    try:
        report = checked(source, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
    problems = report.reading.problems
    assert {each.kind for each in problems} - {"polygon-to-box"} == ({case.kind} if case.kind else set())
    for each in problems:
        assert each.severity == severity_of(each.kind)
        assert each.where.isprintable()
        assert each.what.isprintable()
    if any(each.severity == "fatal" for each in problems):
        with pytest.raises(UserError, match=f"{case.kind}"):
            enforce(report.reading, skip_invalid=False)
    enforce(report.reading, skip_invalid=True)
    remains, expected = report.reading.index, whole[form, case.lost]
    if "name of" not in case.name and case.kind != "box-out-of-bounds":
        assert remains.fingerprint() == expected.fingerprint()
    assert len(remains) == len(expected)
    assert len(remains.boxes) == len(expected.boxes)


# Where nothing can be left out: the request itself is refused


def text_of(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(text)


def json_with(**fields: object) -> Callable[[Path], object]:
    return lambda root: _edit(root, lambda content: content.update(fields))


GROWING = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)
TAGGED = "train: images/train\nnames: !!python/object/apply:pathlib.Path.touch [{}]\n"

REFUSED = [
    ("coco", "cut off", lambda root: os.truncate(root / "annotations.json", 200), "not valid JSON"),
    ("coco", "without a byte", text_of("annotations.json", ""), "not valid JSON"),
    ("coco", "nested endlessly", text_of("annotations.json", "[" * 100_000), "not valid JSON"),
    ("coco", "a list of results", text_of("annotations.json", '[{"image_id": 1}]'), "detections in COCO's format"),
    ("coco", "null", text_of("annotations.json", "null"), "no list of objects"),
    ("coco", "images are numbers", json_with(images=[1, 2]), "no list of objects 'images'"),
    ("coco", "id is a word", of_box(id="first"), "must be a 64-bit integer"),
    ("coco", "id is missing", lambda root: _edit(root, lambda c: c["images"][2].pop("id")), "'id' is missing"),
    ("coco", "id beyond 64 bits", of_box(image_id=10**30), "must be a 64-bit integer"),
    ("coco", "id is true", of_image(id=True), "must be a 64-bit integer"),
    ("coco", "category without a name", json_with(categories=[{"id": 1}]), "'name' is missing"),
    ("coco", "category named by a list", json_with(categories=[{"id": 1, "name": ["a"]}]), "must be text"),
    ("coco", "category named by nothing", json_with(categories=[{"id": 1, "name": " "}]), "class name"),
    ("coco", "category of two lines", json_with(categories=[{"id": 1, "name": "a\nb"}]), "class name"),
    ("coco", "category is half a letter", json_with(categories=[{"id": 1, "name": "\ud800"}]), "class name"),
    ("coco", "category twice", json_with(categories=[{"id": 1, "name": "a"}] * 2), "occurs more than once"),
    ("coco", "no images", json_with(images=[]), "no-images"),
    ("coco", "no annotations", json_with(annotations=[]), "no-boxes"),
    ("coco", "no categories", json_with(categories=[]), "no-boxes"),
    (
        "yolo",
        "object tag",
        lambda root: (root / "data.yaml").write_text(TAGGED.format(root / "executed")),
        "cannot be read as YAML",
    ),
    ("yolo", "aliases that grow", text_of("data.yaml", f"{GROWING}train: images/train\nnames: *u\n"), "names"),
    ("yolo", "aliases as folders", text_of("data.yaml", f"{GROWING}train: *u\nnames: [a]\n"), "'train' must be"),
    ("yolo", "nested endlessly", text_of("data.yaml", "[" * 1000), "cannot be read as YAML"),
    ("yolo", "cut off", text_of("data.yaml", "names: ["), "cannot be read as YAML"),
    ("yolo", "binary", lambda root: (root / "data.yaml").write_bytes(bytes(range(256))), "cannot be read as YAML"),
    ("yolo", "a list", text_of("data.yaml", "- 1\n"), "names no images"),
    ("yolo", "no names", text_of("data.yaml", "train: images/train\n"), "has no 'names'"),
    ("yolo", "nobody's home", text_of("data.yaml", "train: ~nobody-at-all/x\nnames: [a]\n"), "does not exist"),
    ("yolo", "zero byte", text_of("data.yaml", 'train: "a\\0b"\nnames: [a]\n'), "does not exist"),
    (
        "yolo",
        "folder of 5000 letters",
        text_of("data.yaml", f"train: {'n' * 5000}\nnames: [a]\n"),
        "does not exist",
    ),
    (
        "yolo",
        "other number of names",
        text_of("data.yaml", "train: images/train\nnames: [a]\nnc: 2\n"),
        "nc is 2, but",
    ),
    ("yolo", "empty folder", _empty_folder, "which has no images"),
    ("voc", "empty list", text_of("ImageSets/Main/train.txt", ""), "no-training-images"),
    (
        "voc",
        "list of bytes",
        lambda root: (root / "ImageSets/Main/train.txt").write_bytes(bytes(range(256))),
        "listed-without-annotation",
    ),
    (
        "voc",
        "name of 5000 letters in a list",
        text_of("ImageSets/Main/train.txt", "n" * 5000),
        "listed-without-annotation",
    ),
    ("voc", "one image in both lists", text_of("ImageSets/Main/val.txt", "1\n2\n3"), "image-in-two-lists"),
    (
        "voc",
        "annotations in nested folders",
        lambda root: (root / "Annotations").rename(root / "Nested"),
        "Annotations",
    ),
    ("voc", "class of two lines", annotation(xml_of(3).replace("bar", "a\nb")), "class name"),
    ("voc", "class of 10,000 letters", annotation(xml_of(3).replace("bar", "a" * 10_000)), "class name"),
]


@pytest.mark.parametrize(
    ("form", "broken", "message"), [pytest.param(f, b, m, id=f"{f}: {n}") for f, n, b, m in REFUSED]
)
def test_what_leaves_nothing_to_go_on_with_is_refused_in_words(
    form: str, broken: Callable[[Path], object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command line: exit status 2, the remedy, no traceback."""
    root = tmp_path / "data"
    if form == "voc":
        voc_folder(root, NUMBERS, trained=2)
        broken(root)
        source = f"voc:{root}"
    else:
        source = SOURCES[form](Case("", broken, None, "nothing"), root)
    tracemalloc.start()
    try:
        words = ["preflight", "--data", source, "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
        assert run_all.main(words) == 2
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err + printed.out
    assert not (root / "executed").exists()


def test_nothing_of_the_users_is_rewritten(tmp_path: Path) -> None:
    """One folder with many faults, before and after."""
    root = voc_folder(tmp_path / "data", NUMBERS, trained=None)
    for case in VOC:
        if case.kind in ("latin-1-annotation", "alpha-image", "box-out-of-bounds"):
            case.broken(root)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}
    checked(f"voc:{root}", tmp_path)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}
    assert after == before


def test_the_table_of_the_docs_has_every_kind_with_its_severity_and_every_kind_has_a_case() -> None:
    table = TABLE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (fatal|drop|repair|warning) \|", table, re.MULTILINE)
    documented = dict(rows)
    assert len(documented) == len(rows)
    assert {kind: severity for kind, severity in documented.items() if kind in KINDS} == {
        kind: severity for kind, (severity, _) in KINDS.items()
    }
    tried = {case.kind for cases in (VOC, COCO, YOLO) for case in cases} | {message for *_, message in REFUSED}
    elsewhere = {  # cases of tests/data
        "duplicate-image", "duplicate-image-id", "annotation-in-no-list", "polygon-to-box", "duplicate-list-entry",
        "image-ids-renumbered", "colour-space-image", "class-without-training-boxes", "near-duplicates-across-split",
        "placeholder-class",
    }  # fmt: skip
    assert documented.keys() - tried == elsewhere


def test_the_cap_of_an_image_is_what_the_docs_say() -> None:
    assert f"{MAX_PIXELS // 1_000_000} megapixels" in TABLE.read_text(encoding="utf-8")
