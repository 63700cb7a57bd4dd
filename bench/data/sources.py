"""From the value of --data to a reading: which reader, which path, and what is wrong with it.

scenes   scenes:images=400,small=0.5   voc:DIR   coco:DIR   yolo:DATA.yaml   DIR   FILE.zip   voc2007   voc0712

A prefix chooses the reader. Without one, the form is found out; `layouts` knows how the files of an export lie.
To add a format, write a module in readers/ and add its `Format` to FORMATS.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bench.data.archive import SUFFIX, check_archive, is_archive, unpacked
from bench.data.layouts import Folder, Found, find_foreign, find_layouts
from bench.data.paths import expanded
from bench.data.readers.coco import COCO
from bench.data.readers.cvat import CVAT
from bench.data.readers.fiftyone import FIFTYONE
from bench.data.readers.format import Format
from bench.data.readers.json_lines import JSON_LINES
from bench.data.readers.parts import content_of, list_name
from bench.data.readers.pascal import read_voc0712, read_voc2007
from bench.data.readers.reading import Reading
from bench.data.readers.table import CSV
from bench.data.readers.voc import VOC
from bench.data.readers.yolo import YOLO
from bench.errors import UserError

# `check_source` must answer at once, so the modules imported above must be light.
FORMATS: dict[str, Format] = {each.prefix: each for each in (VOC, COCO, YOLO, CSV, JSON_LINES, FIFTYONE, CVAT)}
MAX_NAME = 100  # letters of a short name: file systems allow 255, and more is added to it
DOWNLOADS: dict[str, Callable[[Path], Reading]] = {"voc2007": read_voc2007, "voc0712": read_voc0712}
SCENES = "scenes"
FORMS = ", ".join(
    [SCENES, f"{SCENES}:KNOBS", *(f"{prefix}:{each.argument}" for prefix, each in FORMATS.items()), *DOWNLOADS]
)

# A file without a prefix is read by the reader of its suffix; JSON may be of COCO or of FiftyOne.
YAML_SUFFIXES = (".yaml", ".yml")
PREFIX_OF_SUFFIX = {
    **dict.fromkeys((*YAML_SUFFIXES, ".data"), "yolo"),
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".xml": "cvat",
}
# Names of files and folders that every export has.
GENERIC = ("data", "dataset", "annotations", "_annotations.coco", "labels", "result", "metadata", "images", "obj")


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """A data set that a reader accepts.

    what: how its files lie. source: how to write it as --data. lacking: what has to be added first, as a sentence.
    """

    what: str
    source: str
    read: Callable[[], Reading]
    lacking: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.source})"


def read_source(source: str, *, cache: Path) -> Reading:
    """Read the data set that `source` names. Drawn, downloaded and unpacked data are kept in `cache`.

    Raises UserError if `source` has none of the FORMS, or names a path that does not exist or has another format;
    the message says what was found.
    """
    source = canonical(source)
    if source in DOWNLOADS:
        return DOWNLOADS[source](cache)
    prefix, argument = _parse(source)
    if prefix == SCENES:
        from bench.data.scenes.knobs import SceneKnobs  # noqa: PLC0415
        from bench.data.scenes.reader import read_scenes  # noqa: PLC0415  # imports scipy, which takes long

        return read_scenes(SceneKnobs.parse(argument), cache)
    path = _existing(source, prefix, argument)
    recognised = _recognise(prefix, unpacked(path, cache) if is_archive(path) else path, inside=is_archive(path))
    return replace(recognised.read(), recognised=str(recognised))


def check_source(source: str) -> None:
    """Raise the same UserError as `read_source` if `source` has a wrong form or names a wrong path; read nothing.

    What an archive holds is known only when it is unpacked.
    """
    source = canonical(source)
    if source in DOWNLOADS:
        return
    prefix, argument = _parse(source)
    if prefix == SCENES:
        if argument:
            from bench.data.scenes.knobs import SceneKnobs  # noqa: PLC0415

            SceneKnobs.parse(argument)
        return
    path = _existing(source, prefix, argument)
    if is_archive(path):
        check_archive(path)
    else:
        _recognise(prefix, path)


def data_name(source: str) -> str:
    """A short name for the results folder: letters, digits, - and _ only.

    `voc:photos/bccd` is "bccd", `yolo:photos/cells/data.yaml` is "cells", `photos/cells.zip` is "cells", `scenes` is
    "scenes".
    """
    source = canonical(source)
    if source in DOWNLOADS:
        return source
    prefix, argument = _parse(source)
    if prefix == SCENES:
        # Other knobs give other data, so they must not share a folder.
        return _safe("-".join([SCENES, *argument.replace("=", "").split(",")]))
    path = expanded(argument).resolve()
    name = path.name
    if path.suffix.lower() in (*PREFIX_OF_SUFFIX, SUFFIX, ".json") and not path.is_dir():
        name = path.stem
        generic = _of_a_part if path.suffix.lower() not in YAML_SUFFIXES else ("data", "dataset").__contains__
        while generic(name.lower()) and path.parent != path:
            path = path.parent
            name = path.name
    return _safe(name) or prefix or "data"


def canonical(source: str) -> str:
    """The source with its first word in small letters if that makes it one of the known words: VOC:DIR is voc:DIR."""
    word, colon, rest = source.partition(":")
    if word.lower() not in (SCENES, *DOWNLOADS, *FORMATS) or (not colon and expanded(word).exists()):
        return source
    return f"{word.lower()}{colon}{rest}"


def _of_a_part(name: str) -> bool:
    """Whether the name of a file or folder says which part of a data set it is, and not which set."""
    return name in GENERIC or list_name(name.removesuffix("_labels")) is not None


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:MAX_NAME]


def _parse(source: str) -> tuple[str | None, str]:
    """The prefix, or None, and the argument after it; the argument is empty for `scenes` alone."""
    prefix, _, argument = source.partition(":")
    if prefix == SCENES or (prefix in FORMATS and argument):
        return prefix, argument
    if expanded(source).exists():
        return None, source
    if prefix in FORMATS:
        raise UserError(f"--data {source} names no path. Write {prefix}:{FORMATS[prefix].argument}.")
    near = difflib.get_close_matches(prefix, [SCENES, *FORMATS, *DOWNLOADS], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"--data {source} is unknown.{hint} Write the path of a folder or .zip file, or one of {FORMS}.")


def _existing(source: str, prefix: str | None, argument: str) -> Path:
    path = expanded(argument)
    if not path.exists():
        raise UserError(f"--data {prefix}:{path} does not exist{_nearest(path)}. Correct the path.")
    return path


def _recognise(prefix: str | None, path: Path, *, inside: bool = False) -> Recognised:
    """The data set at `path`. inside: it was unpacked, so it may lie one folder deeper.

    Raises UserError if there is none or more than one; the message says what was found.
    """
    found = _candidates(path, prefix)
    if not found and (inside or prefix is None):
        found = _one_level_down(path, prefix)
    found = [each for each in found if not each.lacking] or found
    given = f"--data {prefix}:{path}" if prefix else f"--data {path}"
    if len(found) == 1:
        if found[0].lacking:
            raise UserError(f"{given} looks like {found[0].what}. {found[0].lacking}")
        return found[0]
    if found:
        choices = "; ".join(map(str, found))
        advice = "Give one of these after --data."
        if len({each.source for each in found}) < len(found):
            advice = "Move one of them away, or name a file of annotations after the prefix."
        raise UserError(f"{given} holds more than one data set: {choices}. {advice}")
    foreign = find_foreign(path) if path.is_dir() else _foreign_file(path)
    expects = f" is not {FORMATS[prefix].expects}" if prefix else " is no data set that is recognised"
    elsewhere = _elsewhere(path)
    if foreign:
        advice = f"It holds {foreign}."
    elif elsewhere:
        advice = f"It looks like {elsewhere.what}: {elsewhere.source}."
    else:
        advice = f"It holds {_contents(path)}." + ("" if prefix else " docs/data.md shows how files may lie.")
    raise UserError(f"{given}{expects}. {advice}")


def _candidates(path: Path, prefix: str | None) -> list[Recognised]:
    """The data sets at `path` that the reader of `prefix`, or any reader, accepts."""
    if path.is_file():
        return _of_file(path, prefix)
    found: list[Recognised] = []
    folder = Folder(path)
    for form in (each for name, each in FORMATS.items() if prefix in (None, name)):
        place = form.find(path)
        found += [_usual(form, place)] if place is not None else map(_recognised, find_layouts(folder, form.prefix))
    return found


def _of_file(path: Path, prefix: str | None) -> list[Recognised]:
    suffix = path.suffix.lower()
    if prefix is None:
        prefix = PREFIX_OF_SUFFIX.get(suffix)
        if suffix == ".json":
            prefix = {"fiftyone": "fiftyone", "coco": "coco", None: "coco"}.get(content_of(path))
    found = FORMATS[prefix].find(path) if prefix else None
    return [_usual(FORMATS[prefix], found)] if prefix and found is not None else []


def _usual(form: Format, place: Path) -> Recognised:
    return Recognised(what=form.title, source=f"{form.prefix}:{place}", read=partial(form.read, place))


def _recognised(found: Found) -> Recognised:
    form = FORMATS[found.layout.prefix]
    if form.read_parts is None:
        raise TypeError(f"{form.title} has layouts, but no function that reads them")
    lacking = ""
    if form is YOLO and found.names is None:
        file = found.root / "classes.txt"
        lacking = (
            "It has no classes.txt. Write it, with the class names in the order of their numbers, one in each line: "
            f"printf '%s\\n' CLASS CLASS > {file}"
        )
    return Recognised(
        what=str(found),
        source=f"{form.prefix}:{found.root}",
        read=partial(form.read_parts, found.root, found.parts, found.names),
        lacking=lacking,
    )


def _elsewhere(path: Path) -> Recognised | None:
    """A data set that is there under another prefix, one folder deeper, or one higher."""
    places = [path, *_folders(path)]
    if path.is_file() or path.name.lower() in GENERIC:
        places += [path.parent, path.parent.parent]
    for place in places:
        with suppress(UserError):
            for found in _candidates(place, None):
                return found
    return None


def _one_level_down(path: Path, prefix: str | None) -> list[Recognised]:
    """The data sets in the folders of `path`, as in VOCdevkit/VOC2007."""
    return [each for folder in _folders(path) for each in _candidates(folder, prefix)]


def _folders(path: Path) -> list[Path]:
    return [path / name for name in Folder(path).folders("")]


def _foreign_file(path: Path) -> str | None:
    return find_foreign(path.parent) if content_of(path) not in (None, "coco") else None


def _contents(path: Path) -> str:
    if not path.is_dir():
        return "no folder: it is a file"
    names = sorted(each.name + "/" * each.is_dir() for each in path.iterdir())
    return (", ".join(names[:8]) + (", ..." if len(names) > 8 else "")) or "nothing"


def _nearest(path: Path) -> str:
    """', but ...' with the most similar name in the parent folder."""
    if not path.parent.is_dir():
        return f", nor does {path.parent}"
    near = difflib.get_close_matches(path.name, [each.name for each in path.parent.iterdir()], n=1)
    return f", but {path.parent / near[0]} does" if near else ""
