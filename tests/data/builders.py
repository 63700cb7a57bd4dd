"""Small data sets for tests: VOC, COCO and YOLO folders of grey images, and readings without files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from bench.data.index import ImageIndex
from bench.data.problems import Problem
from bench.data.readers.reading import Reading
from bench.data.readers.yolo import label_file

Box = tuple[str, float, float, float, float]
Images = dict[str, tuple[tuple[int, int], Sequence[Box]]]
Document = dict[str, Any]


def write_voc(
    root: Path, images: Mapping[str, tuple[tuple[int, int], Sequence[Box]]], lists: dict[str, list[str]]
) -> Path:
    """A VOC folder of grey pictures: stem -> ((width, height), boxes), and ImageSets/Main lists."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem, (size, boxes) in images.items():
        Image.new("RGB", size, "grey").save(root / "JPEGImages" / f"{stem}.jpg")
        (root / "Annotations" / f"{stem}.xml").write_text(annotation(size, boxes), encoding="utf-8")
    for name, stems in lists.items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems) + "\n")
    return root


def annotation(size: tuple[int, int], boxes: Sequence[Box], extra: str = "") -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>{extra}</object>"
        for name, x1, y1, x2, y2 in boxes
    )
    return (
        f"<annotation><filename>elsewhere</filename><size><width>{size[0]}</width>"
        f"<height>{size[1]}</height><depth>3</depth></size>{objects}</annotation>"
    )


def instances(images: Mapping[str, tuple[tuple[int, int], Sequence[Box]]], classes: Sequence[str]) -> Document:
    """An instances document: file name -> ((width, height), boxes); image ids from 1."""
    boxes = [(image, box) for image, (_, boxes) in enumerate(images.values(), start=1) for box in boxes]
    return {
        "images": [
            {"id": image, "file_name": name, "width": size[0], "height": size[1]}
            for image, (name, (size, _)) in enumerate(images.items(), start=1)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": classes.index(name) + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "segmentation": [[x1, y1, x2, y1, x2, y2]],
            }
            for number, (image, (name, x1, y1, x2, y2)) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes, start=1)],
    }


def write_coco(path: Path, document: Document, image_folder: Path) -> None:
    """The document as a file, and a grey picture for each of its images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image_folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    for image in document["images"]:
        Image.new("RGB", (image["width"], image["height"]), "grey").save(image_folder / image["file_name"])


def write_yolo(root: Path, lists: dict[str, Images], classes: Sequence[str]) -> Path:
    """A YOLO folder of grey pictures, list -> file name -> ((width, height), boxes); returns data.yaml."""
    for name, images in lists.items():
        for kind in ("images", "labels"):
            (root / kind / name).mkdir(parents=True, exist_ok=True)
        for file, (size, boxes) in images.items():
            Image.new("RGB", size, "grey").save(root / "images" / name / file)
            lines = [
                f"{classes.index(of)} {(x1 + x2) / 2 / size[0]:.6f} {(y1 + y2) / 2 / size[1]:.6f} "
                f"{(x2 - x1) / size[0]:.6f} {(y2 - y1) / size[1]:.6f}\n"
                for of, x1, y1, x2, y2 in boxes
            ]
            label_file(root / "images" / name / file).write_text("".join(lines))
    description = {"nc": len(classes), "names": list(classes), **{name: f"images/{name}" for name in lists}}
    (root / "data.yaml").write_text(yaml.safe_dump(description))
    return root / "data.yaml"


def reading_of(labels_of: list[list[int]], lists: dict[str, list[int]] | None = None) -> Reading:
    """An index of 100x100 images, one box for each label; class k is "class k"."""
    labels = [label for labels in labels_of for label in labels]
    count, boxes = len(labels_of), len(labels)
    classes = max(labels, default=0) + 1
    index = ImageIndex(
        root=Path("nowhere"),
        classes=tuple(f"class {label}" for label in range(classes)),
        category_ids=np.arange(1, classes + 1),
        files=tuple(f"{number:03d}.jpg" for number in range(count)),
        image_ids=np.arange(1, count + 1),
        sizes=np.full((count, 2), 100, dtype=np.int32),
        offsets=np.cumsum([0, *(len(labels) for labels in labels_of)]),
        boxes=np.tile([10.0, 20.0, 30.0, 40.0], (boxes, 1)),
        labels=np.array(labels, dtype=np.int32),
        areas=np.full(boxes, 400.0),
        crowd=np.zeros(boxes, dtype=np.bool_),
        difficult=np.zeros(boxes, dtype=np.bool_),
        truncated=np.zeros(boxes, dtype=np.int8),
        occluded=np.zeros(boxes, dtype=np.int8),
    )
    return Reading(
        index=index,
        lists={name: np.array(rows, dtype=np.int64) for name, rows in (lists or {}).items()},
        problems=[],
    )


def one_class_each(count: int) -> Reading:
    return reading_of([[number % 3] for number in range(count)])


def kinds(problems: Sequence[Problem]) -> Counter[str]:
    """How many problems there are of each kind."""
    return Counter(each.kind for each in problems)
