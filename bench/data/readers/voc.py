"""Read Pascal VOC: one XML file per image, and text files that list the images of each split.

    ROOT/Annotations/*.xml   ROOT/JPEGImages/* (or images/*)   ROOT/ImageSets/Main/{train,val,test,trainval}.txt

Coordinates are used as written. VOC counts pixels from 1, but most tools that write this format count from 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from bench.data.decode import IMAGE_SUFFIXES
from bench.data.index import UNKNOWN
from bench.data.paths import read_annotation
from bench.data.problems import Problem, problem
from bench.data.readers.format import Format
from bench.data.readers.parts import SPELLINGS, Part
from bench.data.readers.pictures import Object, Picture, as_number, reading_of
from bench.data.readers.raw import LEFT_OUT, MAX_IMAGE_SIDE, NOT_STATED
from bench.data.readers.reading import Reading
from bench.errors import UserError
from bench.storage.reading import read_file, reason_of

# Where the images may be; tools other than VOC's own call the folder images.
IMAGE_FOLDERS = ("JPEGImages", "images", "imgs", "data")


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
    folder = _image_folder(root)
    images = _images_by_stem(root / folder)
    stems = _used_stems(annotations, images, list_stems, folder, problems)
    pictures = [_picture(annotations[stem], root, folder, images, problems) for stem in stems]
    row_of = {stem: row for row, stem in enumerate(stems)}
    rows = {name: [row_of[stem] for stem in listed if stem in row_of] for name, listed in list_stems.items()}
    return reading_of(root, pictures, problems, classes=classes, lists=rows)


def read_voc_parts(root: Path, parts: Mapping[str, Part], names: Path | None = None) -> Reading:
    """Read XML files that lie in one folder for each list, or beside their images. An image without one is left out.

    names: not used; the classes are those of the boxes, sorted.
    """
    problems: list[Problem] = []
    pictures: list[Picture] = []
    for name, part in parts.items():
        folder = part.images[0]
        annotations = {path.stem: path for path in sorted((root / part.annotations).glob("*.xml"))}
        images = _images_by_stem(root / folder)
        _report_unannotated(annotations, images, part.annotations, folder, problems)
        read = (_picture(path, root, folder, images, problems) for path in annotations.values())
        pictures += [replace(picture, part=name) for picture in read]
    return reading_of(root, pictures, problems)


def _image_folder(root: Path) -> str:
    """The name of the folder of images: the first of IMAGE_FOLDERS that exists, in any letter case."""
    folders = {path.name.casefold(): path.name for path in root.iterdir() if path.is_dir()}
    return next((folders[name.casefold()] for name in IMAGE_FOLDERS if name.casefold() in folders), IMAGE_FOLDERS[0])


def _picture(path: Path, root: Path, folder: str, images: Mapping[str, list[str]], problems: list[Problem]) -> Picture:
    """One image with its objects. folder: that of the images, relative to `root`."""
    where = path.relative_to(root).as_posix()
    annotation = _parse(path, root, problems)
    name = _image_name(path.stem, annotation, images, where, problems)
    file = f"{folder}/{name}" if folder else name
    if annotation is None:
        return Picture(file=file, where=where, size=(LEFT_OUT, LEFT_OUT))
    objects = [
        Object(
            name=(thing.findtext("name") or "").strip(),
            corners=[as_number(thing.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")],
            where=f"{where}, object {count}",
            difficult=_flag(thing, "difficult") == 1,
            truncated=_flag(thing, "truncated"),
            occluded=_flag(thing, "occluded"),
        )
        # Direct children only: an object's <part>s have boxes, too.
        for count, thing in enumerate(annotation.findall("object"), start=1)
    ]
    return Picture(file=file, where=where, size=_stated_size(annotation), objects=objects)


def _read_lists(
    root: Path, wanted: Mapping[str, str] | None, annotations: Mapping[str, Path], problems: list[Problem]
) -> dict[str, list[str]]:
    """The stems of each list that is used, without those that lack an annotation."""
    folder = root / "ImageSets" / "Main"
    if wanted is None:
        spellings = {**SPELLINGS, "trainval": ("trainval",)}
        present = {
            name: spelling
            for name, known in spellings.items()
            for spelling in reversed(known)  # the usual spelling counts if there are several
            if os.path.lexists(folder / f"{spelling}.txt")
        }
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
    folder: str,
    problems: list[Problem],
) -> list[str]:
    if {"train", "val"} <= lists.keys() or {"train"} == lists.keys():
        listed = set().union(*lists.values())
        if unlisted := len(annotations.keys() - listed):
            what = f"{unlisted} annotations are in none of the lists {', '.join(lists)}"
            problems.append(problem("annotation-in-no-list", "ImageSets/Main", what))
        return sorted(listed)
    _report_unannotated(annotations, images, "Annotations", folder, problems)
    return sorted(annotations)


def _report_unannotated(
    annotations: Mapping[str, Path],
    images: Mapping[str, list[str]],
    annotation_folder: str,
    image_folder: str,
    problems: list[Problem],
) -> None:
    for stem in sorted(images.keys() - annotations.keys()):
        what = f"there is no {Path(annotation_folder, stem).as_posix()}.xml"
        where = Path(image_folder, images[stem][0]).as_posix()
        problems.append(problem("image-without-annotation", where, what))


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


def _image_name(
    stem: str, annotation: Element | None, images: Mapping[str, list[str]], where: str, problems: list[Problem]
) -> str:
    """The image file of an annotation: the one with its stem, otherwise the one in <filename>."""
    written = "" if annotation is None else (annotation.findtext("filename") or "").strip()
    written = re.split(r"[/\\]", written)[-1]
    if stem in images:
        found = images[stem]
        chosen = written if written in found else found[0]
        if len(found) > 1:
            what = f"{', '.join(found)}: {chosen} is used"
            problems.append(problem("several-images-for-annotation", where, what))
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


def _stated_size(annotation: Element) -> tuple[int, int]:
    width, height = (as_number(annotation.findtext(f"size/{side}")) for side in ("width", "height"))
    stated = all(1 <= side <= MAX_IMAGE_SIDE for side in (width, height))
    return (int(width), int(height)) if stated else (NOT_STATED, NOT_STATED)


def _flag(thing: Element, name: str) -> int:
    value = as_number(thing.findtext(name))
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
    read_parts=read_voc_parts,
)
