"""With --skip-invalid a set with one bad item gives exactly the index of the good part alone."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.data.dataset import check
from bench.data.preflight import WHOLE_SET_KINDS, enforce
from bench.data.problems import KINDS
from bench.data.readers.reading import Reading
from bench.data.sources import read_source
from tests.data.builders import Box, Document, Images, annotation, instances, kinds, write_voc, write_yolo
from tests.dataset_builders import png_header

SIZE = (40, 30)
CLASSES = ("cat", "dog")
RARE = "bee"  # a class that only bad items have; first in every order of classes
GONE: Box = (RARE, 4, 5, 24, 15)
# Those of images are in decode.py
FATAL = {kind for kind, (severity, _) in KINDS.items() if severity == "fatal"} - WHOLE_SET_KINDS | {
    *("unreadable-image", "truncated-image", "oversized-image", "size-disagrees", "exif-disagrees")
}


class Good(NamedTuple):
    """Boxes of the training and the validation images. words: COCO's numbers are written as text."""

    train: list[list[Box]]
    val: list[list[Box]]
    words: bool

    def images(self) -> dict[str, list[Box]]:
        """By stem, with gaps into which the names of bad images fall."""
        boxes = self.train + self.val
        return {f"{2 * number + 1}": own for number, own in enumerate(boxes)}

    def stems(self) -> dict[str, list[str]]:
        names = list(self.images())
        return {"train": names[: len(self.train)], "val": names[len(self.train) :]}


BOXES = st.builds(
    lambda label, left, top: (CLASSES[label], float(left), float(top), left + 10.0, top + 12.0),
    *(st.integers(0, 1), st.integers(0, 30), st.integers(0, 18)),
)
GOOD = st.builds(
    Good,
    train=st.lists(st.lists(BOXES, min_size=1, max_size=2), min_size=1, max_size=2),
    val=st.lists(st.lists(BOXES, max_size=2), min_size=1, max_size=2),
    words=st.booleans(),
)

Inject = Callable[[Path, str, int], object]
"""Adds the bad item to a good set in a folder: a stem for a new image, and at which place in its list it goes."""


def encoded(size: tuple[int, int] = SIZE, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "JPEG", exif=exif)
    return content.getvalue()


BAD_IMAGES = {
    "unreadable-image": b"no image",
    "truncated-image": encoded()[:-200],
    "oversized-image": png_header(60_000, 60_000),
    "size-disagrees": encoded(size=(50, 30)),
    "exif-disagrees": encoded(orientation=6),
}
BAD_CORNERS = {
    "non-finite-box": ("nan", 5, 24, 15),
    "inverted-box": (24, 5, 4, 15),
    "zero-area-box": (4, 5, 4, 15),
    "box-outside-image": (400, 5, 424, 15),
}


# VOC


def voc(root: Path, good: Good, *, lists: bool) -> str:
    write_voc(root, {stem: (SIZE, own) for stem, own in good.images().items()}, good.stems() if lists else {})
    return f"voc:{root}"


def voc_image(content: bytes | None, text: str | None = annotation(SIZE, [GONE])) -> Inject:
    """One more image, with the annotation `text`."""

    def inject(root: Path, stem: str, _: int) -> None:
        if content is not None:
            (root / f"JPEGImages/{stem}.jpg").write_bytes(content)
        if text is not None:
            (root / f"Annotations/{stem}.xml").write_text(text)

    return inject


def voc_object(box: Sequence[object]) -> Inject:
    """One more object in the first annotation."""

    def inject(root: Path, _: str, place: int) -> None:
        path = root / "Annotations/1.xml"
        head, *objects = path.read_text().removesuffix("</annotation>").split("<object>")
        bad = annotation(SIZE, [box]).removesuffix("</annotation>").split("<object>")[1]  # type: ignore[list-item]
        objects.insert(place, bad)
        path.write_text("<object>".join([head, *objects]) + "</annotation>")

    return inject


def voc_unreadable_name(root: Path, stem: str, place: int) -> None:
    voc_image(encoded())(root, os.fsdecode(b"\xff") + stem, place)


def voc_line(list_name: str, line: str) -> Inject:
    def inject(root: Path, _: str, place: int) -> None:
        path = root / f"ImageSets/Main/{list_name}.txt"
        lines = path.read_text().splitlines()
        lines.insert(place, line)
        path.write_text("\n".join(lines))

    return inject


VOC: dict[str, list[Inject]] = {
    **{kind: [voc_image(content)] for kind, content in BAD_IMAGES.items()},
    **{kind: [voc_object((RARE, *corners))] for kind, corners in BAD_CORNERS.items()},
    "missing-image": [voc_image(None)],
    "unreadable-name": [voc_unreadable_name],
    "unreadable-annotation": [voc_image(encoded(), text) for text in ("", annotation(SIZE, [GONE])[:-20], "<html/>")],
    "image-without-annotation": [voc_image(encoded(), None)],
    "unknown-class": [voc_object((" ", 4, 5, 24, 15))],
}
VOC_LISTS: dict[str, list[Inject]] = {
    "listed-without-annotation": [voc_line("train", "nothing"), voc_line("val", "nothing")],
}


# COCO


def coco(root: Path, good: Good) -> str:
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    images = good.images()
    for name, stems in good.stems().items():
        document = instances({f"{stem}.jpg": (SIZE, images[stem]) for stem in stems}, [RARE, *CLASSES])
        for image in document["images"]:
            image["id"] = int(image["file_name"].removesuffix(".jpg"))
            (root / "images" / image["file_name"]).write_bytes(encoded())
        for each in document["annotations"]:
            each["image_id"] = int(stems[each["image_id"] - 1])
            if good.words:
                each["bbox"] = [str(value) for value in each["bbox"]]
        (root / f"annotations/instances_{name}.json").write_text(json.dumps(document))
    return f"coco:{root}"


def edit(root: Path, name: str, change: Callable[[Document], object]) -> None:
    path = root / f"annotations/instances_{name}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def coco_annotation(**changes: object) -> Inject:
    """One more annotation of the first image."""

    def inject(root: Path, _: str, place: int) -> None:
        bad = {"id": 1000, "image_id": 1, "category_id": 1, "bbox": [4, 5, 20, 10], "area": 200, "iscrowd": 0}
        edit(root, "train", lambda document: document["annotations"].insert(place, bad | changes))

    return inject


def coco_image(content: bytes | None, **changes: object) -> Inject:
    """One more image in val, with a box; its id is that of an image of train."""

    def inject(root: Path, stem: str, place: int) -> None:
        image = {"id": 1, "file_name": f"{stem}.jpg", "width": SIZE[0], "height": SIZE[1]} | changes
        box = {"id": 1000, "image_id": 1, "category_id": 1, "bbox": [4, 5, 20, 10], "area": 200, "iscrowd": 0}

        def change(document: Document) -> None:
            document["images"].insert(place, image)
            document["annotations"].insert(place, box)

        edit(root, "val", change)
        if content is not None:
            (root / f"images/{stem}.jpg").write_bytes(content)

    return inject


def coco_twice(root: Path, stem: str, place: int) -> None:
    """One more file with two entries, which spell it differently."""
    coco_image(encoded(), id=1)(root, stem, place)
    second = {"id": 900, "file_name": f"./{stem}.jpg", "width": SIZE[0], "height": SIZE[1]}
    edit(root, "val", lambda document: document["images"].append(second))


def coco_same_id(root: Path, stem: str, place: int) -> None:
    """Two more images of one id."""
    for name in (stem, f"{stem}-again"):
        coco_image(encoded())(root, name, place)
    edit(root, "val", lambda document: document["annotations"].remove(document["annotations"][place]))


def coco_same_annotation_id(root: Path, _: str, __: int) -> None:
    """One more annotation after the others, with the id of the first."""
    coco_annotation(id=1)(root, "", 1000)


NOT_BOXES: tuple[object, ...] = (
    *(None, "all", {}),
    *([1, 2, 3], [1, None, 3, 4], ["a", 2, 3, 4], [[1], 2, 3, 4], [10**400, 1, 2, 3]),
)
COCO: dict[str, list[Inject]] = {
    **{kind: [coco_image(content)] for kind, content in BAD_IMAGES.items()},
    "missing-image": [coco_image(None), coco_image(encoded(), file_name=None)],
    "unreadable-name": [coco_image(None, file_name="\ud800.jpg")],
    "duplicate-image": [coco_twice],
    "duplicate-image-id": [coco_same_id],
    "duplicate-annotation-id": [coco_same_annotation_id],
    "annotation-of-unknown-image": [coco_annotation(image_id=777)],
    "unknown-class": [coco_annotation(category_id=77), coco_annotation(category_id=0)],
    "non-finite-box": [coco_annotation(bbox=bbox) for bbox in NOT_BOXES],
    "inverted-box": [coco_annotation(bbox=[24, 5, -20, 10])],
    "zero-area-box": [coco_annotation(bbox=[4, 5, 0, 10])],
    "box-outside-image": [coco_annotation(bbox=[400, 5, 20, 10])],
}


# YOLO


def yolo(root: Path, good: Good) -> str:
    images = good.images()
    lists: dict[str, Images] = {
        name: {f"{stem}.jpg": (SIZE, images[stem]) for stem in stems} for name, stems in good.stems().items()
    }
    return f"yolo:{write_yolo(root, lists, [RARE, *CLASSES])}"


def yolo_image(content: bytes, line: str = "0 .5 .5 .2 .2") -> Inject:
    """One more training image."""

    def inject(root: Path, stem: str, _: int) -> None:
        (root / f"images/train/{stem}.jpg").write_bytes(content)
        (root / f"labels/train/{stem}.txt").write_text(line)

    return inject


def yolo_line(line: str) -> Inject:
    """One more line in the labels of the first image."""

    def inject(root: Path, _: str, place: int) -> None:
        path = root / "labels/train/1.txt"
        lines = path.read_text().splitlines()
        lines.insert(place, line)
        path.write_text("\n".join(lines))

    return inject


def yolo_labels_alone(root: Path, stem: str, _: int) -> None:
    (root / f"labels/train/{stem}.txt").write_text("0 .5 .5 .2 .2")


def yolo_labels_are_a_folder(root: Path, stem: str, place: int) -> None:
    yolo_image(encoded())(root, stem, place)
    (root / f"labels/train/{stem}.txt").unlink()
    (root / f"labels/train/{stem}.txt").mkdir()


def yolo_in_both_lists(root: Path, _: str, __: int) -> None:
    """The first validation image is listed for training, too."""
    path = root / "data.yaml"
    first = min((root / "images/val").iterdir())
    (root / "more.txt").write_text(f"./images/val/{first.name}\n")
    path.write_text(path.read_text().replace("train: images/train", "train: [images/train, more.txt]"))


YOLO: dict[str, list[Inject]] = {
    **{kind: [yolo_image(BAD_IMAGES[kind])] for kind in ("unreadable-image", "truncated-image", "oversized-image")},
    "missing-image": [yolo_labels_alone],
    "unreadable-annotation": [yolo_labels_are_a_folder],
    "image-in-two-lists": [yolo_in_both_lists],
    "unknown-class": [yolo_line("9 .5 .5 .2 .2"), yolo_line("-1 .5 .5 .2 .2"), yolo_line("nan .5 .5 .2 .2")],
    "bad-label-line": [yolo_line("0 .5"), yolo_line("a cat at the door"), yolo_line("0 .5 .5 .2 .2 .9")],
    "not-normalised": [yolo_line("0 20 15 10 10")],
    "non-finite-box": [yolo_line("0 .5 .5 nan .2"), yolo_line("0 .1 .1 inf .1 .5 .5")],
    "inverted-box": [yolo_line("0 .5 .5 -.2 .2")],
    "zero-area-box": [yolo_line("0 .5 .5 0 .2")],
    "box-outside-image": [yolo_line("0 5 5 .2 .2")],
}

Write = Callable[[Path, Good], str]
FORMS: dict[str, tuple[Write, dict[str, list[Inject]]]] = {
    "voc": (lambda root, good: voc(root, good, lists=False), VOC),
    "voc with lists": (lambda root, good: voc(root, good, lists=True), VOC_LISTS),
    "coco": (coco, COCO),
    "yolo": (yolo, YOLO),
}
CASES = [
    pytest.param(form, kind, inject, id=f"{form}: {kind} {number}")
    for form, (_, injections) in FORMS.items()
    for kind, variants in injections.items()
    for number, inject in enumerate(variants, start=1)
]


def usable(source: str, folder: Path) -> Reading:
    """What a run with --skip-invalid would use."""
    report, _ = check(read_source(source, cache=folder), cache=folder / "cache", workers=1)
    enforce(report.reading, skip_invalid=True)
    return report.reading


def content(reading: Reading) -> dict[str, object]:
    """All that follows from the data, in a form that can be compared."""
    index = reading.index
    return {
        "fingerprint": index.fingerprint(),
        "classes": (index.classes, index.category_ids.tolist()),
        "images": (index.files, index.image_ids.tolist(), index.sizes.tolist(), index.offsets.tolist()),
        "boxes": (index.boxes.tolist(), index.labels.tolist(), index.areas.tolist(), index.crowd.tolist()),
        "lists": {name: rows.tolist() for name, rows in reading.lists.items()},
    }


@pytest.mark.parametrize(("form", "kind", "inject"), CASES)
def test_a_bad_item_leaves_the_index_of_the_good_part(form: str, kind: str, inject: Inject) -> None:
    write, _ = FORMS[form]

    @settings(max_examples=3, deadline=None, database=None)
    @given(good=GOOD, stem=st.sampled_from(["0", "2", "8"]), place=st.integers(0, 1))
    def compare(good: Good, stem: str, place: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            alone = usable(write(Path(folder) / "good/data", good), Path(folder) / "good")
            assert not [each for each in alone.problems if each.severity in ("fatal", "drop")]
            source = write(Path(folder) / "bad/data", good)
            inject(Path(folder) / "bad/data", stem, place)
            found = usable(source, Path(folder) / "bad")
        assert kinds(found.problems)[kind] == 1
        assert content(found) == content(alone)

    compare()


def test_every_fatal_kind_is_injected() -> None:
    assert {kind for _, injections in FORMS.values() for kind in injections} >= FATAL
