"""Real annotations: counts from arrays equal plain counts over the files."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.data.index import ImageIndex
from bench.data.sources import read_source
from bench.data.split import own_lists
from bench.diagnosis.objects import SIDE_RANGES, class_counts, conditions, object_sizes
from bench.diagnosis.overlaps import crowding, overlapping
from bench.diagnosis.suspects import suspects
from tests.tiny import specification

DETECTOR = specification().detector


@dataclass(frozen=True)
class Plain:
    """An object in its file: image, class, xyxy, image size, area, and whether it is truncated."""

    image: str
    name: str
    box: tuple[float, float, float, float]
    size: tuple[float, float]
    area: float
    truncated: bool = False

    @property
    def network(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (right - left) / self.size[0] * 300, (bottom - top) / self.size[1] * 300


def voc_objects(folder: Path, name: str) -> list[Plain]:
    found = []
    for image in (folder / f"ImageSets/Main/{name}.txt").read_text().split():
        root = ElementTree.parse(folder / f"Annotations/{image}.xml").getroot()
        size = (float(root.findtext("size/width", "")), float(root.findtext("size/height", "")))
        for each in root.iter("object"):
            xyxy = [float(each.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
            left, top = max(0, xyxy[0]), max(0, xyxy[1])
            right, bottom = min(size[0], xyxy[2]), min(size[1], xyxy[3])
            if right > left and bottom > top:
                area = (right - left) * (bottom - top)
                cut = each.findtext("truncated") == "1"
                found.append(Plain(image, each.findtext("name", ""), (left, top, right, bottom), size, area, cut))
    return found


def coco_objects(folder: Path) -> list[Plain]:
    document = json.loads((folder / "annotations.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    names = {category["id"]: category["name"] for category in document["categories"]}
    found = []
    for each in document["annotations"]:
        if not each["iscrowd"]:
            left, top, wide, high = each["bbox"]
            width, height = sizes[each["image_id"]]
            box = (max(0, left), max(0, top), min(width, left + wide), min(height, top + high))
            name = names[each["category_id"]]
            found.append(Plain(str(each["image_id"]), name, box, (width, height), each["area"]))
    return found


def overlap(first: Plain, second: Plain) -> float:
    wide = min(first.box[2], second.box[2]) - max(first.box[0], second.box[0])
    high = min(first.box[3], second.box[3]) - max(first.box[1], second.box[1])
    if wide <= 0 or high <= 0:
        return 0
    areas = [(one.box[2] - one.box[0]) * (one.box[3] - one.box[1]) for one in (first, second)]
    return wide * high / (sum(areas) - wide * high)


def lost(objects: list[Plain]) -> int:
    """Number of suppressed boxes, one by one, with those that overlap the fewest others first."""
    of_image = defaultdict(list)
    for place, each in enumerate(objects):
        of_image[each.image, each.name].append(place)
    total = 0
    for places in of_image.values():
        rivals = defaultdict(set)
        for one, other in combinations(places, 2):
            if overlap(objects[one], objects[other]) > 0.45:
                rivals[one].add(other)
                rivals[other].add(one)
        removed: set[int] = set()
        for place in sorted(places, key=lambda place: (len(rivals[place]), place)):
            if place not in removed:
                removed |= rivals[place]
        total += len(removed)
    return total


def agree(index: ImageIndex, objects: list[Plain]) -> None:
    """Assert that all counts of an index equal those of the plain objects."""
    sizes = object_sizes(index, 300)
    assert sizes["objects"] == len(objects) > 0
    sides = [(each.network[0] * each.network[1]) ** 0.5 for each in objects]
    bucket = Counter(SIDE_RANGES[(side >= 16) + (side >= 32) + (side >= 96)] for side in sides)
    assert {name: count for name, count in sizes["network"].items() if count} == bucket
    small = [each for each in objects if each.area < 32**2]
    assert sizes["coco"]["small"] == len(small)
    assert sizes["coco"]["large"] == sum(each.area >= 96**2 for each in objects)
    assert sizes["shrunk"] == sum(each.area >= 32**2 and side < 32 for each, side in zip(objects, sides, strict=True))
    assert conditions(index)["truncated"] == sum(each.truncated for each in objects)

    by_class = {row["class"]: row for row in class_counts(index, index, 300)}
    assert {name: row["train"] for name, row in by_class.items() if row["train"]} == Counter(
        each.name for each in objects
    )
    pictures = Counter(name for _, name in {(each.image, each.name) for each in objects})
    assert {name: row["val_images"] for name, row in by_class.items() if row["val_images"]} == pictures

    pairs = overlapping(index, 0.3)
    found = crowding(index, DETECTOR, pairs)
    close = [(one, other) for one, other in of_one_image(objects) if overlap(one, other) > 0.3]
    assert found["crowded"] == len({id(each) for pair in close for each in pair})
    assert found["suppressed"] == lost(objects)

    kinds = {kind: own["count"] for kind, own in suspects(index, 300, pairs)["kinds"].items()}
    twice = {id(other) for one, other in close if one.name == other.name and overlap(one, other) > 0.9}
    assert kinds["annotated-twice"] == len(twice)
    assert kinds["covers-image"] == sum(side**2 > 0.95 * 300**2 for side in sides)
    assert kinds["unseen"] == sum(min(each.network) < 1 for each in objects)
    lengths = [sorted((each.box[2] - each.box[0], each.box[3] - each.box[1])) for each in objects]
    assert kinds["very-long"] == sum(longer > 10 * shorter for shorter, longer in lengths)


def of_one_image(objects: Iterable[Plain]) -> Iterable[tuple[Plain, Plain]]:
    of_image = defaultdict(list)
    for each in objects:
        of_image[each.image].append(each)
    for own in of_image.values():
        yield from combinations(own, 2)


@pytest.mark.parametrize("name", ["bccd", "groceries"])
def test_counts_of_voc_data_equal_counts_over_the_xml(shared_data: Path, tmp_path: Path, name: str) -> None:
    reading = read_source(f"voc:{shared_data / name}", cache=tmp_path)
    lists = own_lists(reading, None)
    assert lists is not None
    for rows, side in zip(lists[:2], ("train", "val"), strict=True):
        agree(reading.index.take(rows), voc_objects(shared_data / name, side))


def test_counts_of_coco_data_equal_counts_over_the_json(shared_data: Path, tmp_path: Path) -> None:
    index = read_source(f"coco:{shared_data / 'coco-mini'}", cache=tmp_path).index
    agree(index, coco_objects(shared_data / "coco-mini"))
