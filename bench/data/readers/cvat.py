"""Read CVAT for images 1.1: one annotations.xml for all images.

    <annotations><meta>...<label><name>cat</name></label>...</meta>
      <image name="a.jpg" width="60" height="40" subset="Train">
        <box label="cat" occluded="0" xtl="1" ytl="2" xbr="3" ybr="4"/></image></annotations>

A polygon becomes its bounding box (a counted repair). Images of a subset called train, val or test are a list.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse

from bench.data.index import UNKNOWN
from bench.data.problems import Problem, problem
from bench.data.readers.format import Format
from bench.data.readers.parts import WHOLE, Part, content_of, images_below, list_name
from bench.data.readers.pictures import Object, Picture, as_number, reading_of
from bench.data.readers.raw import MAX_IMAGE_SIDE, NOT_STATED
from bench.data.readers.reading import Reading
from bench.errors import UserError
from bench.storage.reading import read_file

EDGES = ("xtl", "ytl", "xbr", "ybr")


def read_cvat_parts(root: Path, parts: Mapping[str, Part], names: Path | None = None) -> Reading:
    """Read one file for each list. names: not used; the classes are the labels in the file, sorted.

    Raises UserError if a file is not of this format, or describes a video.
    """
    problems: list[Problem] = []
    pictures: list[Picture] = []
    declared: set[str] = set()
    for name, part in parts.items():
        document = _load(root / part.annotations)
        declared |= {text.strip() for text in (each.findtext("name") for each in document.iter("label")) if text}
        read = _pictures(root, part, document, problems)
        pictures += [replace(each, part=name) for each in read] if name != WHOLE else read
    if any(picture.part == WHOLE for picture in pictures):
        # Some images are in no list, so the subsets do not divide the set
        pictures = [replace(picture, part=WHOLE) for picture in pictures]
    return reading_of(root, pictures, problems, classes=sorted(declared) or None)


def _load(path: Path) -> Element:
    try:
        document = parse(io.BytesIO(read_file(path))).getroot()
    except DefusedXmlException as error:
        raise UserError(f"{path} declares XML entities, which are not allowed. Export it again.") from error
    except (OSError, ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path} cannot be read as XML ({error}). Export it again.") from error
    if document is None or document.tag != "annotations":
        raise UserError(f"{path} is not CVAT's: its root element is not <annotations>. Export it again.")
    if document.find("track") is not None:
        raise UserError(f"{path} describes a video. Export it as 'CVAT for images 1.1' or as COCO.")
    return document


def _pictures(root: Path, part: Part, document: Element, problems: list[Problem]) -> list[Picture]:
    images = document.findall("image")
    names = [(image.get("name") or "").replace("\\", "/") for image in images]
    files = images_below(root, part.images, names)
    pictures = []
    for image, name, file in zip(images, names, files, strict=True):
        where = f"{part.annotations}, image {name}"
        width, height = as_number(image.get("width")), as_number(image.get("height"))
        stated = 1 <= width <= MAX_IMAGE_SIDE and 1 <= height <= MAX_IMAGE_SIDE
        pictures.append(
            Picture(
                file=file,
                where=where,
                size=(int(width), int(height)) if stated else (NOT_STATED, NOT_STATED),
                part=list_name(image.get("subset") or "") or WHOLE,
                objects=_objects(image, where, problems),
            )
        )
    return pictures


def _objects(image: Element, where: str, problems: list[Problem]) -> list[Object]:
    objects = []
    shapes = [shape for shape in image if shape.tag in ("box", "polygon")]
    for count, shape in enumerate(shapes, start=1):
        place = f"{where}, object {count}"
        corners = [as_number(shape.get(edge)) for edge in EDGES]
        if shape.tag == "polygon":
            corners = _bounding_box(shape.get("points") or "")
            problems.append(problem("polygon-to-box", place, "a polygon"))
        occluded = as_number(shape.get("occluded"))
        objects.append(
            Object(
                name=(shape.get("label") or "").strip(),
                corners=corners,
                where=place,
                occluded=int(occluded) if occluded in (0, 1) else UNKNOWN,
            )
        )
    return objects


def _bounding_box(points: str) -> list[float]:
    """xyxy of "x,y;x,y"; NaN if a number is missing."""
    pairs = [[as_number(value) for value in point.split(",")] for point in points.split(";")]
    if any(len(pair) != 2 or math.isnan(sum(pair)) for pair in pairs):
        return [as_number(None)] * 4
    xs, ys = zip(*pairs, strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


def _find(path: Path) -> Path | None:
    return path if path.is_file() and path.suffix.lower() == ".xml" and content_of(path) == "cvat" else None


def _read(path: Path) -> Reading:
    return read_cvat_parts(path.parent, {WHOLE: Part(annotations=path.name, images=("images", "", "data"))})


CVAT = Format(
    prefix="cvat",
    title="CVAT for images",
    argument="DIR",
    expects="an annotations.xml of CVAT, or a folder with one",
    find=_find,
    read=_read,
    read_parts=read_cvat_parts,
)
