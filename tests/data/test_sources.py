"""--data: all formats agree on the same data, and errors suggest the right request."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from bench.data.index import BOX_FIELDS
from bench.data.readers.pascal import VOC_CLASSES, concatenate, fetch_voc
from bench.data.readers.reading import Reading
from bench.data.sources import data_name, read_source
from bench.data.split import make_split
from bench.errors import UserError
from bench.evaluation.coco import evaluate
from bench.evaluation.detections import Detections
from tests.data.builders import Box, Images, instances, write_coco, write_voc, write_yolo

CLASSES = ["cat", "dog", "emu"]


def random_images(count: int, seed: int) -> Images:
    """Pictures of any size, with 0 to 5 boxes on quarter pixels, some of them beyond the border."""
    rng = np.random.default_rng(seed)
    images: Images = {}
    for _ in range(count):
        width, height = (int(side) for side in rng.integers(20, 200, 2))
        boxes: list[Box] = []
        for _ in range(rng.integers(0, 6)):
            x1, y1 = (float(rng.integers(0, side * 3) / 4) for side in (width, height))
            x2, y2 = x1 + rng.integers(4, 200) / 4, y1 + rng.integers(4, 200) / 4
            boxes.append((CLASSES[rng.integers(3)], x1, y1, x2, y2))
        images[f"{rng.integers(10**6):06d}-{seed}.jpg"] = ((width, height), boxes)
    return images


def without_stated_areas(document: dict[str, list[dict[str, object]]]) -> dict[str, list[dict[str, object]]]:
    for each in document["annotations"]:
        del each["area"]  # COCO's is of the uncut segment; VOC and YOLO have the cut box only
    return document


def in_three_formats(tmp_path: Path) -> list[Reading]:
    """One set of 12 training and 6 validation images, read as VOC, as COCO and as YOLO."""
    train, val = random_images(12, 0), random_images(6, 1)
    voc = write_voc(
        tmp_path / "voc",
        {Path(name).stem: image for name, image in (train | val).items()},
        {"train": [Path(name).stem for name in train], "val": [Path(name).stem for name in val]},
    )
    coco = tmp_path / "coco"
    for name, images in (("train", train), ("val", val)):
        document = without_stated_areas(instances(images, CLASSES))
        write_coco(coco / "annotations" / f"instances_{name}.json", document, coco / "images" / name)
    yolo = write_yolo(tmp_path / "yolo", {"train": train, "val": val}, CLASSES)

    return [read_source(text, cache=tmp_path) for text in (f"voc:{voc}", f"coco:{coco}", f"yolo:{yolo}")]


def test_voc_coco_and_yolo_agree_on_equal_data(tmp_path: Path) -> None:
    readings = in_three_formats(tmp_path)
    first = readings[0].index
    assert len(first) == 18
    assert len(first.boxes) > 20
    largest = max(float(np.abs(reading.index.boxes - first.boxes).max()) for reading in readings)
    print(f"largest difference of a coordinate {largest:.1e} pixels")
    assert largest < 0.005
    for reading in readings:
        assert not any(each.severity == "fatal" for each in reading.problems)
    assert len({reading.index.fingerprint() for reading in readings}) == 1
    assert len({make_split(reading).fingerprint for reading in readings}) == 1
    out_of_bounds = [sum(each.kind == "box-out-of-bounds" for each in reading.problems) for reading in readings]
    assert out_of_bounds[0] > 0
    assert len(set(out_of_bounds)) == 1


def test_the_same_detections_score_the_same_in_every_format(tmp_path: Path) -> None:
    """Boxes of the validation split, moved by up to a quarter of their side and some of another class."""
    readings = in_three_formats(tmp_path)
    indexes = [reading.index.take(make_split(reading).val) for reading in readings]
    first, generator = indexes[0], np.random.default_rng(2)
    count = len(first.boxes)
    sides = np.tile(first.boxes[:, 2:] - first.boxes[:, :2], 2)
    detections = Detections(
        image=first.image_of_box,
        boxes=(first.boxes + generator.uniform(-0.25, 0.25, (count, 4)) * sides).astype(np.float32),
        scores=generator.random(count).astype(np.float32),
        labels=np.where(generator.random(count) < 0.2, generator.integers(0, 3, count), first.labels).astype(np.int32),
    )
    by_format = [evaluate(index, detections).accuracy for index in indexes]
    figures = [np.array([accuracy[name] for accuracy in by_format], dtype=float) for name in ("AP", "AP50", "AP75")]
    largest = max(float(np.ptp(values)) for values in figures)
    print(f"AP, AP50, AP75 {[float(values[0]) for values in figures]}, largest difference {largest}")
    assert 0 < figures[0][0] < 1
    assert largest == 0
    assert by_format[1:] == by_format[:-1]


def small_voc(root: Path, stems: str = "ab", *, lists: dict[str, list[str]] | None = None) -> Path:
    return write_voc(root, {stem: ((20, 20), [("cat", 1, 1, 9, 9)]) for stem in stems}, lists or {})


def test_a_wrong_prefix_suggests_the_right_one(tmp_path: Path) -> None:
    voc = small_voc(tmp_path / "VOCdevkit" / "VOC2007")
    coco = tmp_path / "coco"
    write_coco(coco / "annotations.json", instances({}, CLASSES), coco / "images")
    yolo = write_yolo(tmp_path / "yolo", {"train": random_images(1, 0)}, CLASSES)
    for given, right in (
        (f"coco:{voc}", f"voc:{voc}"),
        (f"voc:{voc.parent}", f"voc:{voc}"),
        (f"voc:{coco}", f"coco:{coco}"),
        (f"voc:{yolo.parent}", f"yolo:{yolo}"),
        (f"coco:{yolo}", f"yolo:{yolo}"),
        (f"yolo:{voc}", f"voc:{voc}"),
    ):
        with pytest.raises(UserError, match=f" {re.escape(right)}\\."):
            read_source(given, cache=tmp_path)


def test_missing_or_unrecognised_paths_are_explained(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.md").touch()
    for given, message in (
        (f"voc:{tmp_path / 'photo'}", f"but {tmp_path / 'photos'}"),
        (f"voc:{tmp_path / 'no' / 'where'}", f"nor does {tmp_path / 'no'}"),
        (f"voc:{tmp_path / 'photos'}", "It holds notes.md."),
        (f"coco:{tmp_path / 'photos' / 'notes.md'}", "it is a file"),
        (str(tmp_path / "photos"), "is no data set that is recognised. It holds notes.md."),
        ("voc:", "Write voc:DIR."),
        ("yolo", "Write yolo:DATA.yaml."),
        ("voc2077", "Did you mean voc2007?"),
        ("scene", "Did you mean scenes?"),
        ("pictures", "Write the path of a folder or .zip file, or one of scenes, "),
        ("scenes:imagse=3", "imagse"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            read_source(given, cache=tmp_path)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("scenes", "scenes"),
        ("scenes:images=400,small=0.5", "scenes-images400-small0-5"),
        ("voc2007", "voc2007"),
        ("voc0712", "voc0712"),
        ("voc:/data/bccd/", "bccd"),
        ("coco:/data/my photos (2)", "my-photos-2"),
        ("yolo:/data/cells/data.yaml", "cells"),
        ("yolo:/data/coco128.yaml", "coco128"),
        ("coco:/data/cells/annotations/train.json", "cells"),
        ("coco:/data/cells-2.json", "cells-2"),
        ("csv:/data/cells/train_labels.csv", "cells"),
        ("voc:/data/cells.v3.zip", "cells-v3"),
        ("voc:/data/照片", "voc"),
    ],
)
def test_data_names_are_valid_folder_names(source: str, name: str) -> None:
    assert data_name(source) == name
    assert re.fullmatch(r"[A-Za-z0-9_-]+", data_name(source))


def test_data_name_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cells").mkdir()
    monkeypatch.chdir(tmp_path / "cells")
    assert data_name("voc:.") == "cells"


def test_scenes_are_drawn_into_the_cache(tmp_path: Path) -> None:
    reading = read_source("scenes:images=4,classes=2", cache=tmp_path)
    assert len(reading.index) == 4
    assert reading.index.root.is_relative_to(tmp_path)


def test_concatenated_readings_keep_every_image_with_its_boxes(tmp_path: Path) -> None:
    first = read_source(
        f"voc:{small_voc(tmp_path / 'one', 'ab', lists={'train': ['a'], 'val': ['b']})}", cache=tmp_path
    )
    images: Images = {"a": ((30, 30), [("cat", 2, 2, 8, 8), ("cat", 3, 3, 7, 7)]), "c": ((30, 30), [])}
    second = read_source(f"voc:{write_voc(tmp_path / 'two', images, {'train': ['a', 'c']})}", cache=tmp_path)
    joined = concatenate(first, second)
    assert joined.index.files == tuple(
        f"{part}/JPEGImages/{stem}.jpg" for part, stem in zip(("one", "one", "two", "two"), "abac", strict=True)
    )
    assert all((joined.index.root / file).is_file() for file in joined.index.files)
    assert {name: rows.tolist() for name, rows in joined.lists.items()} == {"train": [0, 2, 3], "val": [1]}
    assert joined.index.take(np.array([0, 1])).fingerprint() == first.index.fingerprint()
    assert joined.index.take(np.array([2, 3])).fingerprint() == second.index.fingerprint()
    assert len({len(getattr(joined.index, name)) for name in BOX_FIELDS}) == 1


def test_readings_with_different_classes_cannot_be_joined(tmp_path: Path) -> None:
    first = read_source(f"voc:{small_voc(tmp_path / 'one')}", cache=tmp_path)
    other = write_voc(tmp_path / "two", {"a": ((20, 20), [("emu", 1, 1, 9, 9)])}, {})
    with pytest.raises(UserError, match="differ in cat, emu"):
        concatenate(first, read_source(f"voc:{other}", cache=tmp_path))


def pascal(root: Path) -> Callable[..., None]:
    """A replacement for torchvision's download that writes a small version of the real archives."""

    def unpack(folder: str, *, year: str, image_set: str, download: bool) -> None:
        assert download
        stems = {"2007-trainval": "ab", "2007-test": "cd", "2012-trainval": "ef"}[f"{year}-{image_set}"]
        small_voc(Path(folder) / "VOCdevkit" / f"VOC{year}", stems, lists={image_set: list(stems)})
        calls = root / "calls.txt"
        calls.write_text((calls.read_text() if calls.exists() else "") + f"{year}-{image_set}\n")

    return unpack


def test_pascal_trains_on_trainval_and_evaluates_on_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "VOCDetection", pascal(tmp_path))

    def listed(source: str) -> dict[str, list[str]]:
        reading = read_source(source, cache=tmp_path)
        assert reading.index.classes == VOC_CLASSES
        return {name: [Path(reading.index.files[row]).stem for row in rows] for name, rows in reading.lists.items()}

    assert listed("voc2007") == {"train": ["a", "b"], "val": ["c", "d"]}
    assert listed("voc0712") == {"train": ["a", "b", "e", "f"], "val": ["c", "d"]}
    assert (tmp_path / "calls.txt").read_text().split() == ["2007-trainval", "2007-test", "2012-trainval"]


@pytest.mark.parametrize("failure", [OSError("no route to host"), RuntimeError("File not found or corrupted.")])
def test_a_failed_download_names_the_remedy_and_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(torchvision.datasets, "VOCDetection", refuse)
    with pytest.raises(UserError, match=r"could not be downloaded.*voc:DIR"):
        read_source("voc2007", cache=tmp_path)
    monkeypatch.setattr(torchvision.datasets, "VOCDetection", pascal(tmp_path))
    assert fetch_voc(tmp_path, "2007", "test").is_dir()


def test_a_users_pascal_in_the_cache_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "VOCDetection", pascal(tmp_path))
    users = small_voc(tmp_path / "voc/VOCdevkit/VOC2007", "a")
    annotation = next((users / "Annotations").iterdir())
    annotation.write_text("corrected by hand")
    with pytest.raises(UserError, match=r"VOC2007 exists, but this program did not unpack it.*voc:DIR"):
        read_source("voc2007", cache=tmp_path)
    assert annotation.read_text() == "corrected by hand"
    assert fetch_voc(tmp_path, "2012", "trainval").is_dir()


def test_an_interrupted_unpacking_of_pascal_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: str, *, year: str, **_: object) -> None:
        (Path(folder) / "VOCdevkit" / f"VOC{year}").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(torchvision.datasets, "VOCDetection", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_voc(tmp_path, "2007", "test")
    monkeypatch.setattr(torchvision.datasets, "VOCDetection", pascal(tmp_path))
    assert (fetch_voc(tmp_path, "2007", "test") / "Annotations").is_dir()


def test_there_are_twenty_pascal_classes() -> None:
    assert len(set(VOC_CLASSES)) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
