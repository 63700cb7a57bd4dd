"""Pascal VOC as published detectors use it: downloaded, trained on trainval of 2007 (and 2012), scored on 2007 test."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.index import BOX_FIELDS
from bench.data.readers.reading import Reading, numbered_from_one
from bench.data.readers.voc import read_voc
from bench.errors import UserError

# In the order of the VOC documentation, which published detectors keep.
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle",
    "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_voc2007(cache: Path) -> Reading:
    """VOC 2007, downloaded to `cache` if needed: list "train" is trainval, list "val" is test."""
    folder = fetch_voc(cache, "2007", "trainval")
    fetch_voc(cache, "2007", "test")
    return read_voc(folder, classes=VOC_CLASSES, lists={"train": "trainval", "val": "test"})


def read_voc0712(cache: Path) -> Reading:
    """`read_voc2007` with trainval of VOC 2012 added to the list "train"."""
    voc2007 = read_voc2007(cache)
    folder = fetch_voc(cache, "2012", "trainval")
    return concatenate(voc2007, read_voc(folder, classes=VOC_CLASSES, lists={"train": "trainval"}))


def fetch_voc(cache: Path, year: str, image_set: str) -> Path:
    """Download and unpack one set of Pascal VOC into `cache`/voc, once; returns VOCdevkit/VOC<year>.

    Raises UserError if the download fails, or if VOC<year> is there and this function did not begin to unpack it.
    """
    root = cache / "voc"
    folder = root / "VOCdevkit" / f"VOC{year}"
    begun = root / f"VOC{year}.begun"  # written first, so that an interrupted unpacking is told from a user's folder
    finished = root / f"VOC{year}-{image_set}.done"  # written last, so an interrupted unpacking is repeated
    if finished.is_file():
        return folder
    if folder.exists() and not begun.is_file() and not any(root.glob(f"VOC{year}-*.done")):
        raise UserError(
            f"{folder} exists, but this program did not unpack it, and unpacking Pascal VOC {year} would overwrite it. "
            "Use it as it is (voc:DIR), move it away, or choose another folder with --cache."
        )
    # Importing torch takes half a second, and nothing else in reading data needs it.
    from torchvision.datasets import VOCDetection  # noqa: PLC0415

    root.mkdir(parents=True, exist_ok=True)
    begun.touch()
    try:
        VOCDetection(str(root), year=year, image_set=image_set, download=True)
    except (OSError, RuntimeError) as error:
        if not folder.exists():
            begun.unlink()
        raise UserError(
            f"Pascal VOC {year} {image_set} could not be downloaded to {root} ({error}). "
            "Download the archives from the VOC site and put them there, or unpack them anywhere and use voc:DIR."
        ) from error
    finished.touch()
    return folder


def concatenate(first: Reading, second: Reading) -> Reading:
    """Join two readings with the same classes: the images of `first`, then those of `second`.

    The root becomes their common folder, image ids count from 1, and lists with the same name are joined.
    Raises UserError if their classes differ.
    """
    a, b = first.index, second.index
    if a.classes != b.classes:
        differing = sorted(set(a.classes) ^ set(b.classes)) or ["their order"]
        raise UserError(
            f"{a.root} and {b.root} cannot be joined: their classes differ in {', '.join(differing)}. "
            "Use data sets with the same classes."
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
        image_ids=numbered_from_one(len(files)),
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
