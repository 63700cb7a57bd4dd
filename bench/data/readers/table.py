"""Read a CSV table of boxes: one row for each, with the columns image, xmin, ymin, xmax, ymax and class.

Columns may be called as in COLUMNS; width and height of the image are optional. Without a heading the columns are
those of RetinaNet: image, x1, y1, x2, y2, class. A row with empty coordinates is an image without boxes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from bench.data.problems import Problem, printable
from bench.data.readers.format import Format
from bench.data.readers.parts import WHOLE, Part, images_below
from bench.data.readers.pictures import Object, Picture, as_number, reading_of, sizes_of
from bench.data.readers.raw import MAX_IMAGE_SIDE
from bench.data.readers.reading import Reading
from bench.errors import UserError
from bench.storage.reading import read_file

# The names of each column that tools write.
COLUMNS = {
    "image": ("image", "filename", "file_name", "image_path", "image_name", "image_id", "file", "path"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "class": ("class", "label", "class_name", "label_name", "category", "name"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
}
CORNERS = ("xmin", "ymin", "xmax", "ymax")
WITHOUT_HEADING = ("image", *CORNERS, "class")


def read_table_parts(root: Path, parts: Mapping[str, Part], names: Path | None = None) -> Reading:
    """Read one table for each list. names: not used; the classes are those of the boxes, sorted.

    Raises UserError if a file is no table or lacks a column.
    """
    problems: list[Problem] = []
    pictures: list[Picture] = []
    for name, part in parts.items():
        pictures += _pictures(root, name, part, problems)
    return reading_of(root, pictures, problems)


def _pictures(root: Path, name: str, part: Part, problems: list[Problem]) -> list[Picture]:
    rows = _rows(root / part.annotations)
    listed = list(dict.fromkeys(row["image"] for _, row in rows))
    file_of = dict(zip(listed, images_below(root, part.images, listed), strict=True))
    objects: dict[str, list[Object]] = {image: [] for image in listed}
    stated: dict[str, tuple[int, int]] = {}
    for line, row in rows:
        width, height = as_number(row.get("width")), as_number(row.get("height"))
        if 1 <= width <= MAX_IMAGE_SIDE and 1 <= height <= MAX_IMAGE_SIDE:
            stated[row["image"]] = (int(width), int(height))
        if any(row[corner] for corner in CORNERS):
            where = f"{part.annotations}, line {line}"
            corners = [as_number(row[corner]) for corner in CORNERS]
            objects[row["image"]].append(Object(name=row["class"], corners=corners, where=where))
    unstated = [image for image in listed if image not in stated]
    read = sizes_of(root, [file_of[image] for image in unstated], problems)
    stated |= dict(zip(unstated, read, strict=True))
    return [
        Picture(
            file=file_of[image],
            where=f"{part.annotations}, image {image}",
            size=stated[image],
            part=name,
            objects=objects[image],
        )
        for image in listed
    ]


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and values of each row, by the names in COLUMNS."""
    try:
        text = read_file(path).decode("utf-8-sig")
        divider = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=divider)
        lines = [(reader.line_num, [value.strip() for value in row]) for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error}). Write it in UTF-8, divided by commas.") from error
    heading, columns = _columns(lines[0][1] if lines else [])
    missing = [name for name in WITHOUT_HEADING if name not in columns]
    if missing:
        found = printable(", ".join(lines[0][1] if lines else [])) or "nothing"
        raise UserError(
            f"{path} needs the columns {', '.join(WITHOUT_HEADING)}; it has no {', '.join(missing)}, but {found}. "
            "Rename them."
        )
    rows = []
    for line, values in lines[heading:]:
        # What a short row lacks is no number, so it becomes a box that is reported
        row = {name: values[at] if at < len(values) else "missing" for name, at in columns.items()}
        rows.append((line, row | {"image": row["image"].replace("\\", "/")}))
    return rows


def _columns(first: list[str]) -> tuple[int, dict[str, int]]:
    """The number of lines of the heading, and where each column is."""
    words = [word.casefold().replace(" ", "_") for word in first]
    if len(words) == len(WITHOUT_HEADING) and (not any(words[1:]) or words[1].lstrip("-").replace(".", "").isdigit()):
        return 0, {name: at for at, name in enumerate(WITHOUT_HEADING)}
    found = {}
    for name, spellings in COLUMNS.items():
        at = next((words.index(spelling) for spelling in spellings if spelling in words), None)
        if at is not None:
            found[name] = at
    return 1, found


def _find(path: Path) -> Path | None:
    return path if path.is_file() and path.suffix.lower() == ".csv" else None


def _read(path: Path) -> Reading:
    return read_table_parts(path.parent, {WHOLE: Part(annotations=path.name, images=("", "images", "data"))})


CSV = Format(
    prefix="csv",
    title="CSV",
    argument="DIR",
    expects="a CSV file, or a folder with one",
    find=_find,
    read=_read,
    read_parts=read_table_parts,
)
