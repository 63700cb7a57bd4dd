"""A small data set, and a sample of it in each arrangement that docs/data.md names."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from bench.data.readers.reading import Reading
from tests.data.builders import Box, Images, annotation, instances

CLASSES = ["cat", "dog", "emu"]
SIZE = (80, 50)
COUNTS = {"train": 3, "val": 2, "test": 1}
VALID = {"train": "train", "val": "valid", "test": "test"}  # as Roboflow calls the lists
SUBSETS = {"train": "Train", "val": "Validation", "test": "Test"}  # as CVAT does
Described = dict[str, tuple[tuple[int, int], tuple[tuple[Any, ...], ...]]]


def images_of(name: str) -> Images:
    """The images of a list, of two boxes each but the last, which has none if there are others."""
    images: Images = {}
    for number in range(COUNTS[name]):
        boxes: list[Box] = [
            (CLASSES[(number + other) % 3], 4 + number, 5 + other, 24 + 8 * other, 25 + number) for other in range(2)
        ]
        alone = COUNTS[name] == 1
        images[f"{name}-{number}.jpg"] = (SIZE, boxes if alone or number < COUNTS[name] - 1 else [])
    return images


LISTS = {name: images_of(name) for name in COUNTS}
EVERY = {file: image for images in LISTS.values() for file, image in images.items()}
CROWD = [file for file in EVERY if file.endswith("-0.jpg")]  # their first boxes, where the format has crowds


def expected(*, crowds: bool) -> Described:
    """Size and boxes of each image: class, corners, crowd."""
    return {
        file: (size, tuple((name, *corners, crowds and file in CROWD and not at) for at, (name, *corners) in boxes))
        for file, (size, listed) in EVERY.items()
        for boxes in [list(enumerate(listed))]
    }


def described(reading: Reading) -> Described:
    """The same of a reading; corners are rounded to the hundredths that every format keeps."""
    index = reading.index
    found: Described = {}
    for row, file in enumerate(index.files):
        rows = range(index.offsets[row], index.offsets[row + 1])
        found[Path(file).name] = (
            (int(index.sizes[row, 0]), int(index.sizes[row, 1])),
            tuple(
                (index.classes[index.labels[box]], *index.boxes[box].round(2).tolist(), bool(index.crowd[box]))
                for box in rows
            ),
        )
    return found


def listed(reading: Reading) -> dict[str, list[str]]:
    return {name: [Path(reading.index.files[row]).name for row in rows] for name, rows in reading.lists.items()}


def save(folder: Path, images: Images) -> None:
    """Grey pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, (size, _) in images.items():
        Image.new("RGB", size, "grey").save(folder / file)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def coco(path: Path, images: Images, *, before: str = "", roboflow: bool = False) -> None:
    """An instances file. before: what stands before each file name. roboflow: with its category above the classes."""
    document = instances({f"{before}{file}": image for file, image in images.items()}, CLASSES)
    crowds = {number for number, file in enumerate(images, start=1) if file in CROWD}
    for each in document["annotations"]:
        if each["image_id"] in crowds:
            each["iscrowd"] = 1
            crowds.remove(each["image_id"])
    if roboflow:
        for each in document["categories"]:
            each["supercategory"] = "animals"
        document["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})
    write(path, json.dumps({"info": {}, "licenses": [], **document}))


def voc(folder: Path, images: Images) -> None:
    for file, (size, boxes) in images.items():
        write(folder / f"{Path(file).stem}.xml", annotation(size, boxes))


def yolo(folder: Path, images: Images) -> None:
    for file, (size, boxes) in images.items():
        lines = [
            f"{CLASSES.index(name)} {(x1 + x2) / 2 / size[0]:.6f} {(y1 + y2) / 2 / size[1]:.6f} "
            f"{(x2 - x1) / size[0]:.6f} {(y2 - y1) / size[1]:.6f}\n"
            for name, x1, y1, x2, y2 in boxes
        ]
        write(folder / f"{Path(file).stem}.txt", "".join(lines))


def names(path: Path) -> None:
    write(path, "\n".join(CLASSES) + "\n")


HEADING = ("image", "xmin", "ymin", "xmax", "ymax", "class")


def table(path: Path, images: Images, heading: Sequence[str] = HEADING) -> None:
    """A CSV file; without a heading if it is empty."""
    no_box: Sequence[Sequence[object]] = [("",) * 5]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if heading:
            writer.writerow(heading)
        for name, (size, boxes) in images.items():
            for label, x1, y1, x2, y2 in boxes or no_box:
                if "width" in heading:
                    writer.writerow((name, *size, label, x1, y1, x2, y2))
                else:
                    writer.writerow((name, x1, y1, x2, y2, label))


def json_lines(path: Path, images: Images, *, numbers: bool = False) -> None:
    lines = []
    for file, (_, boxes) in images.items():
        objects = {
            "bbox": [[x1, y1, x2 - x1, y2 - y1] for _, x1, y1, x2, y2 in boxes],
            "categories": [CLASSES.index(name) if numbers else name for name, *_ in boxes],
            "iscrowd": [int(file in CROWD and not at) for at in range(len(boxes))],
        }
        lines.append(json.dumps({"file_name": file, "objects": objects}))
    write(path, "\n".join(lines) + "\n")


def fiftyone(path: Path, images: Images) -> None:
    labels = {
        Path(file).stem: [
            {
                "label": CLASSES.index(name),
                "bounding_box": [x1 / size[0], y1 / size[1], (x2 - x1) / size[0], (y2 - y1) / size[1]],
                "iscrowd": int(file in CROWD and not at),
            }
            for at, (name, x1, y1, x2, y2) in enumerate(boxes)
        ]
        or None
        for file, (size, boxes) in images.items()
    }
    write(path, json.dumps({"classes": CLASSES, "labels": labels}))


def cvat(path: Path, *, subsets: bool) -> None:
    text = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    text = f"<meta><task><labels>{text}</labels></task></meta>"
    for list_name, images in LISTS.items():
        for file, (size, boxes) in images.items():
            subset = (
                f' subset="{ {"train": "Train", "val": "Validation", "test": "Test"}[list_name] }"' if subsets else ""
            )
            shapes = "".join(
                f'<box label="{name}" occluded="0" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"/>'
                for name, x1, y1, x2, y2 in boxes
            )
            text += f'<image name="{file}"{subset} width="{size[0]}" height="{size[1]}">{shapes}</image>'
    write(path, f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{text}</annotations>')


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One arrangement. make: write it and return what follows --data, without a prefix.

    prefix: of the reader. splits: whether it keeps the lists. crowds: whether it keeps crowds.
    """

    name: str
    prefix: str
    make: Callable[[Path], Path]
    splits: bool
    crowds: bool = False


SAMPLES: list[Sample] = []


def sample(name: str, prefix: str, *, splits: bool, crowds: bool = False) -> Callable[[Callable[[Path], Any]], None]:
    """Register a function that writes a sample into a folder; it returns the path for --data if that is another."""

    def register(make: Callable[[Path], Any]) -> None:
        SAMPLES.append(
            Sample(name=name, prefix=prefix, make=lambda root: make(root) or root, splits=splits, crowds=crowds)
        )

    return register


@sample("annotations.json", "coco", splits=False, crowds=True)
def _(root: Path) -> None:
    coco(root / "annotations.json", EVERY)
    save(root / "images", EVERY)


@sample("annotations/instances_train2017.json", "coco", splits=True, crowds=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        coco(root / f"annotations/instances_{name}2017.json", images)
        save(root / f"{name}2017", images)


@sample("Roboflow COCO", "coco", splits=True, crowds=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        coco(root / VALID[name] / "_annotations.coco.json", images, roboflow=True)
        save(root / VALID[name], images)


@sample("train/annotations.json", "coco", splits=True, crowds=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        coco(root / name / "annotations.json", images)
        save(root / name / "images", images)


@sample("annotations/train.json", "coco", splits=True, crowds=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        coco(root / f"annotations/{name}.json", images)
        save(root / "images", images)


@sample("train.json", "coco", splits=True, crowds=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        coco(root / f"{name}.json", images)
        save(root / name, images)


@sample("instances_val2017.json", "coco", splits=True, crowds=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        coco(root / f"instances_{name}2017.json", images)
        save(root / "images" / name, images)


@sample("coco:FILE.json", "coco", splits=False, crowds=True)
def _(root: Path) -> Path:
    coco(root / "boxes of animals.json", EVERY)
    save(root / "images", EVERY)
    write(root / "other.json", "{}")
    return root / "boxes of animals.json"


@sample("annotations/FILE.json, as a file", "coco", splits=False, crowds=True)
def _(root: Path) -> Path:
    coco(root / "annotations/all.json", EVERY)
    coco(root / "annotations/old.json", LISTS["val"])
    save(root / "images", EVERY)
    return root / "annotations/all.json"


@sample("Label Studio COCO", "coco", splits=False, crowds=True)
def _(root: Path) -> None:
    coco(root / "result.json", EVERY, before="images\\")
    save(root / "images", EVERY)


@sample("Label Studio COCO with paths of the server", "coco", splits=False, crowds=True)
def _(root: Path) -> None:
    coco(root / "result.json", EVERY, before="../../label-studio/data/media/upload/1/")
    save(root / "images", EVERY)


@sample("CVAT COCO", "coco", splits=False, crowds=True)
def _(root: Path) -> None:
    coco(root / "annotations/instances_default.json", EVERY)
    save(root / "images/default", EVERY)


@sample("CVAT COCO with subsets", "coco", splits=True, crowds=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        subset = SUBSETS[name]
        coco(root / f"annotations/instances_{subset}.json", images)
        save(root / f"images/{subset}", images)


@sample("FiftyOne COCO", "coco", splits=False, crowds=True)
def _(root: Path) -> None:
    coco(root / "labels.json", EVERY)
    save(root / "data", EVERY)


@sample("VOC with lists", "voc", splits=True)
def _(root: Path) -> None:
    voc(root / "Annotations", EVERY)
    save(root / "JPEGImages", EVERY)
    for name, images in LISTS.items():
        write(root / f"ImageSets/Main/{name}.txt", "\n".join(Path(file).stem for file in images))


@sample("VOC with ImageSets/Main/valid.txt", "voc", splits=True)
def _(root: Path) -> None:
    voc(root / "Annotations", EVERY)
    save(root / "JPEGImages", EVERY)
    for name, images in LISTS.items():
        write(root / f"ImageSets/Main/{VALID[name]}.txt", "\n".join(Path(file).stem for file in images))


@sample("CVAT VOC", "voc", splits=False)
def _(root: Path) -> None:
    voc(root / "Annotations", EVERY)
    save(root / "JPEGImages", EVERY)
    write(root / "ImageSets/Main/default.txt", "\n".join(Path(file).stem for file in EVERY))
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\ncat:1,2,3::\n")


@sample("Kaggle", "voc", splits=False)
def _(root: Path) -> None:
    voc(root / "annotations", EVERY)
    save(root / "images", EVERY)


@sample("Annotations/ with images/", "voc", splits=False)
def _(root: Path) -> None:
    voc(root / "Annotations", EVERY)
    save(root / "images", EVERY)


@sample("LabelImg XML", "voc", splits=False)
def _(root: Path) -> None:
    voc(root, EVERY)
    save(root, EVERY)


@sample("Roboflow VOC", "voc", splits=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        voc(root / VALID[name], images)
        save(root / VALID[name], images)
    write(root / "README.dataset.txt", "animals > 1")


@sample("VOC in a folder for each list", "voc", splits=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        voc(root / name / "Annotations", images)
        save(root / name / "JPEGImages", images)


@sample("VOC with annotations/train and images/train", "voc", splits=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        voc(root / "annotations" / name, images)
        save(root / "images" / name, images)


@sample("FiftyOne VOC", "voc", splits=False)
def _(root: Path) -> None:
    voc(root / "labels", EVERY)
    save(root / "data", EVERY)


def data_yaml(root: Path, place: str, keys: dict[str, str]) -> None:
    """data.yaml. place: of the images of a list, with {} for its folder."""
    lines = [f"{keys[name]}: {place.format(VALID[name])}" for name in LISTS]
    write(root / "data.yaml", "\n".join([*lines, "nc: 3", f"names: {CLASSES}"]) + "\n")


@sample("YOLO with data.yaml", "yolo", splits=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        yolo(root / "labels" / VALID[name], images)
        save(root / "images" / VALID[name], images)
    data_yaml(root, "images/{}", {name: name for name in LISTS})


@sample("Roboflow YOLO", "yolo", splits=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        yolo(root / VALID[name] / "labels", images)
        save(root / VALID[name] / "images", images)
    data_yaml(root, "../{}/images", {name: name for name in LISTS})


@sample("YOLO with the key valid", "yolo", splits=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        yolo(root / VALID[name] / "labels", images)
        save(root / VALID[name] / "images", images)
    data_yaml(root, "{}/images", VALID)


@sample("LabelImg txt", "yolo", splits=False)
def _(root: Path) -> None:
    yolo(root, EVERY)
    save(root, EVERY)
    names(root / "classes.txt")


@sample("Label Studio YOLO", "yolo", splits=False)
def _(root: Path) -> None:
    yolo(root / "labels", EVERY)
    save(root / "images", EVERY)
    names(root / "classes.txt")
    write(root / "notes.json", json.dumps({"categories": [], "info": {}}))


@sample("YOLO without data.yaml, labels/train", "yolo", splits=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        yolo(root / "labels" / name, images)
        save(root / "images" / name, images)
    names(root / "classes.txt")


@sample("YOLO without data.yaml, train/labels", "yolo", splits=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        yolo(root / VALID[name] / "labels", images)
        save(root / VALID[name] / "images", images)
    names(root / "classes.txt")


@sample("LabelImg txt in a folder for each list", "yolo", splits=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        yolo(root / name, images)
        save(root / name, images)
        names(root / name / "classes.txt")


@sample("CVAT YOLO 1.1", "yolo", splits=True)
def _(root: Path) -> None:
    text = "classes = 3\nnames = data/obj.names\nbackup = backup/\n"
    for name, images in LISTS.items():
        folder = f"obj_{name}_data"
        yolo(root / folder, images)
        save(root / folder, images)
        write(root / f"{name}.txt", "".join(f"data/{folder}/{file}\n" for file in images))
        text += f"{VALID[name]} = data/{name}.txt\n"
    write(root / "obj.data", text)
    names(root / "obj.names")


@sample("CSV", "csv", splits=False)
def _(root: Path) -> None:
    table(root / "annotations.csv", EVERY)
    save(root, EVERY)


@sample("CSV without heading", "csv", splits=False)
def _(root: Path) -> Path:
    table(root / "boxes.csv", EVERY, ())
    table(root / "other.csv", EVERY)
    save(root / "images", EVERY)
    return root / "boxes.csv"


@sample("Roboflow CSV", "csv", splits=True)
def _(root: Path) -> None:
    heading = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
    for name, images in LISTS.items():
        table(root / VALID[name] / "_annotations.csv", images, heading)
        save(root / VALID[name], images)


@sample("CSV, train_labels.csv", "csv", splits=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        table(root / f"{name}_labels.csv", images)
        save(root / "images", images)


@sample("CSV, train.csv", "csv", splits=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        table(root / f"{name}.csv", images, ("Image_Path", "x1", "y1", "x2", "y2", "Label"))
        save(root / name, images)


@sample("Hugging Face", "jsonl", splits=False, crowds=True)
def _(root: Path) -> None:
    json_lines(root / "metadata.jsonl", EVERY)
    save(root, EVERY)


@sample("Hugging Face with lists", "jsonl", splits=True, crowds=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        json_lines(root / name / "metadata.jsonl", images)
        save(root / name, images)


@sample("Hugging Face with lists in data/ and numbers of classes", "jsonl", splits=True, crowds=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        folder = {"train": "train", "val": "validation", "test": "test"}[name]
        json_lines(root / "data" / folder / "metadata.jsonl", images, numbers=True)
        save(root / "data" / folder, images)
    names(root / "classes.txt")


@sample("FiftyOne", "fiftyone", splits=False, crowds=True)
def _(root: Path) -> None:
    fiftyone(root / "labels.json", EVERY)
    save(root / "data", EVERY)


@sample("FiftyOne with lists", "fiftyone", splits=True, crowds=True)
def _(root: Path) -> None:
    for name, images in LISTS.items():
        fiftyone(root / name / "labels.json", images)
        save(root / name / "data", images)


@sample("CVAT for images", "cvat", splits=False)
def _(root: Path) -> None:
    cvat(root / "annotations.xml", subsets=False)
    save(root / "images", EVERY)


@sample("CVAT for images with subsets", "cvat", splits=True)
def _(root: Path) -> None:
    cvat(root / "annotations.xml", subsets=True)
    save(root / "images", EVERY)
