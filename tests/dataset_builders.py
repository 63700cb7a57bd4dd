"""Write small valid data sets to disk, for tests to break."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from PIL import Image

SIZE = (96, 80)
CLASSES = ("square", "bar")


def box_of(number: int) -> tuple[int, int, int, int]:
    """xyxy of the single object of an image."""
    left, top = 5 + 3 * (number % 10), 10 + 2 * (number % 10)
    return left, top, left + (20, 40)[number % 2], top + 20


def picture(number: int) -> Image.Image:
    """A square or a bar on a background whose colour and stripe differ from image to image."""
    made = Image.new("RGB", SIZE, (30 + 17 * number % 90, 60, 90 + 29 * number % 80))
    made.paste((20, 20 + 23 * number % 200, 20), (0, 7 * number % 60, 96, 7 * number % 60 + 8))
    made.paste((240, 200, 20), box_of(number))
    return made


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims so many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def xml_of(number: int, *, size: str | None = None, objects: str | None = None) -> str:
    """The annotation of an image. size, objects: XML to replace the correct elements."""
    left, top, right, bottom = box_of(number)
    box = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    if size is None:
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    if objects is None:
        objects = f"<object><name>{CLASSES[number % 2]}</name><bndbox>{box}</bndbox></object>"
    return f"<annotation><filename>{number}.jpg</filename>{size}{objects}</annotation>"


def voc_folder(root: Path, numbers: range = range(10), *, trained: int | None = 6) -> Path:
    """A VOC folder; the first `trained` images are listed in train, the others in val (None: no lists)."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture(number).save(root / f"JPEGImages/{number}.jpg")
        (root / f"Annotations/{number}.xml").write_text(xml_of(number))
    if trained is not None:
        (root / "ImageSets/Main/train.txt").write_text("\n".join(map(str, numbers[:trained])))
        (root / "ImageSets/Main/val.txt").write_text("\n".join(map(str, numbers[trained:])))
    return root


def coco_content(numbers: range = range(10)) -> dict[str, list[dict[str, object]]]:
    """The annotations of the images as COCO."""
    annotations = []
    for number in numbers:
        left, top, right, bottom = box_of(number)
        annotations.append(
            {
                "id": 100 + number,
                "image_id": number + 1,
                "category_id": 1 + number % 2,
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": 0,
            }
        )
    return {
        "images": [
            {"id": number + 1, "file_name": f"{number}.jpg", "width": SIZE[0], "height": SIZE[1]} for number in numbers
        ],
        "annotations": annotations,
        "categories": [{"id": 1 + label, "name": name} for label, name in enumerate(CLASSES)],
    }


def coco_folder(root: Path, numbers: range = range(10)) -> Path:
    """A COCO folder with one annotation file."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture(number).save(root / f"images/{number}.jpg")
    (root / "annotations.json").write_text(json.dumps(coco_content(numbers)))
    return root


def yolo_line(number: int) -> str:
    """The label line of an image."""
    left, top, right, bottom = box_of(number)
    values = ((left + right) / 2 / SIZE[0], (top + bottom) / 2 / SIZE[1], (right - left) / SIZE[0], 20 / SIZE[1])
    return f"{number % 2} " + " ".join(f"{value:.6f}" for value in values)


def yolo_file(root: Path, numbers: range = range(10)) -> Path:
    """A YOLO folder with one list; returns its data.yaml."""
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture(number).save(root / f"images/train/{number}.jpg")
        (root / f"labels/train/{number}.txt").write_text(yolo_line(number) + "\n")
    path = root / "data.yaml"
    path.write_text(f"train: images/train\nnames: [{', '.join(CLASSES)}]\n")
    return path
