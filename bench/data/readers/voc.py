"""Read Pascal VOC: one XML file per image, and text files that list the images of each split.

    ROOT/Annotations/*.xml   ROOT/JPEGImages/*   ROOT/ImageSets/Main/{train,val,test,trainval}.txt

Coordinates are used as written. VOC counts pixels from 1, but most tools that write this format count from 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from bench.data.decode import IMAGE_SUFFIXES
from bench.data.index import UNKNOWN
from bench.data.paths import read_annotation
from bench.data.problems import Problem, problem
from bench.data.readers.format import Format
from bench.data.readers.raw import LEFT_OUT, MAX_IMAGE_SIDE, RawAnnotations, RawBoxes
from bench.data.readers.reading import Reading, build_reading
from bench.errors import UserError
from bench.storage.reading import read_file, reason_of


def read_voc(root: Path, *, classes: Sequence[str] | None = None, lists: Mapping[str, str] | None = None) -> Reading:
    """Read a folder with the layout of VOCdevkit/VOC2007.

    classes: the class names in order; objects of other classes are fatal problems. By default, all names found, sorted.
    lists: maps "train", "val", "test" to list files (without .txt). By default, train.txt and val.txt (and test.txt)
        if both exist, and then only listed images are read; otherwise all annotations are read.
    Raises UserError if `root` has no annotations or one of `lists` does not exist.
    """
    annotations = {path.stem: path for path in sorted((root / "Annotations").glob("*.xml"))}
    if not annotations:
        raise UserError(f"{root / 'Annotations'} has no .xml files. Give the folder that contains Annotations.")
    problems: list[Problem] = []
    list_stems = _read_lists(root, lists, annotations, problems)
    images = _images_by_stem(root / "JPEGImages")
    stems = _used_stems(annotations, images, list_stems, problems)
    parsed = [_parse(annotations[stem], root, problems) for stem in stems]

    files, sizes = [], np.zeros((len(stems), 2), dtype=np.int64)
    names: list[str] = []
    image_of_box: list[int] = []
    number_in_file: list[int] = []
    corners: list[list[float]] = []
    flags: list[tuple[int, int, int]] = []
    for row, (stem, annotation) in enumerate(zip(stems, parsed, strict=True)):
        files.append(f"JPEGImages/{_image_name(stem, annotation, images, problems)}")
        sizes[row] = LEFT_OUT if annotation is None else _stated_size(annotation)
        # Direct children only: an object's <part>s have boxes, too.
        for number, thing in enumerate([] if annotation is None else annotation.findall("object"), start=1):
            image_of_box.append(row)
            number_in_file.append(number)
            names.append((thing.findtext("name") or "").strip())
            corners.append([_number(thing.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")])
            flags.append((_flag(thing, "difficult"), _flag(thing, "truncated"), _flag(thing, "occluded")))

    def box_where(box: int) -> str:
        return f"Annotations/{stems[image_of_box[box]]}.xml, object {number_in_file[box]}"

    class_names = tuple(classes) if classes is not None else tuple(sorted(set(names) - {""}))
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = np.array([label_of.get(name, LEFT_OUT) for name in names], dtype=np.int32)
    for box in np.flatnonzero(labels == LEFT_OUT).tolist():
        what = f"class {names[box]!r} is not one of {len(class_names)} classes" if names[box] else "it has no name"
        problems.append(problem("unknown-class", box_where(box), what))
    flag_columns = np.array(flags, dtype=np.int8).reshape(-1, 3)
    row_of = {stem: row for row, stem in enumerate(stems)}
    return build_reading(
        RawAnnotations(
            root=root,
            classes=class_names,
            category_ids=None,
            files=files,
            image_ids=None,
            sizes=sizes,
            lists={
                name: np.array([row_of[stem] for stem in listed if stem in row_of], dtype=np.int64)
                for name, listed in list_stems.items()
            },
            boxes=RawBoxes.of(
                np.array(image_of_box, dtype=np.int64),
                np.array(corners, dtype=np.float64).reshape(-1, 4),
                labels,
                difficult=flag_columns[:, 0] == 1,
                truncated=flag_columns[:, 1],
                occluded=flag_columns[:, 2],
            ),
            image_where=lambda row: f"Annotations/{stems[row]}.xml",
            box_where=box_where,
            problems=problems,
            classes_declared=classes is not None,
        )
    )


def _read_lists(
    root: Path, wanted: Mapping[str, str] | None, annotations: Mapping[str, Path], problems: list[Problem]
) -> dict[str, list[str]]:
    """The stems of each list that is used, without those that lack an annotation."""
    folder = root / "ImageSets" / "Main"
    if wanted is None:
        names = ("train", "val", "test", "trainval")
        present = {name: name for name in names if os.path.lexists(folder / f"{name}.txt")}
        if "train" in present or "val" in present:
            present.pop("trainval", None)
        wanted = present
    lists = {}
    for name, list_name in wanted.items():
        path = folder / f"{list_name}.txt"
        if not os.path.lexists(path):
            found = ", ".join(sorted(other.name for other in folder.glob("*.txt"))[:10]) or "no lists"
            raise UserError(f"The list {path} does not exist; {folder} has {found}. Add the list.")
        lists[name] = _read_list(path, annotations, problems)
    return lists


def _read_list(path: Path, annotations: Mapping[str, Path], problems: list[Problem]) -> list[str]:
    stems: dict[str, None] = {}
    for number, line in enumerate(_list_lines(path), start=1):
        entry = line.strip().removeprefix("\ufeff")
        if not entry:
            continue
        # Some tools write "name.jpg", and VOC's lists for a single class write "name -1".
        without_flag = re.sub(r"\s+(-1|0|1)$", "", entry)
        spellings = (entry, without_flag, PurePosixPath(without_flag).stem)
        stem = next((spelling for spelling in spellings if spelling in annotations), None)
        where = f"ImageSets/Main/{path.name}, line {number}"
        if stem is None:
            problems.append(problem("listed-without-annotation", where, f"there is no Annotations/{without_flag}.xml"))
        elif stem in stems:
            problems.append(problem("duplicate-list-entry", where, f"{stem} is listed again"))
        else:
            stems[stem] = None
    return list(stems)


def _list_lines(path: Path) -> list[str]:
    try:
        return read_file(path).decode("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}). Give a list that can be read.") from error


def _used_stems(
    annotations: Mapping[str, Path],
    images: Mapping[str, list[str]],
    lists: Mapping[str, list[str]],
    problems: list[Problem],
) -> list[str]:
    if {"train", "val"} <= lists.keys() or {"train"} == lists.keys():
        listed = set().union(*lists.values())
        if unlisted := len(annotations.keys() - listed):
            what = f"{unlisted} annotations are in none of the lists {', '.join(lists)}"
            problems.append(problem("annotation-in-no-list", "ImageSets/Main", what))
        return sorted(listed)
    for stem in sorted(images.keys() - annotations.keys()):
        what = f"there is no Annotations/{stem}.xml"
        problems.append(problem("image-without-annotation", f"JPEGImages/{images[stem][0]}", what))
    return sorted(annotations)


def _images_by_stem(folder: Path) -> dict[str, list[str]]:
    """File names by stem, ordered by IMAGE_SUFFIXES."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    by_stem: dict[str, list[str]] = {}
    ranked = [(IMAGE_SUFFIXES.index(suffix), name) for name in names if (suffix := _suffix(name)) in IMAGE_SUFFIXES]
    for _, name in sorted(ranked):
        by_stem.setdefault(name[: -len(_suffix(name))], []).append(name)
    return by_stem


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _image_name(stem: str, annotation: Element | None, images: Mapping[str, list[str]], problems: list[Problem]) -> str:
    """The image file of an annotation: the one with its stem, otherwise the one in <filename>."""
    written = "" if annotation is None else (annotation.findtext("filename") or "").strip()
    written = re.split(r"[/\\]", written)[-1]
    if stem in images:
        found = images[stem]
        chosen = written if written in found else found[0]
        if len(found) > 1:
            what = f"{', '.join(found)}: {chosen} is used"
            problems.append(problem("several-images-for-annotation", f"Annotations/{stem}.xml", what))
        return chosen
    for spelling in (written, PurePosixPath(written).stem):
        if spelling in images:
            return images[spelling][0]
    # Report the annotation's stem, not <filename>: some tools write the same wrong name into many files.
    return f"{stem}.jpg"


def _parse(path: Path, root: Path, problems: list[Problem]) -> Element | None:
    where = path.relative_to(root).as_posix()
    try:
        data = read_annotation(path)
    except OSError as error:
        problems.append(problem("unreadable-annotation", where, f"it cannot be read ({error.strerror or error})"))
        return None
    try:
        annotation = _parse_either_encoding(data, where, problems)
    except DefusedXmlException as error:
        what = f"it declares XML entities, which are not allowed ({type(error).__name__})"
        problems.append(problem("unreadable-annotation", where, what))
        return None
    except (ParseError, ValueError, LookupError) as error:
        problems.append(problem("unreadable-annotation", where, f"it is not well-formed XML ({error})"))
        return None
    if annotation.tag != "annotation":
        what = f"its root element is <{annotation.tag}>, not <annotation>"
        problems.append(problem("unreadable-annotation", where, what))
        return None
    return annotation


def _parse_either_encoding(data: bytes, where: str, problems: list[Problem]) -> Element:
    try:
        return fromstring(data)
    except ParseError as first_error:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            # Not UTF-8, whatever it declares. Old tools wrote Latin-1, which accepts all bytes.
            annotation = fromstring(data.decode("latin-1"))
            problems.append(problem("latin-1-annotation", where, "its text is not UTF-8"))
            return annotation
        raise first_error


def _stated_size(annotation: Element) -> NDArray[np.int64]:
    sides = [_number(annotation.findtext(f"size/{side}")) for side in ("width", "height")]
    if not all(1 <= side <= MAX_IMAGE_SIDE for side in sides):
        return np.zeros(2, dtype=np.int64)
    return np.array(sides).astype(np.int64)


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else np.nan
    except ValueError:
        return np.nan


def _flag(thing: Element, name: str) -> int:
    value = _number(thing.findtext(name))
    return int(value) if value in (0, 1) else UNKNOWN


def _find(path: Path) -> Path | None:
    return path if any((path / "Annotations").glob("*.xml")) else None


VOC = Format(
    prefix="voc",
    title="VOC",
    argument="DIR",
    expects="a folder with Annotations/*.xml",
    find=_find,
    read=read_voc,
)
