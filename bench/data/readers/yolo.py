"""Read YOLO: a data.yaml that names image folders, and a text file of normalised boxes for each image.

    path: ../my-data        # optional; relative to the yaml file
    train: images/train     # a folder, a list of folders, or a .txt file that lists images
    val: images/val
    names: [cat, dog]       # or {0: cat, 1: dog}
    kpt_shape: [17, 3]      # only in pose sets: keypoints of an object, numbers of a keypoint

`valid:` is read as `val:`. The labels of .../images/train/a.jpg are .../labels/train/a.txt, lines of `class cx cy w h`.
In a pose set the keypoints follow (docs.ultralytics.com/datasets/pose); they are not read.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from bench.data.decode import IMAGE_SUFFIXES
from bench.data.paths import expanded, is_file, read_annotation, read_lines
from bench.data.problems import Problem, printable, problem
from bench.data.readers.format import Format
from bench.data.readers.image_checks import header_sizes
from bench.data.readers.parts import SPELLINGS, WHOLE, Part
from bench.data.readers.pictures import class_names
from bench.data.readers.raw import LEFT_OUT, RawAnnotations, RawBoxes
from bench.data.readers.reading import Reading, build_reading
from bench.errors import UserError
from bench.storage.reading import read_file, reason_of

NOT_LABELS = frozenset({"classes.txt", "labels.txt", "notes.txt", "readme.txt"})  # written by exporters
DARKNET = ".data"  # the suffix of obj.data, which CVAT writes for YOLO 1.1
NAMED_LISTS = [spelling for spellings in SPELLINGS.values() for spelling in spellings]
MAX_NORMALISED = 10.0  # a box may extend far beyond its image, but larger coordinates are pixels


def read_yolo(path: Path) -> Reading:
    """Read a YOLO data set from its data.yaml, or from an obj.data; image sizes come from the image headers, after EXIF
    orientation.

    An image without a label file has no boxes. A polygon becomes its bounding box (a counted repair). Class names are
    as written, even `no` and `1.10`. Coordinates are rounded to hundredths of a pixel, the precision of six decimals.
    Raises UserError if the file is incomplete or names folders that do not exist.
    """
    if path.suffix.lower() == DARKNET:
        return _read_darknet(path)
    description = _load(path)
    classes = _classes(description, path)
    keypoint_numbers = _keypoint_numbers(description, path)
    root = _root(description, path)
    problems: list[Problem] = []
    images_of = {}
    for name, spellings in SPELLINGS.items():
        entry = next((description[spelling] for spelling in spellings if description.get(spelling)), None)
        if entry is not None:
            images_of[name] = _images(entry, name, root, path, problems)
    return _reading(root, images_of, classes, problems, keypoint_numbers=keypoint_numbers)


def read_yolo_parts(root: Path, parts: Mapping[str, Part], names: Path | None = None) -> Reading:
    """Read label files that lie in one folder for each list, or beside their images. names: one class in each line."""
    if names is None:
        raise UserError(f"{root} has no classes.txt. Write it, with one class name in each line.")
    problems: list[Problem] = []
    images_of: dict[str, list[Path]] = {}
    labels: dict[Path, Path] = {}
    for name, part in parts.items():
        folder = root / part.images[0]
        images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        images_of[name] = images
        labels |= {image: (root / part.annotations / image.name).with_suffix(".txt") for image in images}
        stems = {image.stem for image in images}
        for path in sorted((root / part.annotations).glob("*.txt")):
            if path.stem not in stems and path.name.lower() not in NOT_LABELS and path != names:
                what = f"there is no image {path.stem} in {part.images[0] or 'its folder'}"
                problems.append(problem("missing-image", _relative(path, root), what))
    return _reading(root, images_of, tuple(class_names(names)), problems, label_of=labels.__getitem__)


def _read_darknet(path: Path) -> Reading:
    """Read obj.data: lines such as `train = data/train.txt`, where data/ is the folder of the file itself."""
    root = path.parent
    pairs = [line.partition("=") for line in read_lines(path)]
    entries = {key.strip(): value.strip() for key, _, value in pairs}
    if not entries.get("names"):
        raise UserError(f"{path} has no 'names'. Write 'names = obj.names', a file with one class name in each line.")
    problems: list[Problem] = []
    images_of = {}
    for name, spellings in SPELLINGS.items():
        stated = next((entries[spelling] for spelling in spellings if entries.get(spelling)), None)
        if stated is None:
            continue
        images_of[name] = list(dict.fromkeys(_below(root, line) for line in read_lines(_below(root, stated))))
    if not images_of:
        raise UserError(f"{path} names no images. It needs 'train = train.txt', a file that lists the images.")
    names = _below(root, entries["names"])
    return _reading(
        root, images_of, tuple(class_names(names)), problems, label_of=lambda image: image.with_suffix(".txt")
    )


def _below(root: Path, text: str) -> Path:
    """The path that obj.data states, relative to the folder that it lies in or, as Darknet does, to the one above."""
    stated = Path(os.path.normpath(root / expanded(text)))
    inside = Path(os.path.normpath(root / text.removeprefix("data/")))
    return inside if not _exists(stated) and text.startswith("data/") else stated


def _reading(
    root: Path,
    images_of: Mapping[str, Sequence[Path]],
    classes: tuple[str, ...],
    problems: list[Problem],
    *,
    keypoint_numbers: int | None = None,
    label_of: Callable[[Path], Path] | None = None,
) -> Reading:
    """Read the labels of the images of each list. label_of: the label file of an image, by default `label_file`."""
    label_of = label_of or label_file
    row_of: dict[Path, int] = {}
    lists: dict[str, NDArray[np.int64]] = {}
    for name, listed in images_of.items():
        rows = np.array([row_of.setdefault(image, len(row_of)) for image in listed], dtype=np.int64)
        if name != WHOLE:
            lists[name] = rows
    images = list(row_of)
    files = [Path(os.path.relpath(image, root)).as_posix() for image in images]
    labels_of = [_read_labels(label_of(image), root, len(classes), keypoint_numbers, problems) for image in images]
    lines_of = [labels or [] for labels in labels_of]
    lines = [line for own in lines_of for line in own]

    sizes = header_sizes(root, files, problems)
    sizes[[row for row, labels in enumerate(labels_of) if labels is None]] = LEFT_OUT
    image_of_box = np.repeat(np.arange(len(images)), [len(own) for own in lines_of])
    scale = np.tile(sizes[image_of_box], 2).astype(np.float64)
    label_names = [_relative(label_of(image), root) for image in images]
    return build_reading(
        RawAnnotations(
            root=root,
            classes=classes,
            category_ids=None,
            files=files,
            image_ids=None,
            sizes=sizes,
            lists=lists,
            boxes=RawBoxes.of(
                image_of_box,
                np.round(np.array([line.corners for line in lines], dtype=np.float64).reshape(-1, 4) * scale, 2),
                np.array([line.label for line in lines], dtype=np.int32),
            ),
            image_where=lambda row: files[row],
            box_where=lambda box: f"{label_names[image_of_box[box]]}, line {lines[box].number}",
            problems=problems,
        )
    )


def label_file(image: Path) -> Path:
    """The label file of an image: its path with the last folder `images` replaced by `labels`, suffix .txt."""
    head, found, tail = image.as_posix().rpartition("/images/")
    return Path(f"{head}/labels/{tail}" if found else image).with_suffix(".txt")


class _Line(NamedTuple):
    number: int  # line number, from 1
    label: int
    corners: tuple[float, float, float, float]  # normalised xyxy


def _read_labels(
    path: Path, root: Path, class_count: int, keypoint_numbers: int | None, problems: list[Problem]
) -> list[_Line] | None:
    """The valid lines of a label file, [] if it does not exist, None if it cannot be read."""
    try:
        if not os.path.lexists(path):
            return []
        text = read_annotation(path).decode("utf-8-sig", errors="replace")
    except OSError as error:
        what = f"it cannot be read ({error.strerror or error})"
        problems.append(problem("unreadable-annotation", _relative(path, root), what))
        return None
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{_relative(path, root)}, line {number}"
        values = _line_values(line)
        coordinates = values[1:]
        polygon = keypoint_numbers is None and len(coordinates) >= 6 and len(coordinates) % 2 == 0
        if keypoint_numbers is not None and len(coordinates) == 4 + keypoint_numbers:
            coordinates = coordinates[:4]
        if not (polygon or len(coordinates) == 4):
            what = f"it reads {line.strip()[:80]!r}"
            if keypoint_numbers is not None:
                what += f"; kpt_shape asks for {5 + keypoint_numbers} numbers, or 5 without keypoints"
            problems.append(problem("bad-label-line", where, what))
        elif not (values[0].is_integer() and 0 <= values[0] < class_count):
            what = f"class {line.split()[0]} is not one of 0 to {class_count - 1}"
            problems.append(problem("unknown-class", where, what))
        elif np.isfinite(coordinates).all() and np.abs(coordinates).max() > MAX_NORMALISED:
            what = f"it has the coordinate {coordinates[np.abs(coordinates).argmax()]:g}"
            problems.append(problem("not-normalised", where, what))
        else:
            if polygon:
                what = f"a polygon of {len(coordinates) // 2} points"
                problems.append(problem("polygon-to-box", where, what))
            lines.append(_Line(number, int(values[0]), _corners(coordinates.tolist())))
    return lines


def _corners(coordinates: list[float]) -> tuple[float, float, float, float]:
    if len(coordinates) == 4:
        cx, cy, width, height = coordinates
        return (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
    if not all(map(math.isfinite, coordinates)):
        return (math.nan,) * 4  # min and max would ignore NaN
    xs, ys = coordinates[0::2], coordinates[1::2]
    return (min(xs), min(ys), max(xs), max(ys))


def _line_values(line: str) -> NDArray[np.float64]:
    """The numbers of a label line; empty if a word is not a number."""
    try:
        return np.array(line.split(), dtype=np.float64)
    except ValueError:
        return np.zeros(0)


class _PlainText(yaml.SafeLoader):
    """Reads plain words as text: YAML 1.1 would turn the class `no` into false, and `1.10` into 1.1."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML declares it
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _load(yaml_file: Path) -> dict[str, Any]:
    try:
        description = yaml.load(read_annotation(yaml_file).decode("utf-8-sig"), Loader=_PlainText)
    except FileNotFoundError:
        raise UserError(f"There is no file {yaml_file}. Give the data.yaml of the data set.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{yaml_file} cannot be read as YAML: {error}") from error
    if not isinstance(description, dict) or not any(description.get(name) for name in NAMED_LISTS):
        raise UserError(f"{yaml_file} names no images. It needs 'train:' and 'names:', and should have 'val:'.")
    return description


def _classes(description: dict[str, Any], yaml_file: Path) -> tuple[str, ...]:
    names = description.get("names")
    if isinstance(names, dict):
        if set(names) != set(map(str, range(len(names)))):
            keys = printable(", ".join(map(str, names)))
            raise UserError(f"{yaml_file}: the keys of 'names' are {keys}; they must be 0 to {len(names) - 1}.")
        names = [names[str(label)] for label in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{yaml_file} has no 'names'. List the class names, in the order of their numbers.")
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{yaml_file}: 'names' must contain only class names. Quote a class that is called null or ~.")
    classes = tuple(names)
    if len(set(classes)) != len(classes):
        repeated = next(name for name in classes if classes.count(name) > 1)
        raise UserError(f"{yaml_file}: the class name {repeated!r} occurs more than once. Make the names unique.")
    number = description.get("nc", str(len(classes)))
    if number != str(len(classes)):
        stated = printable(number) if isinstance(number, str) else "not a number"
        raise UserError(f"{yaml_file}: nc is {stated}, but there are {len(classes)} names. Correct one of them.")
    return classes


def _keypoint_numbers(description: dict[str, Any], yaml_file: Path) -> int | None:
    """How many numbers follow the box in a line of a pose set; None for a set without `kpt_shape`."""
    shape = description.get("kpt_shape")
    if shape is None:
        return None
    stated = shape if isinstance(shape, list) else []
    parts = [int(part) if isinstance(part, str) and part.isdecimal() else 0 for part in stated]
    if len(parts) != 2 or parts[0] < 1 or parts[1] not in (2, 3):
        raise UserError(
            f"{yaml_file}: 'kpt_shape' must be the number of keypoints and 2 or 3, such as [17, 3]. Correct it, or "
            "remove it if the lines have no keypoints."
        )
    return parts[0] * parts[1]


def _root(description: dict[str, Any], yaml_file: Path) -> Path:
    folder = yaml_file.parent.resolve()
    entry = description.get("path")
    stated = folder / expanded(entry if isinstance(entry, str) else ".")
    # Ultralytics resolves `path` against its own data folder, so many files name a folder that does not exist.
    return stated.resolve() if _is_folder(stated) else folder


def _images(entry: object, name: str, root: Path, yaml_file: Path, problems: list[Problem]) -> list[Path]:
    """The image files of one list, without repetitions; also reports label files without an image."""
    images: dict[Path, None] = {}
    stated = entry if isinstance(entry, list) else [entry]
    parts = [part for part in stated if isinstance(part, str)]
    if len(parts) < len(stated):
        raise UserError(f"{yaml_file}: '{name}' must be a folder, a .txt file, or a list of them.")
    for part in parts:
        place = _place(part, root)
        if _is_folder(place):
            found = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
            _report_orphans(place, found, root, problems)
        elif is_file(place) and place.suffix == ".txt":
            found = _listed_images(place, root)
        else:
            raise UserError(
                f"{yaml_file}: '{name}' is {printable(part)}, but the folder {printable(str(place))} does not exist. "
                "Correct it or 'path'; both are relative to the yaml file's folder."
            )
        for image in found:
            if image in images:
                problems.append(problem("duplicate-list-entry", _relative(image, root), f"in {name} more than once"))
            images[image] = None
    if not images:
        places = printable(", ".join(parts))
        raise UserError(f"{yaml_file}: '{name}' is {places}, which has no images. Add images, or remove the entry.")
    return list(images)


def _place(part: str, root: Path) -> Path:
    place = root / expanded(part)
    if not _exists(place) and part.startswith("../"):
        # Roboflow writes ../train/images for a folder next to the yaml file.
        beside = root / part.removeprefix("../")
        place = beside if _exists(beside) else place
    return Path(os.path.normpath(place))


def _listed_images(list_file: Path, root: Path) -> list[Path]:
    listed = []
    for line in _read_list(list_file).decode("utf-8-sig", errors="replace").splitlines():
        if not line.strip():
            continue
        name = expanded(line.strip())
        beside = list_file.parent / name
        listed.append(Path(os.path.normpath(beside if _exists(beside) else root / name)))
    return listed


def _read_list(list_file: Path) -> bytes:
    try:
        return read_file(list_file)
    except OSError as error:
        raise UserError(f"{list_file} cannot be read ({reason_of(error)}). Give a list that can be read.") from error


def _report_orphans(folder: Path, images: list[Path], root: Path, problems: list[Problem]) -> None:
    labels = label_file(folder / "x").parent
    if not labels.is_dir():
        return
    expected = {label_file(image) for image in images}
    for path in sorted(labels.rglob("*.txt")):
        if path not in expected and path.name.lower() not in NOT_LABELS:
            what = f"there is no image {path.stem} in {_relative(folder, root)}"
            problems.append(problem("missing-image", _relative(path, root), what))


def _exists(path: Path) -> bool:
    return is_file(path) or _is_folder(path)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _find(path: Path) -> Path | None:
    """Any file, or the first YAML file of a folder that has 'names:', or its obj.data."""
    if path.is_file():
        return path
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
    described = (each for each in files if is_file(each) and _has_names(each))
    return next(described, None) or next(iter(sorted(path.glob(f"*{DARKNET}"))), None)


def _has_names(yaml_file: Path) -> bool:
    try:
        return re.search(rb"^names\s*:", read_annotation(yaml_file), re.MULTILINE) is not None
    except OSError:
        return False


YOLO = Format(
    prefix="yolo",
    title="YOLO",
    argument="DATA.yaml",
    expects="a data.yaml or obj.data file, or a folder with labels and classes.txt",
    find=_find,
    read=read_yolo,
    read_parts=read_yolo_parts,
)
