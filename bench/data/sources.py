"""From the value of --data to a reading: which reader, which path, and what is wrong with it.

scenes   scenes:images=400,small=0.5   voc:DIR   coco:DIR   yolo:DATA.yaml   voc2007   voc0712

To add a format, write a module in readers/ and add its `Format` to FORMATS.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path

from bench.data.paths import expanded
from bench.data.readers.coco import COCO
from bench.data.readers.format import Format
from bench.data.readers.pascal import read_voc0712, read_voc2007
from bench.data.readers.reading import Reading
from bench.data.readers.voc import VOC
from bench.data.readers.yolo import YOLO
from bench.errors import UserError

# `check_source` must answer at once, so the modules imported above must be light.
FORMATS: dict[str, Format] = {each.prefix: each for each in (VOC, COCO, YOLO)}
MAX_NAME = 100  # letters of a short name: file systems allow 255, and more is added to it
DOWNLOADS: dict[str, Callable[[Path], Reading]] = {"voc2007": read_voc2007, "voc0712": read_voc0712}
SCENES = "scenes"
FORMS = ", ".join(
    [SCENES, f"{SCENES}:KNOBS", *(f"{prefix}:{each.argument}" for prefix, each in FORMATS.items()), *DOWNLOADS]
)


def read_source(source: str, *, cache: Path) -> Reading:
    """Read the data set that `source` names. Drawn and downloaded data are kept in `cache`.

    Raises UserError if `source` has none of the FORMS, or names a path that does not exist or has another format;
    the message says what was found.
    """
    if source in DOWNLOADS:
        return DOWNLOADS[source](cache)
    prefix, argument = _parse(source)
    if prefix == SCENES:
        from bench.data.scenes.knobs import SceneKnobs  # noqa: PLC0415
        from bench.data.scenes.reader import read_scenes  # noqa: PLC0415  # imports scipy, which takes long

        return read_scenes(SceneKnobs.parse(argument), cache)
    path = expanded(argument)
    _check_path(FORMATS[prefix], path)
    return FORMATS[prefix].read(path)


def check_source(source: str) -> None:
    """Raise the same UserError as `read_source` if `source` has a wrong form or names a wrong path; read nothing."""
    if source in DOWNLOADS:
        return
    prefix, argument = _parse(source)
    if prefix in FORMATS:
        _check_path(FORMATS[prefix], expanded(argument))
    elif argument:
        from bench.data.scenes.knobs import SceneKnobs  # noqa: PLC0415

        SceneKnobs.parse(argument)


def data_name(source: str) -> str:
    """A short name for the results folder: letters, digits, - and _ only.

    `voc:photos/bccd` is "bccd", `yolo:photos/cells/data.yaml` is "cells", `scenes` is "scenes".
    """
    if source in DOWNLOADS:
        return source
    prefix, argument = _parse(source)
    if prefix == SCENES:
        # Other knobs give other data, so they must not share a folder.
        return _safe("-".join([SCENES, *argument.replace("=", "").split(",")]))
    path = expanded(argument).resolve()
    if prefix == YOLO.prefix:
        name = path.parent.name if path.stem.lower() in ("data", "dataset") else path.stem
    else:
        name = path.name
    return _safe(name) or prefix


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:MAX_NAME]


def _parse(source: str) -> tuple[str, str]:
    """The prefix and the argument after it; the argument is empty for `scenes` alone."""
    prefix, _, argument = source.partition(":")
    if prefix == SCENES or (prefix in FORMATS and argument):
        return prefix, argument
    if prefix in FORMATS:
        raise UserError(f"--data {source} names no path. Write {prefix}:{FORMATS[prefix].argument}.")
    path = expanded(source)
    if path.exists():
        found = _recognised(path)
        advice = f"it looks like {found}" if found else f"add one ({FORMS})"
        raise UserError(f"--data {source} has no prefix; {advice}.")
    near = difflib.get_close_matches(prefix, [SCENES, *FORMATS, *DOWNLOADS], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"--data {source} is unknown.{hint} Write one of {FORMS}.")


def _check_path(form: Format, path: Path) -> None:
    if not path.exists():
        raise UserError(f"--data {form.prefix}:{path} does not exist{_nearest(path)}. Correct the path.")
    if form.find(path) != path:
        found = _recognised(path)
        advice = f"It looks like {found}." if found else f"It holds {_contents(path)}."
        raise UserError(f"--data {form.prefix}:{path} is not {form.expects}. {advice}")


def _recognised(path: Path) -> str | None:
    """How to write the data at `path` as --data; None if no format recognises them."""
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix in (".json", ".xml"):
            return _recognised(path.parent.parent if path.parent.name.lower() == "annotations" else path.parent)
        if suffix not in (".yaml", ".yml"):
            return None
    # The path itself, then one level down, as in VOCdevkit/VOC2007.
    places = [path, *(sorted(each for each in path.iterdir() if each.is_dir()) if path.is_dir() else ())]
    for place in places:
        for form in FORMATS.values():
            found = form.find(place)
            if found is not None:
                return f"{form.title} data: {form.prefix}:{found}"
    return None


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
