"""From the text after --data to a reading: which reader, which folder, and what is wrong with it.

scenes   scenes:images=400,small=0.5   voc:DIR   coco:DIR   yolo:DATA.yaml   voc2007   voc0712
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.index import BOX_FIELDS
from bench.data.paths import expanded
from bench.data.readers.reading import Reading, counted_from_one
from bench.errors import UserError

# Readers are imported where they are called: `check_source` must answer at once.

FORMS = "scenes, scenes:KNOBS, voc:DIR, coco:DIR, yolo:DATA.yaml, voc2007 or voc0712"
PREFIXES = ("scenes", "voc", "coco", "yolo")
FETCHED = ("voc2007", "voc0712")

# In the order of Pascal VOC's own documentation, which published detectors keep.
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle",
    "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_source(source: str, *, cache: Path) -> Reading:
    """Read what `source` names. Drawn and fetched data are kept under `cache`.

    Raises UserError if it is of none of the FORMS, or names something that is not there or is of
    another format; the message says what was found.
    """
    if source in FETCHED:
        return _read_fetched(source, cache)
    prefix, argument = _parse(source)
    if prefix == "scenes":
        from bench.data.scenes import SceneKnobs, read_scenes  # noqa: PLC0415

        return read_scenes(SceneKnobs.parse(argument), cache)
    return _read_place(prefix, expanded(argument))


def check_source(source: str) -> None:
    """Raise the same UserError as `read_source` if `source` has another form or names something that does not exist.

    Reads nothing.
    """
    if source in FETCHED:
        return
    prefix, argument = _parse(source)
    if prefix != "scenes":
        _check_place(prefix, expanded(argument))
    elif argument:
        from bench.data.scenes import SceneKnobs  # noqa: PLC0415

        SceneKnobs.parse(argument)


def data_name(source: str) -> str:
    """A short name for the results folder: letters, digits, - and _ only.

    `voc:photos/bccd` is "bccd", `yolo:photos/cells/data.yaml` is "cells", `scenes` is "scenes".
    """
    if source in FETCHED:
        return source
    prefix, argument = _parse(source)
    if prefix == "scenes":
        # Other knobs are other data, and must not meet the first run's folder.
        return _safe("-".join(["scenes", *argument.replace("=", "").split(",")]))
    path = expanded(argument).resolve()
    if prefix == "yolo":
        name = path.parent.name if path.stem.lower() in ("data", "dataset") else path.stem
    else:
        name = path.name
    return _safe(name) or prefix


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")


def _parse(source: str) -> tuple[str, str]:
    """Prefix and what follows it; for the prefixes of places never empty."""
    prefix, _, argument = source.partition(":")
    if prefix == "scenes" or (prefix in PREFIXES and argument):
        return prefix, argument
    if prefix in PREFIXES:
        raise UserError(f"--data {source} names no place. Write {prefix}:{'DATA.yaml' if prefix == 'yolo' else 'DIR'}.")
    path = expanded(source)
    if path.exists():
        form = _form_of(path)
        advice = f"it looks like {form}" if form else f"say of what form it is ({FORMS})"
        raise UserError(f"--data {source} has no prefix; {advice}.")
    near = difflib.get_close_matches(prefix, [*PREFIXES, *FETCHED], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"--data {source} is not known.{hint} Write one of {FORMS}.")


def _read_place(prefix: str, path: Path) -> Reading:
    _check_place(prefix, path)
    if prefix == "voc":
        from bench.data.readers.voc import read_voc  # noqa: PLC0415

        return read_voc(path)
    if prefix == "coco":
        from bench.data.readers.coco import read_coco  # noqa: PLC0415

        return read_coco(path)
    from bench.data.readers.yolo import read_yolo  # noqa: PLC0415

    return read_yolo(path)


def _check_place(prefix: str, path: Path) -> None:
    if not path.exists():
        raise UserError(f"--data {prefix}:{path}: there is no {path}{_nearest(path)}. Correct the path.")
    fits = path.is_file() if prefix == "yolo" else path.is_dir() and _holds(prefix, path)
    if not fits:
        form = _form_of(path)
        advice = f"It looks like {form}." if form else f"It holds {_contents(path)}."
        raise UserError(f"--data {prefix}:{path} is not {_WANTED[prefix]}. {advice}")


_WANTED = {
    "voc": "a folder with Annotations/*.xml",
    "coco": "a folder with annotations.json or annotations/*.json",
    "yolo": "a data.yaml file",
}


def _holds(prefix: str, folder: Path) -> bool:
    if prefix == "voc":
        return any((folder / "Annotations").glob("*.xml"))
    if prefix == "coco":
        return (folder / "annotations.json").is_file() or any((folder / "annotations").glob("*.json"))
    return bool(_yaml_files(folder))


def _form_of(path: Path) -> str | None:
    """How to write a path as --data, judged by what is there; None if nothing is recognised."""
    if path.is_file():
        if path.suffix.lower() in (".yaml", ".yml"):
            return f"YOLO data: yolo:{path}"
        folder = path.parent.parent if path.parent.name in ("annotations", "Annotations") else path.parent
        form = _form_of(folder) if path.suffix.lower() in (".json", ".xml") else None
        return form
    places = [path, *(sorted(each for each in path.iterdir() if each.is_dir()))]
    for place in places:  # the folder itself, then one level down: VOCdevkit/VOC2007
        if _holds("voc", place):
            return f"VOC data: voc:{place}"
        if _holds("coco", place):
            return f"COCO data: coco:{place}"
        if yaml_files := _yaml_files(place):
            return f"YOLO data: yolo:{yaml_files[0]}"
    return None


def _yaml_files(folder: Path) -> list[Path]:
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    return [file for file in files if re.search(r"^names\s*:", file.read_text(errors="replace"), re.MULTILINE)]


def _contents(path: Path) -> str:
    if path.is_file():
        return "no folder: it is a file"
    names = sorted(each.name + "/" * each.is_dir() for each in path.iterdir())
    return (", ".join(names[:8]) + (", ..." if len(names) > 8 else "")) or "nothing"


def _nearest(path: Path) -> str:
    """', but ...' naming the entry of the parent folder that is spelled most like it."""
    if not path.parent.is_dir():
        return f", nor {path.parent}"
    near = difflib.get_close_matches(path.name, [each.name for each in path.parent.iterdir()], n=1)
    return f", but {path.parent / near[0]}" if near else ""


def _read_fetched(source: str, cache: Path) -> Reading:
    """VOC as published detectors use it: trained on trainval of 2007 (and 2012), scored on 2007 test."""
    from bench.data.readers.voc import read_voc  # noqa: PLC0415

    folder = fetch_voc(cache, "2007", "trainval")
    fetch_voc(cache, "2007", "test")
    own_lists = {"train": "trainval", "val": "test"}
    voc2007 = read_voc(folder, classes=VOC_CLASSES, lists=own_lists)
    if source == "voc2007":
        return voc2007
    folder = fetch_voc(cache, "2012", "trainval")
    return concatenate(voc2007, read_voc(folder, classes=VOC_CLASSES, lists={"train": "trainval"}))


def fetch_voc(cache: Path, year: str, image_set: str) -> Path:
    """Download and unpack one set of Pascal VOC under `cache`/voc, once; returns VOCdevkit/VOC<year>.

    Raises UserError if it cannot be fetched.
    """
    root = cache / "voc"
    folder = root / "VOCdevkit" / f"VOC{year}"
    finished = root / f"VOC{year}-{image_set}.done"  # written last: an interrupted unpacking leaves none
    if finished.is_file():
        return folder
    # Half a second and all of torch, which nothing else in reading data needs.
    from torchvision.datasets import VOCDetection  # noqa: PLC0415

    root.mkdir(parents=True, exist_ok=True)
    try:
        VOCDetection(str(root), year=year, image_set=image_set, download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"Pascal VOC {year} {image_set} could not be fetched into {root} ({error}). "
            f"Put the archives from the VOC site there by hand, or unpack them anywhere and use voc:DIR."
        ) from error
    finished.touch()
    return folder


def concatenate(first: Reading, second: Reading) -> Reading:
    """Two readings of one list of classes as one: images of `first`, then those of `second`.

    The root becomes their common folder, image ids count from 1, and lists of one name are joined.
    """
    a, b = first.index, second.index
    if a.classes != b.classes:
        differing = sorted(set(a.classes) ^ set(b.classes)) or ["their order"]
        raise UserError(
            f"{a.root} and {b.root} cannot be joined: their classes differ in {', '.join(differing)}. "
            "Use data sets of the same classes."
        )
    root = Path(os.path.commonpath([a.root.resolve(), b.root.resolve()]))
    files = tuple(
        Path(os.path.relpath(index.root.resolve() / file, root)).as_posix() for index in (a, b) for file in index.files
    )
    joined: dict[str, Any] = {name: np.concatenate([getattr(a, name), getattr(b, name)]) for name in BOX_FIELDS}
    index = replace(
        a,
        root=root,
        files=files,
        image_ids=counted_from_one(len(files)),
        sizes=np.concatenate([a.sizes, b.sizes]),
        offsets=np.concatenate([a.offsets, a.offsets[-1] + b.offsets[1:]]),
        **joined,
    )
    none = np.zeros(0, dtype=np.int64)
    names = [*first.lists, *(name for name in second.lists if name not in first.lists)]
    lists = {
        name: np.concatenate([first.lists.get(name, none), len(a) + second.lists.get(name, none)]) for name in names
    }
    return Reading(index=index, lists=lists, problems=first.problems + second.problems)
